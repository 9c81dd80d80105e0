//! Numbers and bits as sifting messages carry them.

use crate::bits::Bits;

pub(crate) fn push_leb128(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one number of at most 28 bits, written in the shortest way.
pub(crate) fn take_leb128(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for position in 0..4 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return (position == 0 || *byte != 0).then_some(value);
        }
    }
    None
}

/// Exactly `len` bits, with nothing after them.
pub(crate) fn unpack_bits(bytes: &[u8], len: usize) -> Option<Bits> {
    let padding_clear = len.is_multiple_of(8) || bytes.last().is_some_and(|last| last >> (len % 8) == 0);
    (bytes.len() == len.div_ceil(8) && padding_clear).then(|| Bits::from_bytes(bytes, len))
}
