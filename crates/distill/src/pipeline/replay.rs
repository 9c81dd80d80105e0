//! Reconciliation of a block that is kept, which may begin again in a later session.
//!
//! A second correction of the same bits would tell more about them than the bound of the key counts. A *replay* does
//! not: what an end says of a block follows from its half of the bits, from what it has drawn, and from what it has
//! heard of the block, each of which is on its disk before anything is said that follows from it. So an end that draws
//! the same again and hears the same again says the same again, and who listens to both sessions learns nothing that the
//! second one alone does not tell. What is heard is held against what was heard before; where it is anything else, or
//! less, the block is given up. The tags that close the block cover the whole of the second session: once they verify,
//! whatever this end was told in a session that broke, by whomever, was the beginning of the same conversation.

use prost::Message;
use ring::digest::{Context as Sha256, SHA256};

use super::messages::{BlockMessage, BlockStep};
use super::{Action, Draft, ModuleError};

const DOMAIN: &[u8] = b"qkdnet reconciliation heard, form 1";

/// What must be on the disk before an end goes on with the reconciliation of a block that is kept. Nothing of it is
/// secret: what was drawn is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A digest of what the peer said.
    Heard([u8; 32]),
    Drew(Vec<u8>),
}

/// A block whose reconciliation has begun while it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Rounds of sifting that it is made of.
    pub rounds: u64,
    /// In the order in which they came.
    pub records: Vec<Record>,
}

impl Begun {
    /// Whether this end may have said something that follows from what it has sifted. What a corrector says first does
    /// not.
    pub fn has_heard(&self) -> bool {
        self.records.iter().any(|record| matches!(record, Record::Heard(_)))
    }
}

/// Goes through the reconciliation of one block: again as far as it came before, and then on.
pub struct Replay {
    heard: Vec<[u8; 32]>,
    drew: Vec<Vec<u8>>,
    /// How much of either came again.
    next_heard: usize,
    next_drawn: usize,
}

impl Replay {
    pub fn new(begun: Begun) -> Self {
        let mut replay = Self { heard: Vec::new(), drew: Vec::new(), next_heard: 0, next_drawn: 0 };
        for record in begun.records {
            match record {
                Record::Heard(digest) => replay.heard.push(digest),
                Record::Drew(bytes) => replay.drew.push(bytes),
            }
        }
        replay
    }

    /// The peer says this of the block. An error where it said something else before.
    pub fn hear(&mut self, block: u64, step: &BlockStep, draft: &mut Draft) -> Result<(), ModuleError> {
        let digest = digest(step);
        match self.heard.get(self.next_heard) {
            Some(before) if *before != digest => return Err(ModuleError::OtherWay),
            Some(_) => {}
            None => {
                self.heard.push(digest);
                draft.actions.push(Action::Record { block, record: Record::Heard(digest) });
            }
        }
        self.next_heard += 1;
        Ok(())
    }

    /// What was drawn at this place before; otherwise what is drawn now.
    pub fn draw(&mut self, block: u64, draw: impl FnOnce() -> Vec<u8>, draft: &mut Draft) -> Vec<u8> {
        if self.next_drawn == self.drew.len() {
            let bytes = draw();
            draft.actions.push(Action::Record { block, record: Record::Drew(bytes.clone()) });
            self.drew.push(bytes);
        }
        self.next_drawn += 1;
        self.drew[self.next_drawn - 1].clone()
    }

    /// An error unless all that was heard before has come again.
    pub fn check_ended(&self) -> Result<(), ModuleError> {
        if self.next_heard == self.heard.len() { Ok(()) } else { Err(ModuleError::OtherWay) }
    }
}

/// See [`Replay::hear`]. Nothing is held against what is not kept.
pub fn hear(replay: &mut Option<Replay>, block: u64, step: &BlockStep, draft: &mut Draft) -> Result<(), ModuleError> {
    replay.as_mut().map_or(Ok(()), |replay| replay.hear(block, step, draft))
}

/// See [`Replay::draw`].
pub fn draw(replay: &mut Option<Replay>, block: u64, draw: impl FnOnce() -> Vec<u8>, draft: &mut Draft) -> Vec<u8> {
    match replay {
        Some(replay) => replay.draw(block, draw, draft),
        None => draw(),
    }
}

/// See [`Replay::check_ended`].
pub fn check_ended(replay: &Option<Replay>) -> Result<(), ModuleError> {
    replay.as_ref().map_or(Ok(()), Replay::check_ended)
}

/// The block comes to its end at this end: nothing of it is kept any more.
pub fn spend(replay: &Option<Replay>, block: u64, draft: &mut Draft) {
    if replay.is_some() {
        draft.actions.push(Action::Spend { block });
    }
}

/// Of what is said, whatever number the block has by now.
fn digest(step: &BlockStep) -> [u8; 32] {
    let said = BlockMessage { block: 0, step: Some(step.clone()) }.encode_to_vec();
    let mut hash = Sha256::new(&SHA256);
    hash.update(DOMAIN);
    hash.update(&said);
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}
