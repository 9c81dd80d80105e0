//! Two reserves that do not fit together, where nothing proves whose is right.
//!
//! An end that was re-keyed and one that was not have no secret in common, so that neither can show anything to the
//! other. Nor can two ends prove anything of which each lacks what the other has seen of it: no pad of theirs is
//! certainly unused. All that can be done is to spend nothing, to go on greeting, and to say so: somebody has to give
//! both ends the same fresh secret. What is said is a suspicion, which the next session takes back.

use super::outcome::Refusal;

/// In what way two ends' reserves do not fit together, as far as their greetings tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("the two ends have different secrets: one was re-keyed, or put back to before it was")]
    OtherSecret,
    #[error("the two ends were started with different numbers of tags per hash key")]
    OtherLayout,
    #[error("one end has a secret of an older release, which has no key for masks, the other has not")]
    OtherForm,
    #[error("the refills of the two ends have gone different ways")]
    OtherRefills,
    #[error("each end has verified tags that the other does not know to have sent: both may have been put back")]
    BothBehind,
    #[error("the peer's end, whose secret is of an older release, counts less than it had shown here before")]
    PeerBehind,
}

impl Misfit {
    /// What a greeting that was refused speaks for, if its sender is no forger.
    pub(super) fn shown_by(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::OtherGeneration(_) | Refusal::Forged => Some(Self::OtherSecret),
            Refusal::OtherLayout => Some(Self::OtherLayout),
            Refusal::OtherForm => Some(Self::OtherForm),
            _ => None,
        }
    }
}

/// Greetings that do not fit before it is said: while both ends are being re-keyed, some do not.
const GREETINGS: u32 = 4;

/// What a greeting has met so far.
#[derive(Default)]
pub struct Doubt {
    unfit: u32,
    is_said: bool,
    /// In what way the peer's latest greeting, which was taken, leads to no session.
    pub stuck: Option<Misfit>,
}

impl Doubt {
    /// One more greeting that does not fit: what is to be said of it now. Anybody can make up what counts here.
    pub fn of(&mut self, misfit: Misfit) -> Option<Misfit> {
        self.unfit = self.unfit.saturating_add(1);
        if self.unfit >= GREETINGS { self.certain_of(misfit) } else { None }
    }

    /// The peer itself has shown it, under the key of the masks.
    pub fn certain_of(&mut self, misfit: Misfit) -> Option<Misfit> {
        (!std::mem::replace(&mut self.is_said, true)).then_some(misfit)
    }
}
