//! What a step gives: a bundle for the peer, set-points, and what the service must do or tell.

use prost::Message;

use super::messages::{BlockMessage, BlockStep, Bundle};
use super::{FrameInput, Record, Setpoints, Stretch};
use crate::bits::Bits;
use crate::bounds::KeyLength;
use crate::ledger::BlockLedger;
use crate::sifting::Detected;

/// What one step gives. Actions are carried out, in order, before the bundle leaves.
pub struct StepOutput {
    pub payload: Vec<u8>,
    pub close_round: bool,
    pub setpoints: Setpoints,
    pub actions: Vec<Action>,
    /// The frame, where it was not taken: it is due in the next step.
    pub held: Option<FrameInput>,
    /// The session is complete: everything is stored and said.
    pub finished: bool,
}

/// Something that the service must do or tell.
#[derive(Debug)]
pub enum Action {
    /// Make the block durable, undecided; it will be committed or voided.
    Prepare(FinishedBlock),
    /// Make the block durable and committed.
    Store(FinishedBlock),
    Commit {
        block: u64,
    },
    Void {
        block: u64,
    },
    /// Make what was sifted of the block since its last checkpoint durable: it outlives the session.
    Keep {
        block: u64,
        stretch: Stretch,
    },
    /// Of the stretches that are kept those up to this many rounds count; what is beyond them is given up.
    Settle {
        block: u64,
        rounds: u64,
    },
    /// The reconciliation of all that is kept, which is a block of this many rounds, begins: from now on it goes the
    /// same way whenever it begins again.
    Begin {
        block: u64,
        rounds: u64,
    },
    /// Make durable what the reconciliation of the block that is kept depends on.
    Record {
        block: u64,
        record: Record,
    },
    /// Erase what is kept of the block: it comes to its end, or reconciliation begins that nothing is recorded of.
    Spend {
        block: u64,
    },
    /// A block that gave no key: why, and where its bits went.
    Abort {
        block: u64,
        reason: String,
        frames: u64,
        detected: Detected,
        ledger: BlockLedger,
    },
    /// Part of a block's work began or ended.
    Stage {
        block: u64,
        stage: Stage,
        begin: bool,
    },
    /// The trace that a block belongs to.
    Trace {
        block: u64,
        traceparent: String,
    },
    Note {
        name: &'static str,
        message: String,
    },
}

/// The stages of a block's work, as traces show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Sift,
    Reconcile,
    Verify,
    Amplify,
    Authenticate,
}

/// A block as it leaves amplification.
#[derive(Debug)]
pub struct FinishedBlock {
    pub number: u64,
    /// The first `reserve_bits` go into the authentication reserve, the rest is delivered.
    pub key: Bits,
    pub reserve_bits: usize,
    /// Frames of light that it is made of.
    pub frames: u64,
    pub detected: Detected,
    pub ledger: BlockLedger,
    pub length: KeyLength,
}

/// What a step collects before it is encoded.
pub(super) struct Draft {
    pub bundle: Bundle,
    pub actions: Vec<Action>,
    pub close_round: bool,
    pub held: Option<FrameInput>,
    pub finished: bool,
}

impl Draft {
    pub fn new(step: u64) -> Self {
        let bundle = Bundle { step, ..Bundle::default() };
        Self { bundle, actions: Vec::new(), close_round: false, held: None, finished: false }
    }

    pub fn finish(self, setpoints: Setpoints) -> StepOutput {
        StepOutput {
            payload: self.bundle.encode_to_vec(),
            close_round: self.close_round,
            setpoints,
            actions: self.actions,
            held: self.held,
            finished: self.finished,
        }
    }

    pub fn begin(&mut self, block: u64, traceparent: String) {
        self.actions.push(Action::Trace { block, traceparent });
        self.stage(block, Stage::Sift, true);
    }

    pub fn stage(&mut self, block: u64, stage: Stage, begin: bool) {
        self.actions.push(Action::Stage { block, stage, begin });
    }

    pub fn say(&mut self, block: u64, step: BlockStep) {
        self.bundle.blocks.push(BlockMessage { block, step: Some(step) });
    }
}
