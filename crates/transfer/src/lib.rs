//! Trusted-node relay: key for sites that have no link of their own, carried hop by hop under the pads of the links
//! between them.
//!
//! [`Relay`] is the state machine of one site. It has no socket, no clock, no randomness and no key: [`Input`]s and
//! the time go in, [`Action`]s come out, and the KMS of the site does everything secret. What the KMS must hold to is
//! said at [`KmsRequest`].
//!
//! # How a key moves
//!
//! The origin's KMS makes random key and seals it for the first hop; `Carry` takes it along the path, every site
//! between reseals it, the target's KMS opens it and keeps it *pending*. `Ack` travels back. The origin alone decides,
//! once and durably: *release* (all shares are there) or *void* (anything else: refused, in doubt for too long). It
//! repeats the decision along the path, `Settle` or `Void`, until it is confirmed; a target that has heard nothing
//! repeats its `Ack`, and an origin that does not know the transfer answers `Void`. So an origin may forget a void
//! key at any time and a released one only after `Settled`; either way no key is at one end alone for good.
//!
//! Every message may be lost, doubled, late or out of order, and every relay may crash between any two actions:
//! only the origin repeats a `Carry`, sites between pass repeats on and ask their KMS again, which gives the same
//! payload again. One pad per hop and transfer is used, ever.
//!
//! Nobody holds a pad and waits for another: a site that lacks one refuses at once, the origin voids and backs off.
//! Therefore nothing can deadlock, however empty the pools are.
//!
//! # Which way
//!
//! Sites flood what pad and rate their links have ([`LinkState`]). Each transfer takes the cheapest path that has
//! enough pad; the cost of a hop is stated at [`hop_cost`]. Key for a neighbour goes around the link to it. A key may
//! go in shares over node-disjoint paths ([`Graph::disjoint`]), so that no site between carries all of it; [`exposed`]
//! lists what a site did carry in full.

// No clock, file, socket, thread or randomness of the machine: clippy.toml lists them with reasons.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod database;
mod error;
mod event;
mod graph;
mod message;
mod name;
mod record;
mod relay;
mod settings;

pub use error::{Counters, Malformed, Rejection};
pub use event::{CompletedTransfer, RelayEvent, exposed};
pub use graph::{CostedPath, Graph};
pub use message::{
    AckStatus, Header, KmsAnswer, KmsRequest, LINKS_MAX, LinkReport, LinkState, Message, PAYLOAD_BYTES_MAX, Payload,
    Refusal, RefusalReason, SHARES_MAX, TRANSFER_BYTES_MAX,
};
pub use name::{HOPS_MAX, IdSource, Path, SITE_NAME_BYTES_MAX, SiteName, TransferId};
pub use record::{
    IncomingRecord, IncomingStage, OutgoingRecord, OutgoingStage, Record, RecordKey, ShareRecord, VoidReason,
};
pub use relay::{Action, Input, NeighbourState, Relay, hop_cost};
pub use settings::Settings;
