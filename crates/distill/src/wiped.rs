//! Working memory that depends on a key.

use std::ops::{Deref, DerefMut};

use zeroize::{DefaultIsZeroes, Zeroize};

/// A vector that is zeroized when dropped. All at once: `Zeroizing` does it item by item, which costs more than most of
/// what is done with long strings. It must not grow beyond its capacity, or a copy stays behind.
pub(crate) struct Wiped<T: DefaultIsZeroes>(Vec<T>);

impl<T: DefaultIsZeroes> Wiped<T> {
    pub fn new(items: Vec<T>) -> Self {
        Self(items)
    }

    pub fn zeros(len: usize) -> Self {
        Self(vec![T::default(); len])
    }

    pub fn with_capacity(items: usize) -> Self {
        Self(Vec::with_capacity(items))
    }
}

impl<T: DefaultIsZeroes> Default for Wiped<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: DefaultIsZeroes> Deref for Wiped<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: DefaultIsZeroes> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: DefaultIsZeroes> Drop for Wiped<T> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Zeroizes the items and what is behind them in the buffer. The slices, not the vector.
pub(crate) fn wipe<T: DefaultIsZeroes>(items: &mut Vec<T>) {
    items.as_mut_slice().zeroize();
    items.spare_capacity_mut().zeroize();
    items.clear();
}
