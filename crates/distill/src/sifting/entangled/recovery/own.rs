//! Own clicks that wait for the peer's announcements.

use std::collections::VecDeque;

use crate::sifting::entangled::announce;

/// Own clicks that no result has accounted for yet.
#[derive(Default)]
pub(super) struct OwnClicks {
    pub frames: VecDeque<Vec<u64>>,
    /// Clicks of the first frame that are accounted for.
    used: usize,
    /// End of what has been pushed, in units.
    pub end: u64,
    pub next_frame: Option<u64>,
}

impl OwnClicks {
    /// Moves clicks before `end` to `into`.
    pub fn take(&mut self, end: u64, into: &mut Vec<u64>) {
        while let Some(front) = self.frames.front() {
            let rest = &front[self.used..];
            let count = rest.partition_point(|tag| announce::time_units(*tag) < end);
            into.extend_from_slice(&rest[..count]);
            if count < rest.len() {
                self.used += count;
                return;
            }
            self.frames.pop_front();
            self.used = 0;
        }
    }

    /// Lets clicks before `end` go, and says how many.
    pub fn discard(&mut self, end: u64) -> u64 {
        let mut discarded = 0;
        while let Some(front) = self.frames.front() {
            let rest = &front[self.used..];
            let count = rest.partition_point(|tag| announce::time_units(*tag) < end);
            discarded += count as u64;
            if count < rest.len() {
                self.used += count;
                break;
            }
            self.frames.pop_front();
            self.used = 0;
        }
        discarded
    }

    pub fn discard_oldest_frame(&mut self) -> u64 {
        let used = std::mem::take(&mut self.used);
        self.frames.pop_front().map_or(0, |front| (front.len() - used) as u64)
    }

    /// Times from `begin` to `end`, counted from `zero`.
    pub fn times(&self, begin: u64, end: u64, zero: u64) -> Vec<i64> {
        let mut times = Vec::new();
        for (index, frame) in self.frames.iter().enumerate() {
            let rest = if index == 0 { &frame[self.used..] } else { frame };
            let low = rest.partition_point(|tag| announce::time_units(*tag) < begin);
            let high = rest.partition_point(|tag| announce::time_units(*tag) < end);
            times.extend(rest[low..high].iter().map(|tag| announce::time_units(*tag) as i64 - zero as i64));
        }
        times
    }
}
