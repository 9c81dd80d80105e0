//! Cutting tags into frames by local time.

use super::clock::Line;
use crate::photons::{Arrival, port, time_ps};
use crate::tag::{UNIT_PS, tag};

/// The tags of one frame: local time `[number * frame_ps, (number + 1) * frame_ps)`, in strictly ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub number: u64,
    /// As [`crate::tag`] says.
    pub tags: Vec<u64>,
}

pub(super) struct Framer {
    /// The converter's resolution in units of a tag.
    resolution: u64,
    frame_units: u64,
    number: Option<u64>,
    /// Clicks before it cannot be stamped: the clock was there before.
    floor: u64,
    tags: Vec<u64>,
    stamped: Box<[u64; STAMPED]>,
    spare: Vec<Vec<u64>>,
}

/// Tags that are stamped together.
const STAMPED: usize = 512;

/// Buffers that are kept for frames to come.
const SPARES: usize = 8;

impl Framer {
    pub(super) fn new(resolution_ps: f64, frame_ps: u64) -> Self {
        Self {
            resolution: (libm::round(resolution_ps / UNIT_PS as f64) as u64).max(1),
            frame_units: (frame_ps / UNIT_PS).max(1),
            number: None,
            floor: 0,
            tags: Vec::new(),
            stamped: Box::new([0; STAMPED]),
            spare: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.number = None;
        self.floor = 0;
        self.tags.clear();
    }

    /// Nothing is known of the time before `units`: the first frame is the next that begins.
    pub(super) fn begin(&mut self, units: u64) {
        self.number = Some(units.div_ceil(self.frame_units));
    }

    /// The clock was set back when it was at `units`: until it is there again nothing is stamped, or tags would come
    /// twice.
    pub(super) fn set_back(&mut self, units: u64) {
        self.floor = self.floor.max(units + self.resolution);
    }

    /// Adds clicks in order of time, stamped by `clock`.
    pub(super) fn add(&mut self, clicks: &[Arrival], clock: Line, out: &mut Vec<Frame>) {
        // The division costs more than the rest of the loop, and the finest converters need none.
        if self.resolution == 1 {
            self.add_quantised(clicks, |click| clock.units(time_ps(click)), out);
        } else {
            let resolution = self.resolution;
            self.add_quantised(clicks, |click| clock.units(time_ps(click)) / resolution * resolution, out);
        }
    }

    fn add_quantised(&mut self, mut clicks: &[Arrival], units: impl Fn(Arrival) -> u64, out: &mut Vec<Frame>) {
        let Some(mut number) = self.number else { return };
        let begin = (number * self.frame_units).max(self.floor);
        if clicks.first().is_some_and(|&click| units(click) < begin) {
            // Before the first frame, or stamped already.
            clicks = &clicks[clicks.partition_point(|&click| units(click) < begin)..];
        }
        while !clicks.is_empty() {
            let end = (number + 1) * self.frame_units;
            let here = match clicks.last() {
                Some(&last) if units(last) < end => clicks.len(),
                _ => clicks.partition_point(|&click| units(click) < end),
            };
            self.stamp(&clicks[..here], &units);
            clicks = &clicks[here..];
            if !clicks.is_empty() {
                self.cut(out);
                number += 1;
            }
        }
    }

    /// Appends the tags of clicks.
    fn stamp(&mut self, clicks: &[Arrival], units: impl Fn(Arrival) -> u64) {
        let before = self.tags.len();
        let mut last = self.tags.last().copied().unwrap_or(0);
        let mut disordered = false;
        // By way of a small buffer: what is written there is in the nearest cache and needs no clearing first.
        for clicks in clicks.chunks(STAMPED) {
            let stamped = &mut self.stamped[..clicks.len()];
            for (stamped, &click) in stamped.iter_mut().zip(clicks) {
                let tag = tag(units(click), port(click));
                *stamped = tag;
                disordered |= tag < last;
                last = tag;
            }
            self.tags.extend_from_slice(stamped);
        }
        if disordered {
            settle(&mut self.tags, before);
        }
    }

    /// Cuts every frame that ends by `units`.
    pub(super) fn complete(&mut self, units: u64, out: &mut Vec<Frame>) {
        while self.number.is_some_and(|number| (number + 1) * self.frame_units <= units) {
            self.cut(out);
        }
    }

    /// What there is of the last frame.
    pub(super) fn finish(&mut self) -> Option<Frame> {
        let number = self.number.take()?;
        Some(Frame { number, tags: std::mem::take(&mut self.tags) })
    }

    pub(super) fn recycle(&mut self, mut tags: Vec<u64>) {
        if self.spare.len() < SPARES {
            tags.clear();
            self.spare.push(tags);
        }
    }

    fn cut(&mut self, out: &mut Vec<Frame>) {
        if let Some(number) = &mut self.number {
            let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.tags.len() + self.tags.len() / 8));
            out.push(Frame { number: *number, tags: std::mem::replace(&mut self.tags, next) });
            *number += 1;
        }
    }
}

/// Moves the tags from `start` on to their places: clicks of different detectors within one unit come in any
/// order, tags do not.
fn settle(tags: &mut [u64], start: usize) {
    for next in start.max(1)..tags.len() {
        let mut place = next;
        while place > 0 && tags[place - 1] > tags[place] {
            tags.swap(place - 1, place);
            place -= 1;
        }
    }
}
