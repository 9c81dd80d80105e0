//! Time tags: what a detector's time-to-digital converter writes down.
//!
//! One 64-bit word: bits 63..10 local time in units of 4 ps, bit 4 the rollover flag, bits 3..0 which
//! detectors fired. A tag's time ends after 2^54 units, twenty hours: an instrument refuses the light of later epochs,
//! because what recovers clocks and cuts frames takes local time for a number that only grows. A planned run ends a
//! minute earlier. Files count otherwise, and wrap: see [`crate::tagfile`].

/// Time resolution of a tag, ps.
pub const UNIT_PS: u64 = 4;

/// Mask of the time of a tag, once shifted down.
pub const UNITS_MASK: u64 = (1 << 54) - 1;

/// Local time at which tags end.
pub const END_PS: u64 = (1 << 54) * UNIT_PS;

/// Marks a word that only tells that time has gone on.
pub const ROLLOVER: u64 = 1 << 4;

/// Mask of the detectors that fired.
pub const PATTERN_MASK: u64 = 0b1111;

const TIME_SHIFT: u32 = 10;

/// The tag of one detector, `units` of 4 ps after the clock's origin (modulo 2^54).
#[inline]
pub fn tag(units: u64, port: u32) -> u64 {
    units << TIME_SHIFT | 1 << port
}

/// Local time of a tag in units of 4 ps.
#[inline]
pub fn units(tag: u64) -> u64 {
    tag >> TIME_SHIFT
}
