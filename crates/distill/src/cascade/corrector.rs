//! The end that corrects its string: it asks.

use std::sync::Arc;

use super::frame::Frame;
use super::messages::{Answer, AnswerReader, Query, QueryWriter};
use super::order::Order;
use super::schedule::plans;
use super::segments::Segment;
use super::words::LANES;
use super::{CascadeError, Parameters};
use crate::bits::Bits;

/// A query is closed after the frame with which it exceeds this; frames not reached come first in the next.
const QUERY_BYTES: usize = 8 << 20;

/// Holds the frames with errors.
pub struct Corrector {
    frames: Vec<Frame>,
    asked: Vec<Asked>,
    /// The cuts that `asked` is about, one section after the other.
    cuts: Vec<Segment>,
    /// The frame with which the next query begins.
    next_frame: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Failed,
}

/// What came of a frame. That it equals the reference's is for a verification to find out.
#[derive(Clone, Debug)]
pub struct CorrectedFrame {
    pub bits: Bits,
    pub errors_corrected: u64,
    /// Parities that the reference disclosed about the frame.
    pub leaked_bits: u64,
    /// False if the frame was given up: too many errors, or `finish` was called early.
    pub complete: bool,
}

/// A section of the query that is under way.
pub(super) struct Asked {
    pub frame: usize,
    pub pass: usize,
    /// Segments cut, or 0 if the pass is opened.
    pub cuts: usize,
}

impl Corrector {
    pub fn new(frames: Vec<Bits>, parameters: &Parameters) -> Self {
        let plans = plans(frames.iter().map(Bits::len), parameters, true);
        let frames = frames.into_iter().zip(plans).map(|(bits, plan)| Frame::new(bits, plan)).collect();
        Self { frames, asked: Vec::new(), cuts: Vec::new(), next_frame: 0, state: State::Idle }
    }

    /// The first query. Without frames it is empty, and so is its answer.
    pub fn start(&mut self) -> Query {
        self.state = State::Waiting;
        let mut writer = QueryWriter::default();
        for (i, frame) in self.frames.iter_mut().enumerate() {
            // Nothing is known yet that could contradict.
            let _ = frame.ask(i, &mut self.asked, &mut self.cuts);
        }
        write(&self.asked, &self.cuts, &mut writer);
        writer.finish()
    }

    /// Takes the answer to the last query and gives the next, or nothing when all frames are finished.
    pub fn next(&mut self, answer: &Answer) -> Result<Option<Query>, CascadeError> {
        if self.state != State::Waiting {
            return Err(CascadeError::NotExpected);
        }
        self.state = State::Failed;
        let query = self.step(answer)?;
        self.state = if self.asked.is_empty() { State::Idle } else { State::Waiting };
        Ok((!self.asked.is_empty()).then_some(query))
    }

    pub fn finish(self) -> Vec<CorrectedFrame> {
        self.frames.into_iter().map(Frame::finish).collect()
    }

    fn step(&mut self, answer: &Answer) -> Result<Query, CascadeError> {
        let (asked, cuts) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.cuts));
        let count = |asked: &Asked| match asked.cuts {
            0 => self.frames[asked.frame].opening_count(asked.pass),
            cuts => cuts,
        };
        let mut reader = AnswerReader::new(answer, asked.iter().map(count).sum())?;
        self.shuffle(&asked);
        let (mut asked, mut cuts) = (asked.as_slice(), cuts.as_slice());
        let (mut ahead, mut ahead_cuts) = (asked, cuts);
        let mut writer = QueryWriter::default();
        let first = std::mem::take(&mut self.next_frame);
        for i in 0..self.frames.len() {
            while let [section, rest @ ..] = ahead
                && section.frame <= i + 1
            {
                let (these, others) = ahead_cuts.split_at(section.cuts);
                self.frames[section.frame].prefetch(section, these);
                (ahead, ahead_cuts) = (rest, others);
            }
            let frame = &mut self.frames[i];
            while let [section, rest @ ..] = asked
                && section.frame == i
            {
                let (these, others) = cuts.split_at(section.cuts);
                frame.take(section, these, &mut reader)?;
                (asked, cuts) = (rest, others);
            }
            if i < first || writer.len() > QUERY_BYTES {
                continue;
            }
            let from = (self.asked.len(), self.cuts.len());
            frame.ask(i, &mut self.asked, &mut self.cuts)?;
            write(&self.asked[from.0..], &self.cuts[from.1..], &mut writer);
            if writer.len() > QUERY_BYTES {
                self.next_frame = i + 1;
            }
        }
        if self.asked.is_empty() && first > 0 {
            // Only frames before `first` are left.
            return self.step(&Answer::empty());
        }
        Ok(writer.finish())
    }

    /// Puts the frames in the order of a pass that they are about to open: many at once.
    fn shuffle(&mut self, asked: &[Asked]) {
        let is_shuffled = |asked: &&Asked| {
            let plan = self.frames[asked.frame].plan();
            asked.cuts == 0 && matches!(plan.passes[asked.pass].order, Order::Shuffled { .. })
        };
        let mut due: Vec<usize> = asked.iter().filter(is_shuffled).map(|asked| asked.frame).collect();
        // Frames have one of a few plans.
        while let Some(&first) = due.first() {
            let plan = Arc::clone(self.frames[first].plan());
            let (alike, others): (Vec<usize>, _) =
                due.into_iter().partition(|&frame| Arc::ptr_eq(self.frames[frame].plan(), &plan));
            due = others;
            let Some(Order::Shuffled { position_of, .. }) = plan.shuffled() else { continue };
            for alike in alike.chunks(LANES) {
                let words: Vec<&[u64]> = alike.iter().map(|&frame| self.frames[frame].words()).collect();
                let shuffled = position_of.gather_all(&words);
                for (&frame, shuffled) in alike.iter().zip(shuffled) {
                    self.frames[frame].set_shuffled(shuffled);
                }
            }
        }
    }
}

fn write(asked: &[Asked], cuts: &[Segment], writer: &mut QueryWriter) {
    let mut cuts = cuts.iter();
    for section in asked {
        writer.section(section.frame, section.pass, section.cuts);
        for cut in cuts.by_ref().take(section.cuts) {
            writer.prefix(cut.middle);
        }
    }
}
