//! Coincidence search: all pairs of an announced event and an own click whose difference is small.
//!
//! Merging two sorted streams mispredicts a branch at every step. Instead each stretch of some 60 us gets a bit
//! map of own clicks that fits the first-level cache; an announced event looks at the few bits around its
//! predicted time, without branches, and only the few per cent that find one set are searched exactly.

use super::clock::{FrameClock, PARTS};
use crate::sifting::entangled::announce::time_units;

/// Time that one bit map covers, 67 us.
const SPAN_BITS: u32 = 24;
/// Shortest bin, 0.5 ns.
const BIN_BITS_MIN: u32 = 7;
const MAP_BYTES: usize = 1 << (SPAN_BITS - BIN_BITS_MIN - 3);
/// The clocks drift apart by less than this within a span, in units; rounding included.
const DRIFT_UNITS: u64 = 6;
/// Bits that one look at the map compares.
const LOOK_BITS_MAX: u64 = 8;

/// A possible coincidence: index of the announced event, of the own click, and own minus predicted time in 1/256
/// units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub event: u32,
    pub own: u32,
    pub difference: i32,
}

/// One frame of announcements: events as [`crate::sifting::entangled::announce::Announcement::unpack_into`] gives them.
#[derive(Clone, Copy)]
pub(super) struct Events<'a> {
    pub start: u64,
    pub events: &'a [u64],
}

pub(super) struct Finder {
    /// Largest difference, in units.
    range: u64,
    bin_bits: u32,
    look: u16,
    map: Box<[u8; MAP_BYTES + 1]>,
    candidates: Vec<u32>,
}

impl Finder {
    pub fn new(range: u64) -> Self {
        let reach = 2 * (range + DRIFT_UNITS);
        let bin_bits = (BIN_BITS_MIN..SPAN_BITS).find(|b| (reach >> b) + 2 <= LOOK_BITS_MAX).unwrap_or(SPAN_BITS);
        let look = (1u16 << ((reach >> bin_bits) + 2).min(LOOK_BITS_MAX)) - 1;
        Self { range, bin_bits, look, map: Box::new([0; MAP_BYTES + 1]), candidates: Vec::new() }
    }

    /// Appends all pairs within the range, by event and then by own click. `own` is sorted.
    pub fn find(&mut self, events: Events, own: &[u64], clock: FrameClock, pairs: &mut Vec<Pair>) {
        let margin = self.range + DRIFT_UNITS;
        let length = (1u64 << SPAN_BITS) - 2 * margin;
        let (mut event, mut click) = (0, 0);
        while let Some(next) = events.events.get(event) {
            let begin = (next >> 1) / length * length;
            let count = events.events[event..].partition_point(|e| e >> 1 < begin + length);
            // Own time of bit 0: margin before the predicted time of the span's beginning.
            let offset = (clock.offset(begin) + PARTS / 2) >> PARTS.trailing_zeros();
            let origin = events.start as i64 + begin as i64 + offset - margin as i64;
            click += own[click..].partition_point(|tag| (time_units(*tag) as i64) < origin);
            let clicks = own[click..].partition_point(|tag| (time_units(*tag) as i64) < origin + (1 << SPAN_BITS));
            let near = &own[click..click + clicks];
            if !near.is_empty() {
                self.mark(near, origin);
                self.look(&events.events[event..event + count], begin);
                for candidate in &self.candidates {
                    let index = event + *candidate as usize;
                    self.exact(events, index, (near, click), clock, pairs);
                }
            }
            event += count;
        }
    }

    fn mark(&mut self, near: &[u64], origin: i64) {
        let (map, bin_bits) = (&mut *self.map, self.bin_bits);
        map.fill(0);
        for tag in near {
            let bin = (time_units(*tag).wrapping_sub(origin as u64) as u32) >> bin_bits;
            map[(bin >> 3) as usize % MAP_BYTES] |= 1 << (bin & 7);
        }
    }

    /// Fills `candidates` with the events that have a bit set near them.
    fn look(&mut self, events: &[u64], begin: u64) {
        self.candidates.clear();
        self.candidates.resize(events.len(), 0);
        let (map, bin_bits, look) = (&*self.map, self.bin_bits, self.look);
        let candidates = self.candidates.as_mut_slice();
        let mut found = 0;
        for (index, event) in events.iter().enumerate() {
            let bin = ((event >> 1) - begin) as u32 >> bin_bits;
            let byte = (bin >> 3) as usize % MAP_BYTES;
            let word = u16::from_le_bytes([map[byte], map[byte + 1]]);
            candidates[found] = index as u32;
            found += usize::from((word >> (bin & 7)) & look != 0);
        }
        self.candidates.truncate(found);
    }

    /// Appends the pairs of one event; `near` are the own clicks around and the index of the first of them.
    #[inline]
    fn exact(&self, events: Events, index: usize, near: (&[u64], usize), clock: FrameClock, pairs: &mut Vec<Pair>) {
        let delay = events.events[index] >> 1;
        let range = (self.range as i64) * PARTS;
        // Predicted own time after the frame's start, in 1/256 units.
        let predicted = delay as i64 * PARTS + clock.offset(delay);
        let start = events.start as i64;
        let lowest = (predicted - range).div_euclid(PARTS) + start;
        let first = near.0.partition_point(|tag| (time_units(*tag) as i64) < lowest);
        for (position, tag) in near.0[first..].iter().enumerate() {
            let difference = (time_units(*tag) as i64 - start) * PARTS - predicted;
            if difference > range {
                break;
            }
            if difference >= -range {
                let own = (near.1 + first + position) as u32;
                pairs.push(Pair { event: index as u32, own, difference: difference as i32 });
            }
        }
    }
}
