//! Block sizes and orders of the passes, found by simulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Parameters;
use super::order::{Classes, Order, SplitMix};

/// Estimates of the error rate are taken to lie between these.
const MIN_QBER: f64 = 1e-4;
const MAX_QBER: f64 = 0.25;
/// Errors expected in a block of the first two passes, before rounding to a power of two. Powers of two matter: a
/// search in them asks questions that are all worth nearly a bit.
const FIRST_BLOCK_ERRORS: f64 = 1.1;
const SECOND_BLOCK_ERRORS: f64 = 3.0;
/// Size of the classes of the third pass, and the most of them (as a power of two).
const THIRD_BLOCK: usize = 4096;
const MAX_CLASS_BITS: u32 = 4;
/// Passes that split the frame into two halves. Each finds what is left with probability 1/2.
const HALVING_PASSES: usize = 12;

pub(super) struct Pass {
    pub order: Order,
    /// First places of the blocks but for the first, which is 0.
    pub starts: Vec<u32>,
}

/// What frames of one length have in common.
pub(super) struct Plan {
    pub len: usize,
    pub passes: Vec<Pass>,
    /// The first of the passes that split the frame into halves.
    pub halving: usize,
}

/// Builds one plan for each length that occurs.
pub(super) fn plans(lens: impl Iterator<Item = usize>, parameters: &Parameters, both_ways: bool) -> Vec<Arc<Plan>> {
    let mut known: BTreeMap<usize, Arc<Plan>> = BTreeMap::new();
    lens.map(|len| {
        let plan = known.entry(len).or_insert_with(|| Arc::new(Plan::new(len, parameters, both_ways)));
        Arc::clone(plan)
    })
    .collect()
}

impl Plan {
    /// The order of the pass that is shuffled, if one is.
    pub fn shuffled(&self) -> Option<&Order> {
        self.passes.iter().map(|pass| &pass.order).find(|order| matches!(order, Order::Shuffled { .. }))
    }

    fn new(len: usize, parameters: &Parameters, both_ways: bool) -> Self {
        let random = |pass: usize| SplitMix::new(parameters.seed, len, pass);
        let qber = if parameters.qber.is_finite() { parameters.qber.clamp(MIN_QBER, MAX_QBER) } else { MAX_QBER };
        let first = power_of_two(FIRST_BLOCK_ERRORS / qber);
        let second = power_of_two(SECOND_BLOCK_ERRORS / qber);
        let mut passes = vec![Pass::blocks(Order::Natural, first, len)];
        if second <= len / 2 {
            passes.push(Pass::blocks(Order::shuffled(len, random(1), both_ways), second, len));
        }
        let bits = (len / THIRD_BLOCK).checked_ilog2().unwrap_or(0).min(MAX_CLASS_BITS);
        if bits > 1 {
            passes.push(Pass::classes(Classes::new(len, bits, random(2)), len));
        }
        let halving = passes.len();
        for pass in halving..halving + HALVING_PASSES {
            passes.push(Pass::classes(Classes::new(len, 1, random(pass)), len));
        }
        Self { len, passes, halving }
    }
}

/// The power of two that is nearest in ratio.
fn power_of_two(size: f64) -> usize {
    let mut power = 1;
    while size * size > (2 * power * power) as f64 {
        power *= 2;
    }
    power
}

impl Pass {
    fn blocks(order: Order, block: usize, len: usize) -> Self {
        Self { order, starts: (block..len).step_by(block).map(|start| start as u32).collect() }
    }

    fn classes(classes: Classes, len: usize) -> Self {
        let mut starts: Vec<u32> =
            classes.starts().filter(|&start| start > 0 && start < len).map(|s| s as u32).collect();
        starts.dedup();
        Self { order: Order::Classes(classes), starts }
    }

    /// Parities that opening the pass tells: before each block but the first and, in the first pass, of the whole.
    pub fn opening_count(&self, pass: usize, len: usize) -> usize {
        self.starts.len() + usize::from(tells_whole(pass, len))
    }
}

/// Whether opening a pass tells the parity of the whole frame.
pub(super) fn tells_whole(pass: usize, len: usize) -> bool {
    pass == 0 && len > 0
}
