//! Cascade information reconciliation (Brassard and Salvail, EUROCRYPT '93) as two sans-I/O state machines.
//!
//! The [`Reference`] holds the string that counts; the [`Corrector`] asks it for parities until its own string
//! agrees. Many frames run at once and every message carries the questions of all frames that are still active,
//! so a round trip is shared by the whole batch.
//!
//! How it differs from the textbook, all of it for fewer disclosed bits (Martinez-Mateo, Pacher, Peev and Elkouss,
//! "Demystifying the information reconciliation protocol Cascade", 2015):
//!
//! * every parity ever disclosed stays in use: a pass is a partition of the frame into segments of known parity, and
//!   a corrected error makes the segment that holds it odd in every other pass, whether it was a block of that pass
//!   or a piece that a binary search left behind;
//! * the shortest blocks are searched first;
//! * passes after the third split the frame into two random halves, which costs one parity each;
//! * a parity that follows from others is never asked: the second half of a segment, the last block of a pass.
//!
//! What is asked and answered is a *prefix parity*: the parity of the first `m` bits of the frame in the order of
//! a pass. With the prefixes already known this is one new independent bit, so the number of answered bits is exactly
//! the number of bits that leaked, counted alike at both ends. Which prefixes are asked shows where the errors were,
//! not what the bits are; the error pattern is taken as public.

mod corrector;
mod frame;
mod messages;
mod order;
mod reference;
mod schedule;
mod segments;
#[cfg(test)]
mod tests;
mod words;

pub use corrector::{CorrectedFrame, Corrector};
pub use messages::{Answer, MAX_MESSAGE_BYTES, Query};
pub use reference::Reference;

/// What both ends agree on before they start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Estimate of the error rate, from which the block sizes follow. Wrong by a factor of two costs efficiency only.
    pub qber: f64,
    /// Public seed of the orders in which the passes read a frame.
    pub seed: u64,
}

/// Why a message of the peer was refused. The batch cannot go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CascadeError {
    #[error("message of {bytes} bytes is longer than allowed")]
    TooLong { bytes: usize },
    #[error("malformed query at byte {offset}")]
    Malformed { offset: usize },
    #[error("query names frame {frame}, which the batch does not have")]
    NoSuchFrame { frame: usize },
    #[error("query names pass {pass} of frame {frame}, which is not open or does not exist")]
    NoSuchPass { frame: usize, pass: usize },
    #[error("query opens pass {pass} of frame {frame} again")]
    AlreadyOpen { frame: usize, pass: usize },
    #[error("query asks for a parity beyond frame {frame}")]
    OutOfRange { frame: usize },
    #[error("query asks for a parity of frame {frame} that is already known")]
    AlreadyKnown { frame: usize },
    #[error("query asks for more parities of frame {frame} than it has bits")]
    Exhausted { frame: usize },
    #[error("answer has {got} bytes instead of {expected}")]
    AnswerLength { got: usize, expected: usize },
    #[error("answer has bits beyond its last parity")]
    AnswerPadding,
    #[error("answers about frame {frame} contradict each other")]
    Contradiction { frame: usize },
    #[error("an answer came without a query, or after an error")]
    NotExpected,
}
