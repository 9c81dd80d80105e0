//! One frame of the corrector: what is known about it in all passes, and what to ask next.

use std::sync::Arc;

use super::CascadeError;
use super::corrector::{Asked, CorrectedFrame};
use super::messages::AnswerReader;
use super::order::Order;
use super::schedule::{Plan, tells_whole};
use super::segments::{Dense, Segment, Segments};
use crate::bits::Bits;
use crate::wiped::Wiped;

/// The third pass is opened when fewer segments than one for this many bits are still being searched. Later costs
/// fewer parities, earlier fewer round trips.
const BITS_PER_SEARCH: usize = 8192;
/// Segments up to this long are cut where the errors expected on both sides are the same.
const WEIGHED_LEN: usize = 4;
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Active,
    Complete,
    GivenUp,
}

pub(super) struct Frame {
    plan: Arc<Plan>,
    /// What is known, for each pass opened; that of the first is there from the start, for it holds the frame.
    passes: Vec<Segments>,
    opened: usize,
    /// The frame as corrected so far.
    bits: Bits,
    /// The same in the order of the shuffled pass, while that is being opened.
    shuffled: Option<Wiped<u64>>,
    /// Places, then positions, of the errors that are being corrected.
    found: Vec<u32>,
    errors_corrected: u64,
    /// The reference's parity of the whole frame.
    whole: bool,
    leaked: u64,
    stage: Stage,
}

impl Frame {
    pub fn new(bits: Bits, plan: Arc<Plan>) -> Self {
        let natural = Dense::new(plan.len, bits.words());
        let stage = if plan.len == 0 { Stage::Complete } else { Stage::Active };
        Self {
            passes: vec![Segments::Dense(natural)],
            opened: 0,
            bits,
            shuffled: None,
            found: Vec::new(),
            errors_corrected: 0,
            whole: false,
            leaked: 0,
            stage,
            plan,
        }
    }

    pub fn finish(self) -> CorrectedFrame {
        CorrectedFrame {
            bits: self.bits,
            errors_corrected: self.errors_corrected,
            leaked_bits: self.leaked,
            complete: self.stage == Stage::Complete,
        }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The frame as corrected so far.
    pub fn words(&self) -> &[u64] {
        self.bits.words()
    }

    /// Takes the frame as corrected so far in the order of the shuffled pass, which is about to be opened.
    pub fn set_shuffled(&mut self, words: Wiped<u64>) {
        self.shuffled = Some(words);
    }

    pub fn opening_count(&self, pass: usize) -> usize {
        self.plan.passes[pass].opening_count(pass, self.plan.len)
    }

    /// Appends what the frame asks next, passes rising, or ends it.
    pub fn ask(&mut self, i: usize, asked: &mut Vec<Asked>, cuts: &mut Vec<Segment>) -> Result<(), CascadeError> {
        if self.stage != Stage::Active {
            return Ok(());
        }
        let first = (asked.len(), cuts.len());
        loop {
            let known = self.errors_corrected;
            self.ask_cuts(i, asked, cuts)?;
            // An error that was found without a question may have made other segments odd.
            if cuts.len() > first.1 || self.errors_corrected == known {
                break;
            }
        }
        let searching = cuts.len() - first.1;
        let next = self.opened;
        if searching == 0 && next == self.plan.passes.len() {
            self.stage = Stage::Complete;
            return Ok(());
        }
        let early = next > 0 && next < self.plan.halving && searching * BITS_PER_SEARCH < self.plan.len;
        if searching == 0 || early {
            // The halving passes tell so little each that it is best to hear all at once.
            let last = if next < self.plan.halving { next + 1 } else { self.plan.passes.len() };
            asked.extend((next..last).map(|pass| Asked { frame: i, pass, cuts: 0 }));
        }
        let count: usize = asked[first.0..]
            .iter()
            .map(|asked| if asked.cuts == 0 { self.opening_count(asked.pass) } else { asked.cuts })
            .sum();
        if !self.charge(count) {
            asked.truncate(first.0);
            cuts.truncate(first.1);
        }
        Ok(())
    }

    /// Brings near what [`take`](Self::take) will look at: of many frames little is in a cache.
    pub fn prefetch(&self, asked: &Asked, cuts: &[Segment]) {
        if let Some(Segments::Dense(dense)) = self.passes.get(asked.pass) {
            cuts.iter().for_each(|cut| dense.prefetch(cut));
        }
    }

    /// Takes the answers to one section.
    pub fn take(&mut self, asked: &Asked, cuts: &[Segment], reader: &mut AnswerReader<'_>) -> Result<(), CascadeError> {
        if asked.cuts == 0 {
            self.open(asked.pass, reader);
            return Ok(());
        }
        self.found.clear();
        for &Segment { start, middle, end } in cuts {
            let parity = self.parity(asked.pass, start as usize, middle as usize);
            let (left, right) = self.passes[asked.pass].cut(start, middle, reader.bit(), parity);
            if left && middle - start == 1 {
                self.found.push(start);
            }
            if right && end - middle == 1 {
                self.found.push(middle);
            }
        }
        self.correct(asked.frame, asked.pass)
    }

    /// Cuts all odd segments of the first passes at once: two searches may then be after the same error, which wastes
    /// some parities but saves many round trips. A halving pass is searched only when nothing else is, and alone.
    fn ask_cuts(&mut self, i: usize, asked: &mut Vec<Asked>, cuts: &mut Vec<Segment>) -> Result<(), CascadeError> {
        let first = asked.len();
        for pass in 0..self.opened {
            let halving = pass >= self.plan.halving;
            if halving && asked.len() > first {
                break;
            }
            let start = cuts.len();
            let limit = if halving { 1 } else { usize::MAX };
            self.passes[pass].odd_segments(self.plan.len, limit, cuts);
            let count = self.choose_cuts(i, pass, start, cuts)?;
            if count > 0 {
                asked.push(Asked { frame: i, pass, cuts: count });
            }
        }
        Ok(())
    }

    /// Moves the cuts of short segments to where they tell most, and corrects errors that need no cut.
    fn choose_cuts(
        &mut self,
        i: usize,
        pass: usize,
        start: usize,
        cuts: &mut Vec<Segment>,
    ) -> Result<usize, CascadeError> {
        // Weights are looked up for all first: they lie far apart in memory, and one need not wait for the other.
        let weights = self.weigh(pass, &cuts[start..]);
        let mut weights = weights.iter();
        let mut kept = start;
        self.found.clear();
        for j in start..cuts.len() {
            let mut segment = cuts[j];
            let weights = if segment.len() <= WEIGHED_LEN { weights.next() } else { None };
            // A block of one place is known exactly when the pass is opened.
            let exact = (segment.len() == 1).then_some(segment.start);
            if let Some(place) = exact.or_else(|| balance(&mut segment, weights?)) {
                self.found.push(place);
                continue;
            }
            cuts[kept] = segment;
            kept += 1;
        }
        cuts.truncate(kept);
        self.correct(i, pass)?;
        Ok(kept - start)
    }

    /// What another pass knows of the places of each short segment: how likely they are to hold the error.
    fn weigh(&self, pass: usize, segments: &[Segment]) -> Vec<[u32; WEIGHED_LEN]> {
        let other = usize::from(pass == 0);
        if other >= self.opened.min(self.plan.halving) {
            return Vec::new();
        }
        match (&self.plan.passes[pass].order, &self.plan.passes[other].order) {
            (Order::Natural, Order::Shuffled { place_of, .. }) => {
                self.weigh_by(other, segments, |place| place_of.get(place))
            }
            (Order::Shuffled { position_of, .. }, Order::Natural) => {
                self.weigh_by(other, segments, |place| position_of.get(place))
            }
            (here, there) => self.weigh_by(other, segments, |place| there.place(here.position(place))),
        }
    }

    #[inline]
    fn weigh_by(
        &self,
        other: usize,
        segments: &[Segment],
        place_there: impl Fn(usize) -> usize,
    ) -> Vec<[u32; WEIGHED_LEN]> {
        let Segments::Dense(dense) = &self.passes[other] else { return Vec::new() };
        let mut all = Vec::with_capacity(segments.len());
        for segment in segments.iter().filter(|segment| segment.len() <= WEIGHED_LEN) {
            let mut weights = [0; WEIGHED_LEN];
            for (j, weight) in weights.iter_mut().enumerate() {
                // Always as many: a loop that ends early is slower than what it spares.
                let inside = j < segment.len();
                let place = segment.start as usize + if inside { j } else { 0 };
                *weight = dense.weight(place_there(place)) * u32::from(inside);
            }
            all.push(weights);
        }
        all
    }

    fn open(&mut self, pass: usize, reader: &mut AnswerReader<'_>) {
        let plan = Arc::clone(&self.plan);
        let layout = &plan.passes[pass];
        if tells_whole(pass, plan.len) {
            self.whole = reader.bit();
        }
        let own_whole = self.bits.parity();
        if pass > 0 {
            let segments = match &layout.order {
                Order::Shuffled { .. } => {
                    let words = self.shuffled.take().unwrap_or_default();
                    Segments::Dense(Dense::new(plan.len, &words))
                }
                _ => Segments::sparse(),
            };
            self.passes.push(segments);
        }
        self.opened = pass + 1;
        self.passes[pass].set_whole(self.whole ^ own_whole);
        let mut start = 0;
        for &middle in &layout.starts {
            let parity = self.parity(pass, start as usize, middle as usize);
            self.passes[pass].cut(start, middle, reader.bit(), parity);
            start = middle;
        }
    }

    /// Own parity of places `start..end` of a pass.
    fn parity(&self, pass: usize, start: usize, end: usize) -> bool {
        match (&self.passes[pass], &self.plan.passes[pass].order) {
            (Segments::Dense(dense), _) => dense.parity(start, end),
            (_, Order::Classes(classes)) => classes.parity(start, end, self.bits.words()),
            _ => false,
        }
    }

    /// Turns over the bits at the places found in a pass, which makes the segments that hold them odd or even in every
    /// open pass. All at once for each pass: the places lie far apart in memory, and one need not wait for the other.
    fn correct(&mut self, i: usize, pass: usize) -> Result<(), CascadeError> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.errors_corrected += self.found.len() as u64;
        if self.errors_corrected > self.plan.len as u64 {
            // Some bit was turned over twice.
            return Err(CascadeError::Contradiction { frame: i });
        }
        let order = &self.plan.passes[pass].order;
        self.found.iter_mut().for_each(|place| *place = order.position(*place as usize) as u32);
        self.found.iter().for_each(|&position| self.bits.flip(position as usize));
        if let (Some(words), Some(order)) = (&mut self.shuffled, self.plan.shuffled()) {
            for &position in &self.found {
                let place = order.place(position as usize);
                words[place / 64] ^= 1 << (place % 64);
            }
        }
        for (layout, segments) in self.plan.passes.iter().zip(&mut self.passes) {
            match &layout.order {
                Order::Natural => self.found.iter().for_each(|&position| segments.correct(position as usize)),
                Order::Shuffled { place_of, .. } => {
                    self.found.iter().for_each(|&position| segments.correct(place_of.get(position as usize)));
                }
                Order::Classes(classes) => {
                    self.found.iter().for_each(|&position| segments.correct(classes.place(position as usize)));
                }
            }
        }
        Ok(())
    }

    /// Enters parities into the ledger before they are asked for, or gives the frame up.
    fn charge(&mut self, count: usize) -> bool {
        let leaked = self.leaked + count as u64;
        if leaked > self.plan.len as u64 {
            self.stage = Stage::GivenUp;
            return false;
        }
        self.leaked = leaked;
        true
    }
}

/// Moves the cut to where about the same weight is on both sides. If only one place can hold the error, this is
/// returned: no parity is needed.
fn balance(segment: &mut Segment, weights: &[u32; WEIGHED_LEN]) -> Option<u32> {
    let possible = weights.iter().filter(|&&weight| weight > 0).count();
    if possible == 1 {
        let only = weights.iter().position(|&weight| weight > 0)?;
        return Some(segment.start + only as u32);
    }
    let total: u32 = weights.iter().sum();
    let (mut left, mut best, mut best_gap) = (0, 1, u32::MAX);
    for (middle, weight) in (1..segment.len() as u32).zip(weights) {
        left += weight;
        let gap = total.abs_diff(2 * left);
        if gap < best_gap {
            (best, best_gap) = (middle, gap);
        }
    }
    segment.middle = segment.start + best;
    None
}
