//! Ceilings of a reserve's two counts, kept by an anchor outside of its volume.
//!
//! A count is on the volume first, then its ceiling is raised where the count has crossed it, and only then the pad is
//! handed out. So a ceiling is at most [`CHUNK`] above the count on the volume, whatever crashed, and no pad above a
//! ceiling was ever used.

use std::sync::Arc;

use anchor::{Anchor, AnchorError, Ceilings, Instance};
use distill::auth::reserve::Offsets;

/// Tags that a ceiling is raised by at most. A crash costs its end at most this many tags to send: as much as this many
/// rounds of key put back, and 1.6 % of a reserve of 65536 bits. The anchor is asked once in four tags.
pub const CHUNK: u64 = 8;
/// Tags after which a ceiling is raised again, ahead of need.
const RAISED_EVERY: u64 = CHUNK / 2;

/// The ceilings of one generation of a reserve.
pub struct Ceiling {
    anchor: Arc<dyn Anchor>,
    store: Instance,
    generation: u64,
    /// By how much the anchor is asked to go ahead: [`CHUNK`], and more where it is far away.
    chunk: u64,
    /// What the anchor has.
    kept: Offsets,
}

/// What an anchor says of a reserve that is opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Where it goes on.
    From(Offsets),
    /// Its volume is older than what was done with it, and what shows that.
    RolledBack(String),
}

/// Takes the place of the ceilings of a reserve that was given up.
const GIVEN_UP: &str = "given-up";

impl Ceiling {
    /// No generation of this reserve is used any more.
    pub fn give_up(anchor: &dyn Anchor, store: Instance) -> Result<(), AnchorError> {
        anchor.settle(store, &[(GIVEN_UP.to_owned(), 1)].into())
    }

    pub fn read(
        anchor: Arc<dyn Anchor>,
        store: Instance,
        generation: u64,
        counts: Offsets,
    ) -> Result<(Self, Found), AnchorError> {
        let (ceilings, chunk) = (anchor.read(store)?.unwrap_or_default(), anchor.chunk(CHUNK));
        let [send, receive] = names(generation).map(|name| ceilings.get(&name).copied());
        let kept = Offsets { send: send.unwrap_or(0), receive: receive.unwrap_or(0) };
        let found = if send.is_none() && !ceilings.is_empty() {
            Found::RolledBack("what keeps its ceilings knows that another secret took its place".to_owned())
        } else {
            let (ours, theirs) =
                (anchor::resume(counts.send, send, chunk), anchor::resume(counts.receive, receive, chunk));
            if ours.rolled_back || theirs.rolled_back {
                Found::RolledBack(format!(
                    "it counts {} tags sent and {} received, the ceilings outside the volume are {} and {}",
                    counts.send, counts.receive, kept.send, kept.receive
                ))
            } else {
                // The receiving count stays: nothing is ever sent under its pads, and it must not pass the peer's.
                Found::From(Offsets { send: ours.from, ..counts })
            }
        };
        Ok((Self { anchor, store, generation, chunk, kept }, found))
    }

    /// Whether pads below these counts may be handed out.
    pub fn covers(&self, counts: Offsets) -> bool {
        counts.send <= self.kept.send
    }

    /// How many more tags can be sent before the anchor has to answer.
    pub fn left(&self, counts: Offsets) -> u64 {
        self.kept.send.saturating_sub(counts.send)
    }

    /// What to ask the anchor for, once too little is left below either ceiling.
    pub fn wanted(&self, counts: Offsets) -> Option<Raise> {
        let low = |kept: u64, count: u64| kept < count.saturating_add(self.chunk - RAISED_EVERY);
        let wanted = low(self.kept.send, counts.send) || low(self.kept.receive, counts.receive);
        wanted.then(|| self.to(counts))
    }

    /// The ceilings that belong to counts which are on the volume.
    pub fn to(&self, counts: Offsets) -> Raise {
        Raise::new(self, self.generation, counts)
    }

    /// A raise that the anchor has made.
    pub fn raised(&mut self, raise: &Raise) {
        if raise.generation == self.generation {
            self.kept.send = self.kept.send.max(raise.kept.send);
            self.kept.receive = self.kept.receive.max(raise.kept.receive);
        }
    }

    /// The reserve was replaced, once `raise` of the new generation had been made.
    pub fn replaced(&mut self, raise: &Raise) {
        self.generation = raise.generation;
        self.kept = raise.kept;
    }

    /// As [`Self::to`], of a generation that begins.
    pub fn first_of(&self, generation: u64) -> Raise {
        Raise::new(self, generation, Offsets::default())
    }

    /// What a clean close leaves behind: the counts themselves.
    pub fn settlement(&self, counts: Offsets) -> Settlement {
        let counts = ceilings(self.generation, counts);
        Settlement { anchor: self.anchor.clone(), store: self.store, counts }
    }
}

/// Ceilings on their way to the anchor. Asking blocks.
#[derive(Clone)]
pub struct Raise {
    anchor: Arc<dyn Anchor>,
    store: Instance,
    generation: u64,
    kept: Offsets,
}

impl Raise {
    fn new(ceiling: &Ceiling, generation: u64, counts: Offsets) -> Self {
        let up = |count: u64| count.saturating_add(ceiling.chunk);
        let kept = Offsets { send: up(counts.send), receive: up(counts.receive) };
        Self { anchor: ceiling.anchor.clone(), store: ceiling.store, generation, kept }
    }

    /// Blocks until the ceilings are kept.
    pub fn make(&self) -> Result<(), AnchorError> {
        self.anchor.raise(self.store, &ceilings(self.generation, self.kept))
    }

    /// Blocks until these ceilings are the only ones: those of other generations are forgotten.
    pub fn make_alone(&self) -> Result<(), AnchorError> {
        self.anchor.settle(self.store, &ceilings(self.generation, self.kept))
    }
}

/// The counts of a clean close on their way to the anchor.
pub struct Settlement {
    anchor: Arc<dyn Anchor>,
    store: Instance,
    counts: Ceilings,
}

impl Settlement {
    /// Blocks until the counts are kept.
    pub fn make(&self) -> Result<(), AnchorError> {
        self.anchor.settle(self.store, &self.counts)
    }
}

fn names(generation: u64) -> [String; 2] {
    [format!("send/{generation}"), format!("receive/{generation}")]
}

fn ceilings(generation: u64, counts: Offsets) -> Ceilings {
    let [send, receive] = names(generation);
    [(send, counts.send), (receive, counts.receive)].into()
}
