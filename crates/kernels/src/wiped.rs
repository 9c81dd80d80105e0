//! Wiping long vectors of key at once: a vector's own `zeroize` goes item by item, which costs more than most of what is
//! done with such strings.

use zeroize::{DefaultIsZeroes, Zeroize, ZeroizeOnDrop};

/// Zeroizes the items and what is behind them in the buffer: the slices, not the vector, which is empty from then on.
pub fn wipe<T: DefaultIsZeroes>(items: &mut Vec<T>) {
    items.as_mut_slice().zeroize();
    items.spare_capacity_mut().zeroize();
    items.clear();
}

/// Bytes that are wiped when dropped, for buffers that own what they are given. They never grow.
pub struct WipedBytes(Vec<u8>);

impl WipedBytes {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for WipedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for WipedBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl ZeroizeOnDrop for WipedBytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_vector_is_left_in_its_buffer() {
        let mut items = vec![7u32; 100];
        items.truncate(60);
        wipe(&mut items);
        assert!(items.is_empty() && items.capacity() >= 100);
        // SAFETY: `wipe` has written all of the buffer, and any bits are a number.
        let buffer = unsafe { std::slice::from_raw_parts(items.as_ptr(), items.capacity()) };
        assert!(buffer.iter().all(|item| *item == 0));
    }
}
