//! Drawing from one use of a pool: leased bytes in memory, and what else is granted behind them.
//!
//! A lane is pure: it is told which bytes are on lease (the disk knows that they are gone) and cuts keys off their
//! front. What it cannot serve from the lease it asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use zeroize::Zeroize;

use crate::types::{Drawn, LEASE_BYTES_MAX, LEASE_BYTES_MIN, OriginRef};
use crate::{Secret, StoreError};

/// A block's part of the stream, as far as a lease needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OriginSpan {
    pub start: u64,
    pub end: u64,
    pub origin: OriginRef,
}

/// Leased bytes of one grant.
pub(crate) struct Segment {
    pub seq: u64,
    /// Position in the stream of the first byte of `key`.
    pub start: u64,
    pub key: Secret,
    /// Bytes of `key` that are gone, and zero.
    pub used: usize,
    pub origins: Arc<[OriginSpan]>,
}

impl Segment {
    fn left(&self) -> usize {
        self.key.len() - self.used
    }

    fn position(&self) -> u64 {
        self.start + self.used as u64
    }

    fn end(&self) -> u64 {
        self.start + self.key.len() as u64
    }

    /// Moves the next `bytes` to `key`, and their origins.
    fn cut(&mut self, bytes: usize, key: &mut Secret, origins: &mut Vec<OriginRef>) {
        let (from, to) = (self.used, self.used + bytes);
        let (first, end) = (self.position(), self.position() + bytes as u64);
        let known = self.origins.partition_point(|span| span.end <= first);
        for span in self.origins[known..].iter().take_while(|span| span.start < end) {
            if origins.last() != Some(&span.origin) {
                origins.push(span.origin);
            }
        }
        let piece = &mut self.key.expose_mut()[from..to];
        key.extend(piece);
        piece.zeroize();
        self.used = to;
    }
}

/// Granted, active, not on lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub seq: u64,
    pub start: u64,
    pub end: u64,
    pub granted_ms: u64,
}

/// Answer to a draw.
pub(crate) enum Taken {
    Keys(Vec<Drawn>),
    /// It is there, but not on lease: the next lease must cover at least this.
    NotLeased {
        want_bytes: u64,
    },
}

#[derive(Default)]
pub(crate) struct Lane {
    pub segments: VecDeque<Segment>,
    pub segment_bytes: u64,
    /// On its way from the disk.
    pub fetching_bytes: u64,
    pub runs: VecDeque<Run>,
    pub run_bytes: u64,
    /// Granted, not active.
    pub inactive_bytes: u64,
    /// Removed from here, and not yet counted elsewhere: the disk is still to be told.
    pub leaving_bytes: u64,
    pub handed_out: u64,
    pub wasted: u64,
    /// End of what was handed out in this generation for certain, and of what may have been.
    pub drawn_end: u64,
    pub drawn_end_most: u64,
    pub lease_bytes: u64,
    /// The writer was asked for a lease.
    pub requested: bool,
    pub want_bytes: u64,
    stalled: bool,
}

impl Lane {
    pub fn available(&self) -> u64 {
        self.segment_bytes + self.fetching_bytes + self.run_bytes
    }

    pub fn on_lease(&self) -> u64 {
        self.segment_bytes + self.fetching_bytes
    }

    /// All keys or none, in the order of the stream.
    pub fn take(&mut self, generation: u32, each: usize, count: usize) -> Result<Taken, StoreError> {
        let total = each * count;
        let at_once = self.segments.front().is_some_and(|front| front.left() >= total);
        if !at_once && !self.keys_in(self.segment_pieces(), each, count).0 {
            if self.fetching_bytes > 0 {
                self.stall();
                return Ok(Taken::NotLeased { want_bytes: total as u64 });
            }
            let all = self.segment_pieces().chain(self.run_pieces());
            let (enough, reach_bytes) = self.keys_in(all, each, count);
            if !enough {
                return Err(StoreError::Exhausted { asked_bytes: total as u64, available_bytes: self.longest() });
            }
            self.stall();
            return Ok(Taken::NotLeased { want_bytes: reach_bytes.saturating_sub(self.segment_bytes) });
        }
        Ok(Taken::Keys((0..count).map(|_| self.cut(generation, each)).collect()))
    }

    fn segment_pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        self.segments.iter().map(|segment| (segment.position(), segment.end()))
    }

    fn run_pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|run| (run.start, run.end))
    }

    /// Whether `count` keys can be cut from these pieces, and how many bytes from the front that reaches.
    fn keys_in(&self, pieces: impl Iterator<Item = (u64, u64)>, each: usize, count: usize) -> (bool, u64) {
        let (each, mut missing) = (each as u64, count as u64);
        let (mut piece_end, mut carry, mut reach) = (u64::MAX, 0, 0);
        for (start, end) in pieces {
            carry = if start == piece_end { carry } else { 0 };
            let together = carry + (end - start);
            let keys = together / each;
            if keys >= missing {
                return (true, reach + missing * each - carry);
            }
            missing -= keys;
            reach += end - start;
            (piece_end, carry) = (end, together % each);
        }
        (false, reach)
    }

    /// The longest key that could be drawn.
    fn longest(&self) -> u64 {
        let (mut longest, mut together, mut piece_end) = (0, 0, u64::MAX);
        for (start, end) in self.segment_pieces().chain(self.run_pieces()) {
            together = if start == piece_end { together } else { 0 } + (end - start);
            longest = longest.max(together);
            piece_end = end;
        }
        longest
    }

    /// One key; [`Lane::take`] has made sure that it is there.
    fn cut(&mut self, generation: u32, bytes: usize) -> Drawn {
        while self.contiguous_at_front(bytes) < bytes && !self.segments.is_empty() {
            let left = self.segments.pop_front().map_or(0, |segment| segment.left() as u64);
            self.segment_bytes -= left;
            self.wasted += left;
        }
        let start = self.segments.front().map_or(0, Segment::position);
        let (mut key, mut origins) = (Secret::with_capacity(bytes), Vec::with_capacity(1));
        while let Some(front) = self.segments.front_mut() {
            let piece = front.left().min(bytes - key.len());
            front.cut(piece, &mut key, &mut origins);
            if front.left() > 0 || key.len() == bytes {
                break;
            }
            self.segments.pop_front();
        }
        if self.segments.front().is_some_and(|front| front.left() == 0) {
            self.segments.pop_front();
        }
        self.segment_bytes -= key.len() as u64;
        self.handed_out += key.len() as u64;
        self.drawn_end = start + key.len() as u64;
        self.drawn_end_most = self.drawn_end_most.max(self.drawn_end);
        Drawn { generation, start, key, origins }
    }

    /// Bytes in one piece from the front, counted no further than `enough`.
    fn contiguous_at_front(&self, enough: usize) -> usize {
        let (mut bytes, mut end) = (0, None);
        for segment in &self.segments {
            if bytes >= enough || end.is_some_and(|end| end != segment.position()) {
                break;
            }
            bytes += segment.left();
            end = Some(segment.end());
        }
        bytes
    }

    fn stall(&mut self) {
        if !self.stalled {
            self.stalled = true;
            self.lease_bytes = (2 * self.lease_bytes).min(LEASE_BYTES_MAX);
        }
    }

    /// Whether it is time to fetch ahead.
    pub fn runs_low(&self) -> bool {
        // At full speed half a lease is gone before the disk has answered: then the next one is fetched at once.
        let next_bytes = self.next_lease_bytes();
        let low_bytes = if next_bytes == LEASE_BYTES_MAX { next_bytes } else { next_bytes / 2 };
        !self.requested && self.run_bytes > 0 && self.segment_bytes < low_bytes
    }

    /// A crash wastes what is on lease: in a small pool that must be little.
    fn next_lease_bytes(&self) -> u64 {
        self.lease_bytes.min((self.run_bytes / 8).max(LEASE_BYTES_MIN))
    }

    /// Where the next lease ends.
    pub fn next_lease_end(&self) -> Option<u64> {
        let mut missing = self.next_lease_bytes().max(self.want_bytes);
        let mut end = None;
        for run in &self.runs {
            if missing == 0 {
                break;
            }
            let reached = run.start.saturating_add(missing).min(run.end);
            missing -= reached - run.start;
            end = end.max(Some(reached));
        }
        end
    }

    /// Takes from the runs what the next lease covers.
    #[cfg(test)]
    pub fn start_lease(&mut self) -> Vec<Run> {
        self.start_lease_to(self.next_lease_end())
    }

    /// Takes what the next lease covers from the runs, none of it behind `limit`.
    pub fn start_lease_to(&mut self, limit: Option<u64>) -> Vec<Run> {
        let mut missing = self.next_lease_bytes().max(self.want_bytes);
        self.want_bytes = 0;
        let mut leased = Vec::new();
        let limit = limit.unwrap_or(0);
        while let Some(run) = self.runs.front_mut().filter(|run| missing > 0 && run.start < limit) {
            let end = run.start.saturating_add(missing).min(run.end).min(limit);
            leased.push(Run { end, ..*run });
            missing -= end - run.start;
            run.start = end;
            if run.start == run.end {
                self.runs.pop_front();
            }
        }
        self.fetching_bytes = leased.iter().map(|run| run.end - run.start).sum();
        self.run_bytes -= self.fetching_bytes;
        leased
    }

    pub fn finish_lease(&mut self, segments: Vec<Segment>) {
        self.segment_bytes += std::mem::take(&mut self.fetching_bytes);
        self.segments.extend(segments);
        (self.requested, self.stalled) = (false, false);
    }

    pub fn add_run(&mut self, run: Run) {
        let at = self.runs.partition_point(|other| other.seq < run.seq);
        self.run_bytes += run.end - run.start;
        self.runs.insert(at, run);
    }

    /// Drops what is left of the grants that `gone` names; says how much that was. It stays in `leaving_bytes`.
    pub fn remove(&mut self, gone: impl Fn(u64) -> bool) -> u64 {
        let before = self.segment_bytes + self.run_bytes;
        self.segments.retain(|segment| !gone(segment.seq));
        self.runs.retain(|run| !gone(run.seq));
        self.segment_bytes = self.segments.iter().map(|segment| segment.left() as u64).sum();
        self.run_bytes = self.runs.iter().map(|run| run.end - run.start).sum();
        let removed = before - self.segment_bytes - self.run_bytes;
        self.leaving_bytes += removed;
        removed
    }

    /// Where drawing stands in the grants of which some is on lease.
    pub fn positions(&self) -> BTreeMap<u64, u64> {
        self.segments.iter().rev().map(|segment| (segment.seq, segment.position())).collect()
    }

    /// Gives the lease back: nothing is drawn any more.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.runs.clear();
        (self.segment_bytes, self.run_bytes, self.fetching_bytes) = (0, 0, 0);
    }

    /// Forgets a peak of demand. Called in slow regular intervals.
    pub fn calm_down(&mut self, least_bytes: u64) {
        self.lease_bytes = (self.lease_bytes / 2).max(least_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u64, start: u64, bytes: usize) -> Segment {
        let key = Secret::new((start..start + bytes as u64).map(|position| position as u8).collect());
        let block = |start: u64, id: u8| OriginSpan {
            start,
            end: start + 50,
            origin: OriginRef { block_id: [id; 16], span: [id; 25] },
        };
        let origins = (0..10u8).map(|id| block(u64::from(id) * 50, id)).collect();
        Segment { seq, start, key, used: 0, origins }
    }

    fn lane(segments: Vec<Segment>) -> Lane {
        let mut lane = Lane { lease_bytes: 1 << 16, ..Lane::default() };
        lane.fetching_bytes = segments.iter().map(|segment| segment.left() as u64).sum();
        lane.finish_lease(segments);
        lane
    }

    fn keys(taken: Result<Taken, StoreError>) -> Vec<Drawn> {
        match taken {
            Ok(Taken::Keys(keys)) => keys,
            Ok(Taken::NotLeased { want_bytes }) => panic!("not leased: {want_bytes}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_key_crosses_contiguous_grants_and_names_both_blocks() {
        let mut lane = lane(vec![segment(0, 0, 60), segment(1, 60, 60)]);
        assert_eq!(keys(lane.take(3, 40, 1))[0].origins.len(), 1);
        let key = keys(lane.take(3, 40, 1)).remove(0);
        assert_eq!((key.generation, key.start), (3, 40));
        assert_eq!(key.key.expose(), (40..80).collect::<Vec<u8>>());
        assert_eq!(key.origins.iter().map(|origin| origin.block_id[0]).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((lane.handed_out, lane.wasted, lane.available()), (80, 0, 40));
    }

    #[test]
    fn a_tail_before_a_gap_is_wasted_only_if_the_request_can_be_met_behind_it() {
        let mut lane = lane(vec![segment(0, 0, 30), segment(2, 100, 35)]);
        let refused = lane.take(0, 40, 1).err();
        assert_eq!(refused, Some(StoreError::Exhausted { asked_bytes: 40, available_bytes: 35 }));
        assert_eq!((lane.available(), lane.wasted), (65, 0), "a refusal consumes nothing");
        assert_eq!(keys(lane.take(0, 32, 1))[0].start, 100);
        assert_eq!((lane.handed_out, lane.wasted, lane.available()), (32, 30, 3));
    }

    #[test]
    fn many_keys_are_all_or_nothing() {
        let mut lane = lane(vec![segment(0, 0, 70), segment(2, 100, 70)]);
        assert!(matches!(lane.take(0, 32, 5), Err(StoreError::Exhausted { asked_bytes: 160, .. })));
        let starts: Vec<_> = keys(lane.take(0, 32, 4)).iter().map(|key| key.start).collect();
        assert_eq!(starts, [0, 32, 100, 132]);
        assert_eq!((lane.handed_out, lane.wasted, lane.available()), (128, 6, 6));
    }

    #[test]
    fn what_is_not_on_lease_is_asked_for_and_then_found() {
        let mut lane = lane(vec![segment(0, 0, 30)]);
        lane.add_run(Run { seq: 0, start: 30, end: 50, granted_ms: 0 });
        lane.add_run(Run { seq: 2, start: 100, end: 9000, granted_ms: 0 });
        let Ok(Taken::NotLeased { want_bytes }) = lane.take(0, 60, 1) else { panic!("expected a wish for a lease") };
        assert_eq!(want_bytes, 80, "20 to the end of the first run, 60 of the second");
        lane.want_bytes = want_bytes;
        let leased = lane.start_lease();
        assert_eq!((leased[0].start, leased[0].end, leased[1].start), (30, 50, 100));
        assert!(leased[1].end >= 160);
        assert!(matches!(lane.take(0, 60, 1), Ok(Taken::NotLeased { .. })), "on its way");
        lane.finish_lease(
            leased.iter().map(|run| segment(run.seq, run.start, (run.end - run.start) as usize)).collect(),
        );
        assert_eq!(keys(lane.take(0, 60, 1))[0].start, 100);
        assert_eq!((lane.wasted, lane.handed_out), (50, 60));
    }

    #[test]
    fn what_was_handed_out_is_zero_in_the_lease() {
        let mut lane = lane(vec![segment(0, 1, 64)]);
        keys(lane.take(0, 32, 1));
        let front = lane.segments.front().unwrap();
        assert_eq!(front.key.expose()[..32], [0; 32]);
        assert_eq!(front.key.expose()[32], 33);
    }
}
