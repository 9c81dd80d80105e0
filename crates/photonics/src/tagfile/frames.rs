//! Frames of a recording, as an instrument would have cut them.

use std::io::Read;

use super::TagFileError;
use super::read::{Click, TagReader};
use crate::receiver::Frame;
use crate::tag::{UNIT_PS, UNITS_MASK, tag};

/// Reads a file frame by frame.
pub struct FrameReader<R> {
    reader: TagReader<R>,
    frame_ticks: u128,
    /// Where frame 0 begins on the file's own clock, in ticks.
    origin: i128,
    /// Channels of the file that are detectors 1 to 4.
    channels: Vec<i32>,
    number: Option<u64>,
    clicks: Vec<Click>,
    next: usize,
    failure: Option<TagFileError>,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    /// The channels are the file's detectors 1 to 4, in this order; clicks of others are left out.
    pub fn new(reader: TagReader<R>, frame_ps: u64, channels: Vec<i32>) -> Self {
        Self {
            reader,
            frame_ticks: u128::from((frame_ps / UNIT_PS).max(1)),
            origin: 0,
            channels,
            number: None,
            clicks: Vec::new(),
            next: 0,
            failure: None,
            ended: false,
        }
    }

    /// Counts frames, and the time of their tags, from this tick of the file's clock on. What lies before is left
    /// out.
    pub fn starting_at(mut self, origin: i128) -> Self {
        self.origin = origin;
        self
    }

    /// The next frame, also where it is empty; `None` at the end. The first and the last frame hold what the
    /// file has of them.
    ///
    /// # Errors
    /// As [`TagReader::read`]. What came before the error has been handed over as a frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TagFileError> {
        let mut tags = Vec::new();
        loop {
            if self.next == self.clicks.len() && !self.refill() {
                return match (self.number, self.failure.take()) {
                    (Some(number), failure) if !tags.is_empty() => {
                        self.failure = failure;
                        self.number = Some(number + 1);
                        Ok(Some(Frame { number, tags }))
                    }
                    (_, Some(failure)) => Err(failure),
                    (_, None) => Ok(None),
                };
            }
            let Some(since) = self.since_origin(&self.clicks[self.next]) else {
                self.next += 1;
                continue;
            };
            if since > u128::from(UNITS_MASK) {
                // No tag can hold what is left.
                self.clicks.truncate(self.next);
                self.ended = true;
                continue;
            }
            let number = *self.number.get_or_insert((since / self.frame_ticks) as u64);
            let end = ((u128::from(number) + 1) * self.frame_ticks).min(u128::from(UNITS_MASK) + 1);
            let rest = &self.clicks[self.next..];
            let here = rest.partition_point(|click| self.since_origin(click).is_none_or(|since| since < end));
            let port = |click: &Click| self.channels.iter().position(|channel| *channel == click.channel);
            let clicks = rest[..here].iter().filter_map(|click| {
                let since = self.since_origin(click)?;
                Some(tag(since as u64, port(click)? as u32))
            });
            tags.extend(clicks);
            self.next += here;
            if here < rest.len() {
                self.number = Some(number + 1);
                return Ok(Some(Frame { number, tags }));
            }
        }
    }

    fn since_origin(&self, click: &Click) -> Option<u128> {
        u128::try_from(i128::try_from(click.time).ok()? - self.origin).ok()
    }

    /// Reads on; false at the end.
    fn refill(&mut self) -> bool {
        self.clicks.clear();
        self.next = 0;
        if self.ended {
            return false;
        }
        match self.reader.read(&mut self.clicks) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) => {
                self.failure = Some(error);
                self.ended = true;
            }
        }
        !self.ended
    }
}
