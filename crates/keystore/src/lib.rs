//! Durable pools: the key that one site of a QKD network shares with its peers.
//!
//! A store is one folder of a site's KMS. For every peer it has a **pool**, an ever-growing stream of confirmed key
//! that both sites hold byte for byte. A module offers **blocks**; once the peer has them too they are confirmed and
//! become the next bytes of the stream. **Grants** assign ranges of the stream to a [`Use`], the same at both sites
//! with Out and In exchanged, so that a draw needs no word with the peer: one site draws the next bytes, the other
//! redeems the same bytes by their position. A pool in doubt is voided: its next **generation** starts at byte 0.
//!
//! The crate has no sockets, no async runtime and no clock: wall time comes from the caller. One thread writes.
//! [`Pending`] answers are futures that resolve once what they say is on the disk.
//!
//! # What holds
//!
//! * A byte is handed out at most once, across crashes too. Whatever is doubtful counts as gone.
//! * [`PoolLedger::check`] holds at every moment: each bit offered is in exactly one place.
//! * Whatever was answered is on the disk. What was not answered (a crash, a dropped [`Pending`]) happened or not; a
//!   call that is repeated finds out: blocks are idempotent by identifier, grants by number, voiding by generation,
//!   deposits by key identifier.
//! * After an error of the disk, or damage found, the store stops ([`StoreError::is_fatal`]) and serves nothing until
//!   it is opened again.
//!
//! # Copies that are put back
//!
//! Backups and snapshots are put back, and then a store has forgotten what it handed out. It notices this itself:
//!
//! * The database counts its commits, and the records in the journals as of each. Journals with fewer records than the
//!   database knows of, with records of a later epoch, or of bytes that the database never granted, are not of one time.
//! * An [`anchor`] outside of the volume ([`Settings::anchor`]) has, at most [`Settings::anchor_period`] old, the number
//!   of commits and of records, and for each use that is drawn from a *ceiling*: the position that no lease crosses before
//!   the ceiling was raised. A thread of its own raises it ahead, by an eighth of the pool (4 KiB to 1 MiB), so that only a
//!   draw at the ceiling waits for the anchor. A start goes on at the ceiling: after a crash what lies below is wasted. A
//!   clean close brings the ceilings back to where drawing came, and wastes nothing.
//!
//! A store with fewer commits or records than its anchor knows, or far below a ceiling, is *rolled back*: it hands out
//! nothing, redeems nothing, confirms nothing ([`StoreError::RolledBack`]); blocks that are offered wait. It stays so, also
//! after a restart, until [`KeyStore::void_everything`]. Redemptions cannot skip ahead: of those that are younger than what
//! the anchor knows, a store that is killed and put back within that time may make some again.
//!
//! [`KeyStore::standing`] says how far a pool came, for the peer to compare with; [`KeyStore::mark_rolled_back`] is for
//! what that comparison shows.
//!
//! # On the disk
//!
//! `keys.redb` is a redb database; `redeemed-0.log` and `redeemed-1.log` are journals beside it. All have mode 0600.
//!
//! | what | order |
//! | --- | --- |
//! | new store | journals written and synced, then the database with format, data key and instance |
//! | offer, confirm, grant, deposit, ... | one transaction and sync for all that waited; then the answers |
//! | draw | the mark of a *lease* is synced, then its bytes may be drawn, from memory |
//! | redeem | one journal record and sync for all that waited; then the answers. In advance: nothing |
//! | checkpoint | maps of taken bytes and the next epoch in one transaction; then both journals start over |
//! | close | marks go back to where drawing came, checkpoint |
//!
//! A **lease** is what drawing may hand out without asking the disk again: 64 KiB unless set otherwise, up to 1 MiB
//! while key is drawn faster than leases come, an eighth of the pool (at least 4 KiB) if that is less. The next one is
//! fetched when half is used, at full speed as soon as the one before is begun. What is on lease in a crash is
//! counted as wasted.
//!
//! What is fetched fast is redeemed **in advance** ([`Settings::redeem_in_advance_from`]): the record of a redemption
//! says that the rest of its chunk is gone, too, and of the three chunks behind it, and until the next checkpoint their
//! keys are answered from memory. At most 32 chunks (127 KB) of a pool are held like this. A crash wastes what of them
//! was not asked for: keys that their masters may have by then. So a store does it only where it is asked 500
//! times a second for a while, and where the keys of a chunk are fetched about together.
//!
//! The **journals** are there because of what was measured (2 cores, virtual disk, otherwise idle): a transaction of
//! redb with eight one-row changes takes 0.21 ms, with eight maps of taken bytes 0.40 ms, while writing to a file of
//! fixed length and syncing it takes 0.11 ms. Callers that each wait for their answer are bound by that latency: eight
//! of them to 38,000 or 20,000 redemptions a second with redb alone, before anything else is counted. There are two,
//! because two syncs at once take hardly longer than one: while one waits for the disk, the next group is prepared.
//!
//! Space: records are erased when a lease has passed them, when a checkpoint finds them taken whole, when a grant
//! expires, when a pool is voided. Kept are the last 100,000 decided blocks of a pool with their origins, and the last
//! 10,000 finished grants. A database that is mostly free is made smaller when it is opened. A checkpoint keeps in memory half a kilobyte for every chunk (4 KiB) that is partly
//! redeemed; otherwise an idle store needs little beyond redb's page cache ([`Settings::cache_bytes`]). Opening verifies
//! the checksum of every page, which takes about a second per gigabyte.
//!
//! # Secrets
//!
//! Key at rest is AES-256-GCM under a data key with random nonces, bound to its place (peer, generation, start,
//! length); a [`MasterKey`] wraps the data key. Erasing means deleting the sealed record: until the database reuses
//! the page, who has both disk and master key can read it. In memory key is [`Secret`]: zeroized when dropped, printed
//! as its length, compared in constant time. Not covered: the
//! cipher's own copy of the data key while the store is open.
//!
//! The last record of each journal is the one place where damage looks like a torn write: it is left out with a
//! warning. Damage anywhere before it is refused.

mod advance;
mod ahead;
mod codec;
mod crypt;
mod engine;
mod error;
mod face;
mod journal;
mod journals;
mod keeper;
mod lane;
mod ledger;
mod master;
mod media;
mod queue;
mod secret;
mod store;
mod tables;
mod taken;
mod types;

pub use crypt::Sealer;
pub use error::StoreError;
pub use keeper::COMMITS;
pub use ledger::{Imbalance, PoolLedger, UseLedger};
pub use master::MasterKey;
pub use media::{JOURNALS, Media, folder};
pub use queue::Pending;
pub use redb::StorageBackend;
pub use secret::Secret;
pub use store::KeyStore;
pub use types::*;
