//! The end whose string counts: it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::words::prefetch;
use zeroize::DefaultIsZeroes;

use super::messages::{Answer, AnswerWriter, Query, QueryReader, Section};
use super::order::Order;
use super::schedule::{Pass, Plan, plans, tells_whole};
use super::words::{LANES, prefix_parities};
use super::{CascadeError, Parameters};
use crate::bits::Bits;
use crate::wiped::Wiped;

/// Prefixes of a section that are looked at together.
const PREFIXES_AHEAD: usize = 32;

/// Holds the true frames and answers queries about them.
pub struct Reference {
    frames: Vec<Frame>,
    failed: bool,
}

struct Frame {
    plan: Arc<Plan>,
    bits: Bits,
    /// The frame in the order of the shuffled pass, from when another frame's was made to when it is opened.
    shuffled: Option<Wiped<u64>>,
    passes: Vec<OpenPass>,
    leaked: u64,
}

/// Which prefixes of a pass have been told.
enum OpenPass {
    Closed,
    Dense(Wiped<Prefixes>),
    /// Passes in which little is asked: parities are computed when asked, from the longest one that is shorter.
    Sparse(BTreeMap<u32, bool>),
}

/// Prefixes of 64 lengths.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    parity: u64,
    told: u64,
}

impl DefaultIsZeroes for Prefixes {}

impl Reference {
    pub fn new(frames: Vec<Bits>, parameters: &Parameters) -> Self {
        let plans = plans(frames.iter().map(Bits::len), parameters, false);
        let frames = frames
            .into_iter()
            .zip(plans)
            .map(|(bits, plan)| {
                let passes = plan.passes.iter().map(|_| OpenPass::Closed).collect();
                Frame { plan, bits, shuffled: None, passes, leaked: 0 }
            })
            .collect();
        Self { frames, failed: false }
    }

    /// Answers a query or refuses it. No parity is told twice, and of no frame more than it has bits.
    pub fn answer(&mut self, query: &Query) -> Result<Answer, CascadeError> {
        if self.failed {
            return Err(CascadeError::NotExpected);
        }
        let answer = self.read(query);
        self.failed = answer.is_err();
        answer
    }

    /// Parities disclosed so far, for each frame.
    pub fn leaked_bits(&self) -> Vec<u64> {
        self.frames.iter().map(|frame| frame.leaked).collect()
    }

    fn read(&mut self, query: &Query) -> Result<Answer, CascadeError> {
        let mut reader = QueryReader::new(query);
        let mut writer = AnswerWriter::default();
        while let Some(section) = reader.section()? {
            let frame = self.frames.get_mut(section.frame).ok_or(CascadeError::NoSuchFrame { frame: section.frame })?;
            if section.count == 0 {
                if frame.lacks_shuffled(section.pass) {
                    self.shuffle(section.frame, section.pass);
                }
                let frame = &mut self.frames[section.frame];
                frame.open(&section, &mut writer)?;
            } else {
                frame.tell(&section, &mut reader, &mut writer)?;
            }
        }
        Ok(writer.finish())
    }

    /// Puts a frame in the order of a pass that it is about to open, and others with it that will.
    fn shuffle(&mut self, first: usize, pass: usize) {
        let plan = Arc::clone(&self.frames[first].plan);
        let Some(Order::Shuffled { position_of, .. }) = plan.passes.get(pass).map(|pass| &pass.order) else { return };
        let alike = |frame: &&mut Frame| Arc::ptr_eq(&frame.plan, &plan) && frame.lacks_shuffled(pass);
        let mut frames: Vec<&mut Frame> = self.frames[first..].iter_mut().filter(alike).take(LANES).collect();
        let words: Vec<&[u64]> = frames.iter().map(|frame| frame.bits.words()).collect();
        let shuffled = position_of.gather_all(&words);
        for (frame, shuffled) in frames.iter_mut().zip(shuffled) {
            frame.shuffled = Some(shuffled);
        }
    }
}

impl Frame {
    /// Whether a pass is shuffled, not open, and the frame not in its order yet.
    fn lacks_shuffled(&self, pass: usize) -> bool {
        let is_shuffled = |pass: &Pass| matches!(pass.order, Order::Shuffled { .. });
        self.shuffled.is_none()
            && self.plan.passes.get(pass).is_some_and(is_shuffled)
            && matches!(self.passes[pass], OpenPass::Closed)
    }

    fn open(&mut self, section: &Section, writer: &mut AnswerWriter) -> Result<(), CascadeError> {
        let (frame, pass) = (section.frame, section.pass);
        let plan = Arc::clone(&self.plan);
        let layout = plan.passes.get(pass).ok_or(CascadeError::NoSuchPass { frame, pass })?;
        if !matches!(self.passes[pass], OpenPass::Closed) {
            return Err(CascadeError::AlreadyOpen { frame, pass });
        }
        // The first pass begins with the parity of the whole frame; in the others it is known.
        let whole = tells_whole(pass, plan.len).then_some(plan.len);
        self.charge(section, layout.opening_count(pass, plan.len))?;
        let mut opened = match (&layout.order, self.shuffled.take()) {
            (Order::Natural, _) => OpenPass::dense(self.bits.words()),
            (Order::Shuffled { .. }, shuffled) => {
                OpenPass::dense(shuffled.as_ref().map_or(&[][..], |words| words.as_slice()))
            }
            (Order::Classes(_), _) => OpenPass::Sparse(BTreeMap::from([(0, false)])),
        };
        for prefix in whole.into_iter().chain(layout.starts.iter().map(|&start| start as usize)) {
            if let Some(parity) = opened.tell(&layout.order, &self.bits, prefix) {
                writer.push(parity);
            }
        }
        self.passes[pass] = opened;
        Ok(())
    }

    fn tell(
        &mut self,
        section: &Section,
        reader: &mut QueryReader<'_>,
        writer: &mut AnswerWriter,
    ) -> Result<(), CascadeError> {
        let frame = section.frame;
        self.charge(section, section.count)?;
        let missing = CascadeError::NoSuchPass { frame, pass: section.pass };
        let layout = self.plan.passes.get(section.pass).ok_or(missing)?;
        let opened = &mut self.passes[section.pass];
        if matches!(opened, OpenPass::Closed) {
            return Err(missing);
        }
        // Some at a time: what they need lies far apart in memory, and is fetched for all at once.
        let (mut row, mut left) = ([0; PREFIXES_AHEAD], section.count);
        while left > 0 {
            let row = &mut row[..left.min(PREFIXES_AHEAD)];
            for prefix in row.iter_mut() {
                *prefix = reader.prefix()? as usize;
                opened.prefetch(*prefix);
            }
            for &prefix in row.iter() {
                if prefix >= self.plan.len {
                    return Err(CascadeError::OutOfRange { frame });
                }
                let parity = opened.tell(&layout.order, &self.bits, prefix);
                writer.push(parity.ok_or(CascadeError::AlreadyKnown { frame })?);
            }
            left -= row.len();
        }
        Ok(())
    }

    /// Enters parities into the ledger before they are told.
    fn charge(&mut self, section: &Section, count: usize) -> Result<(), CascadeError> {
        let leaked = self.leaked + count as u64;
        if leaked > self.plan.len as u64 {
            return Err(CascadeError::Exhausted { frame: section.frame });
        }
        self.leaked = leaked;
        Ok(())
    }
}

impl OpenPass {
    fn dense(words: &[u64]) -> Self {
        let mut prefixes = Wiped::with_capacity(words.len() + 1);
        // There is one prefix more than bits, the empty one.
        let parities = prefix_parities(words.iter().copied().chain([0]));
        prefixes.extend(parities.map(|parity| Prefixes { parity, told: 0 }));
        Self::Dense(prefixes)
    }

    /// Brings near what [`tell`](Self::tell) will look at.
    #[inline]
    fn prefetch(&self, prefix: usize) {
        if let Self::Dense(prefixes) = self {
            prefetch(prefixes, prefix / 64);
        }
    }

    /// Parity of the first `prefix >= 1` bits, unless it was told before.
    #[inline]
    fn tell(&mut self, order: &Order, bits: &Bits, prefix: usize) -> Option<bool> {
        match (self, order) {
            (Self::Dense(prefixes), _) => {
                let (prefixes, mask) = (&mut prefixes[prefix / 64], 1 << (prefix % 64));
                let fresh = prefixes.told & mask == 0;
                prefixes.told |= mask;
                fresh.then_some(prefixes.parity & mask != 0)
            }
            (Self::Sparse(told), Order::Classes(classes)) => {
                let (&start, &before) = told.range(..=prefix as u32).next_back()?;
                if start as usize == prefix {
                    return None;
                }
                let parity = before ^ classes.parity(start as usize, prefix, bits.words());
                told.insert(prefix as u32, parity);
                Some(parity)
            }
            _ => None,
        }
    }
}
