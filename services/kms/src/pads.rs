//! What a relay asks of its key store: making, resealing and opening keys that travel over trusted nodes. The relay
//! itself never holds a key.
//!
//! # What is durable when
//!
//! Every share is in a [`vault`] before the answer that speaks of it: at the origin with the payload that was sealed
//! for the first hop, at a site between the payload alone, at the target the share. So a repeated request is answered
//! from there, also after a crash, and no transfer ever takes a second pad. The pad that opens a payload is used up by
//! the very commit that keeps what was made of it; one that seals is used up on the disk before it is used, and a crash
//! between the two wastes it.
//!
//! At the target the key becomes an offered block of the pool as soon as all shares are there, at the origin only with
//! `Release`. A block counts when both ends hold it, so that a key that is void at the origin never counts. Shares
//! leave the vault with `Release` at the origin, with `Settle` elsewhere, with `Void` everywhere, or after
//! [`KEPT_MS_MAX`] without news. That a void came for something never seen is remembered in memory only: the relay's
//! own record of it outlives a crash.

mod group;
mod serve;
mod vault;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keystore::{BlockStatus, Drawn, KeyStore, Made, Offer, Secret, StoreError, Use};
use proto::relay::v1::Reason;
use telemetry::names::{attribute, span};
use telemetry::trace::{Span, Tracer};
use tokio::time::Instant;
use transfer::{Header, TransferId};

pub use serve::serve;

use crate::Pools;
use crate::pair::Pool;
use crate::seal::{self, Hidden, OpenError, SEAL_OVERHEAD_BYTES, Sealed};
use crate::told;
use group::Gathering;
use vault::{About, Entry, Kept, Vault};
use wire::Asked;

/// How long a request waits for pad that is stored but not assigned to relaying yet.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_millis(500);
/// Pads that were drawn and not used, kept for the next transfer.
const SPARES_MAX: usize = 16;
/// Voided transfers that were never seen here.
const UNSEEN_MAX: usize = 8192;
/// A share without news for so long is erased.
const KEPT_MS_MAX: u64 = 8 * 86_400_000;

/// What became of offers that were made together.
type Offered = Vec<Result<BlockStatus, StoreError>>;

const NO_PAD: StoreError = StoreError::BadRequest { what: "a pad is used once" };

/// Pieces of a pad that a span tells of.
const PAD_PIECES_MAX: usize = 32;

const VOID: &str = "void";
const SETTLED: &str = "settled";
const RELEASED: &str = "released";

/// Why something was not done. Refusals are part of the protocol.
#[derive(Debug)]
enum Failure {
    Refused(Reason),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

/// What was done.
enum Outcome {
    Sealed(Vec<u8>),
    Done,
    Voided(Vec<(TransferId, bool)>),
}

/// Answers the relay of this site. Requests of different keys may run at the same time.
pub struct Pads {
    site: String,
    store: Arc<KeyStore>,
    pools: Pools,
    origin: Vault,
    between: Vault,
    target: Vault,
    state: Mutex<State>,
    tracer: Tracer,
}

#[derive(Default)]
struct State {
    /// Shares that this site is the target of.
    groups: BTreeMap<TransferId, Gathering>,
    spares: VecDeque<(String, Drawn)>,
    unseen: BTreeSet<TransferId>,
    unseen_order: VecDeque<TransferId>,
}

impl Pads {
    /// Takes up what an earlier life left. Nothing where there is no pool at all: there is nothing to relay, either.
    pub async fn open(pools: Pools, tracer: Tracer) -> Result<Option<Self>, StoreError> {
        let Some(any) = pools.all().into_iter().next() else { return Ok(None) };
        let (site, store) = (any.site.clone(), any.store.clone());
        let vault = |name| Vault::new(store.clone(), name);
        let (origin, between, target) = (vault("~origin"), vault("~between"), vault("~target"));
        let pads = Self { site, store, pools, origin, between, target, state: Mutex::default(), tracer };
        for transfer in pads.target.all().await? {
            if let Some(entry) = pads.target.get(transfer).await? {
                pads.gather(transfer, &entry.about);
            }
        }
        Ok(Some(pads))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one request; the same one again is answered as before.
    async fn run(&self, asked: &Asked, traceparent: &str) -> Result<Outcome, Failure> {
        match asked {
            Asked::Originate(header) => {
                let mut span = self.span(header, traceparent);
                let done = self.originate(header, &mut span).await;
                ended(&mut span, done)
            }
            Asked::Reseal(header, payload) => {
                let mut span = self.span(header, traceparent);
                let done = self.reseal(header, payload, &mut span).await;
                ended(&mut span, done)
            }
            Asked::Deliver(header, payload) => {
                let mut span = self.span(header, traceparent);
                let done = self.deliver(header, payload, &mut span).await;
                ended(&mut span, done)
            }
            Asked::Release(group, transfers) => self.release(*group, transfers, traceparent).await,
            Asked::Void(group, transfers) => self.void(*group, transfers).await,
            Asked::Settle(group, transfer) => self.settle(*group, *transfer).await,
        }
    }

    fn span(&self, header: &Header, traceparent: &str) -> Span {
        let hop = usize::from(header.hop);
        let mut span = self
            .tracer
            .span(span::RELAY)
            .parent_from(traceparent)
            .attribute(attribute::TRANSFER_ID, header.transfer.to_string())
            .attribute(attribute::TRANSFER_BYTES, header.bytes);
        if let Some(from) = hop.checked_sub(1).and_then(|at| header.path.get(at)) {
            span = span.attribute(attribute::PEER_SITE, from.as_str());
        }
        if let Some(to) = header.path.get(hop + 1) {
            span = span.attribute(attribute::NEXT_SITE, to.as_str());
        }
        span.start()
    }

    fn pool(&self, header: &Header, position: usize) -> Result<Arc<Pool>, Failure> {
        let site = header.path.get(position).ok_or(Failure::Refused(Reason::Unknown))?;
        self.pools.get(site.as_str()).ok_or(Failure::Refused(Reason::Unknown))
    }

    /// Where this site stands on the path.
    fn position(&self, header: &Header) -> Result<usize, Failure> {
        let position = usize::from(header.hop);
        let here = header.path.get(position).is_some_and(|site| site.as_str() == self.site);
        if here { Ok(position) } else { Err(Failure::Refused(Reason::Unknown)) }
    }

    async fn originate(&self, header: &Header, span: &mut Span) -> Result<Outcome, Failure> {
        if self.position(header)? != 0 {
            return Err(Failure::Refused(Reason::Unknown));
        }
        let (next, _) = (self.pool(header, 1)?, self.pool(header, header.path.hops())?);
        if !self.may_be_new(&self.origin, header.transfer)
            && let Some(payload) = self.sealed_before(&self.origin, header.transfer).await?
        {
            return Ok(Outcome::Sealed(payload));
        }
        let pad = self.pad(&next, header.bytes as usize + SEAL_OVERHEAD_BYTES).await?;
        tell_pad(span, attribute::PAD_OUT_PIECE, &next, pad.generation, pad.start, pad.key.len()).await;
        let key = seal::random(header.bytes as usize).map_err(|_| Failure::Refused(Reason::Busy))?;
        let hidden = Hidden::fresh(&next, pad.generation).await?;
        let payload = seal::seal_under(&pad, &hidden, &key, &wire::context(header)).encode();
        let entry = Entry { about: About::of(header), key, payload: payload.clone() };
        if self.origin.put(header.transfer, &entry).await? {
            return Ok(Outcome::Sealed(payload));
        }
        // Nothing was sent that is sealed under this pad.
        self.spare(&next, pad);
        self.as_before(&self.origin, header.transfer).await
    }

    async fn reseal(&self, header: &Header, payload: &[u8], span: &mut Span) -> Result<Outcome, Failure> {
        let position = self.position(header)?;
        if position == 0 {
            return Err(Failure::Refused(Reason::Unknown));
        }
        let (from, to) = (self.pool(header, position - 1)?, self.pool(header, position + 1)?);
        if !self.may_be_new(&self.between, header.transfer)
            && let Some(payload) = self.sealed_before(&self.between, header.transfer).await?
        {
            return Ok(Outcome::Sealed(payload));
        }
        // The pad for the way on comes first: an opened key that cannot be sealed again is lost.
        let pad = self.pad(&to, header.bytes as usize + SEAL_OVERHEAD_BYTES).await?;
        tell_pad(span, attribute::PAD_OUT_PIECE, &to, pad.generation, pad.start, pad.key.len()).await;
        tell_pad_in(span, &from, payload).await;
        let hidden = Hidden::fresh(&to, pad.generation).await?;
        let pad = Arc::new(Mutex::new(Some(pad)));
        let (about, transfer, context) = (About::of(header), header.transfer, wire::context(header));
        let (name, outgoing) = (self.between.name(), pad.clone());
        let make = move |key: &Secret| {
            let pad = outgoing.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(NO_PAD)?;
            let payload = seal::seal_under(&pad, &hidden, key, &context).encode();
            let entry = Entry { about, key: Secret::default(), payload: payload.clone() };
            Ok(Made { offers: vec![(name.to_owned(), entry.offer(transfer)?)], answer: payload })
        };
        let exchanged = self.exchange(&from, header, payload, &self.between, make).await;
        // Nothing was sealed under a pad that is still there.
        if let Some(pad) = pad.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.spare(&to, pad);
        }
        match exchanged? {
            Some((payload, _)) => Ok(Outcome::Sealed(payload)),
            None => self.as_before(&self.between, header.transfer).await,
        }
    }

    async fn deliver(&self, header: &Header, payload: &[u8], span: &mut Span) -> Result<Outcome, Failure> {
        let position = self.position(header)?;
        if position != header.path.hops() {
            return Err(Failure::Refused(Reason::Unknown));
        }
        let (from, pool) = (self.pool(header, position - 1)?, self.pool(header, 0)?);
        if self.may_be_new(&self.target, header.transfer) || self.fresh(&self.target, header.transfer).await? {
            tell_pad_in(span, &from, payload).await;
            let (about, transfer) = (About::of(header), header.transfer);
            let (kept, name) = (about.clone(), self.target.name());
            // A key of one share is offered to the pool with the same commit.
            let whole = (header.of == 1).then(|| (pool.peer.clone(), group::origin(header.group, &[&header.path])));
            let (group, origin_span) = (header.group, crate::ingest::span_bytes(&span.context()));
            let make = move |key: &Secret| {
                let entry = Entry { about: kept, key: key.clone(), payload: Vec::new() };
                let mut offers = vec![(name.to_owned(), entry.offer(transfer)?)];
                offers.extend(whole.map(|(peer, origin)| {
                    let offered_ms = crate::now_ms();
                    (
                        peer,
                        Offer { id: group.0, key: key.clone(), origin, span: origin_span, offered_ms, relayed: true },
                    )
                }));
                Ok(Made { offers, answer: () })
            };
            match self.exchange(&from, header, payload, &self.target, make).await? {
                Some(((), offered)) => {
                    self.gather(header.transfer, &about);
                    self.offered_at_once(&pool, header.group, offered.get(1));
                }
                None if self.fresh(&self.target, header.transfer).await? => {
                    return Err(Failure::Refused(Reason::Unknown));
                }
                None => {}
            }
        }
        self.together(header.group, span).await?;
        Ok(Outcome::Done)
    }

    /// Opens what the site before sealed and keeps what is made of it: one commit takes the pad and has the rest.
    /// Nothing where the vault knows the transfer.
    async fn exchange<T: Send + 'static>(
        &self,
        from: &Pool,
        header: &Header,
        payload: &[u8],
        vault: &Vault,
        make: impl FnOnce(&Secret) -> Result<Made<T>, StoreError> + Send + 'static,
    ) -> Result<Option<(T, Offered)>, Failure> {
        let sealed = Sealed::decode(payload).filter(|sealed| sealed.bytes.len() == header.bytes as usize);
        let sealed = sealed.ok_or(Failure::Refused(Reason::BadTag))?;
        let range = (sealed.start, (sealed.bytes.len() + SEAL_OVERHEAD_BYTES) as u64);
        let (from_use, context) = ((Use::RelayIn, sealed.generation), wire::context(header));
        let hidden = Hidden::of(from, sealed.generation, sealed.nonce).await?;
        let open_and_make = move |pad: &Secret| {
            let made = match seal::opened(pad, &hidden, &sealed, &context) {
                Some(key) => make(&key).map_err(Failure::from),
                None => Err(Failure::Refused(Reason::BadTag)),
            };
            match made {
                Ok(Made { offers, answer }) => Made { offers, answer: Ok(answer) },
                Err(failure) => Made { offers: Vec::new(), answer: Err(failure) },
            }
        };
        let vault = (vault.name(), header.transfer.0);
        let (answer, offered) = match from.store.redeem_into(&from.peer, from_use, range, vault, open_and_make).await {
            Ok(done) => done,
            Err(StoreError::BlockConflict { .. }) => return Ok(None),
            Err(error) => {
                return Err(match OpenError::of(error) {
                    OpenError::Store(error) => error.into(),
                    _ => Failure::Refused(Reason::Unknown),
                });
            }
        };
        let answer = answer?;
        // The first offer is that to the vault, and what it does not keep is lost.
        match offered.first() {
            Some(Err(error)) => Err(error.clone().into()),
            _ => {
                shell::failpoint::hit("share.kept");
                Ok(Some((answer, offered)))
            }
        }
    }

    /// Whether a transfer is worth trying as a new one; the commit finds out if it is not.
    fn may_be_new(&self, vault: &Vault, transfer: TransferId) -> bool {
        !vault.is_full() && !self.state().unseen.contains(&transfer)
    }

    /// The answer to a request that turns out to be a repeated one.
    async fn as_before(&self, vault: &Vault, transfer: TransferId) -> Result<Outcome, Failure> {
        let payload = self.sealed_before(vault, transfer).await?;
        payload.map(Outcome::Sealed).ok_or(Failure::Refused(Reason::Unknown))
    }

    /// The payload of an earlier answer.
    async fn sealed_before(&self, vault: &Vault, transfer: TransferId) -> Result<Option<Vec<u8>>, Failure> {
        if self.fresh(vault, transfer).await? {
            return Ok(None);
        }
        let entry = vault.get(transfer).await?.ok_or(Failure::Refused(Reason::Unknown))?;
        Ok(Some(entry.payload))
    }

    /// Whether a transfer is new to a vault with room; one that is gone is refused.
    async fn fresh(&self, vault: &Vault, transfer: TransferId) -> Result<bool, Failure> {
        match vault.status(transfer).await? {
            Kept::Held => Ok(false),
            Kept::Gone(_) => Err(Failure::Refused(Reason::Unknown)),
            Kept::Never if self.state().unseen.contains(&transfer) => Err(Failure::Refused(Reason::Unknown)),
            Kept::Never if vault.is_full() => Err(Failure::Refused(Reason::Busy)),
            Kept::Never => Ok(true),
        }
    }

    /// One-time pad for the other site of a pool. Where there is enough but not assigned yet, waits a little.
    async fn pad(&self, pool: &Pool, bytes: usize) -> Result<Drawn, Failure> {
        if let Some(spare) = self.take_spare(pool, bytes) {
            return Ok(spare);
        }
        let until = Instant::now() + ASSIGNMENT_PATIENCE;
        let mut progress = pool.progress();
        loop {
            match pool.store.draw_many_async(&pool.peer, Use::RelayOut, bytes, 1).await {
                Ok(mut drawn) => {
                    shell::failpoint::hit("pad.drawn");
                    told::drawn(pool, Use::RelayOut, &drawn);
                    return drawn.pop().ok_or(Failure::Refused(Reason::InsufficientKey));
                }
                Err(StoreError::Exhausted { .. } | StoreError::UnknownPeer { .. }) => {}
                Err(StoreError::RolledBack { .. }) => return Err(Failure::Refused(Reason::InsufficientKey)),
                Err(error) => return Err(error.into()),
            }
            let levels = pool.levels();
            // What lies there may be in pieces that are too short, so this much is wanted beside it.
            pool.want(Use::RelayOut, levels.available(Use::RelayOut) + 2 * bytes as u64);
            let hopeless = !pool.connected() || levels.unassigned_bytes < bytes as u64;
            if hopeless || tokio::time::timeout_at(until, progress.changed()).await.is_err() {
                return Err(Failure::Refused(Reason::InsufficientKey));
            }
        }
    }

    /// Keeps a pad that nothing was sealed under.
    fn spare(&self, pool: &Pool, pad: Drawn) {
        let mut state = self.state();
        if state.spares.len() >= SPARES_MAX {
            state.spares.pop_front();
        }
        state.spares.push_back((pool.peer.clone(), pad));
    }

    fn take_spare(&self, pool: &Pool, bytes: usize) -> Option<Drawn> {
        if pool.rolled_back().is_some() {
            return None;
        }
        let generation = pool.levels().generation;
        let mut state = self.state();
        state.spares.retain(|(peer, pad)| *peer != pool.peer || pad.generation == generation);
        let fits = |(peer, pad): &(String, Drawn)| *peer == pool.peer && pad.key.len() == bytes;
        let at = state.spares.iter().position(fits)?;
        state.spares.remove(at).map(|(_, pad)| pad)
    }

    fn never_seen(&self, transfer: TransferId) {
        let mut state = self.state();
        if state.unseen.insert(transfer) {
            state.unseen_order.push_back(transfer);
        }
        if state.unseen_order.len() > UNSEEN_MAX
            && let Some(oldest) = state.unseen_order.pop_front()
        {
            state.unseen.remove(&oldest);
        }
    }
}

/// Says of which blocks a pad is made.
async fn tell_pad(span: &mut Span, attribute: &str, pool: &Pool, generation: u32, start: u64, bytes: usize) {
    if !span.is_recording() {
        return;
    }
    let pieces = told::origins(pool, generation, start, bytes as u64).await;
    for (at, piece) in told::describe(&pieces, start).into_iter().enumerate().take(PAD_PIECES_MAX) {
        span.set(&attribute::numbered(attribute, at), piece);
    }
    for context in pieces.iter().take(PAD_PIECES_MAX).filter_map(|piece| crate::ingest::span_context(&piece.span)) {
        span.link(&context);
    }
}

/// Tells of the pad that a payload says it is sealed under.
async fn tell_pad_in(span: &mut Span, from: &Pool, payload: &[u8]) {
    if let Some(sealed) = Sealed::decode(payload) {
        let bytes = sealed.bytes.len() + SEAL_OVERHEAD_BYTES;
        tell_pad(span, attribute::PAD_IN_PIECE, from, sealed.generation, sealed.start, bytes).await;
    }
}

fn ended(span: &mut Span, done: Result<Outcome, Failure>) -> Result<Outcome, Failure> {
    match &done {
        Ok(_) => span.succeed(),
        Err(Failure::Refused(reason)) => span.fail(reason.as_str_name()),
        Err(Failure::Store(_)) => span.fail("the key store cannot be used"),
    }
    done
}
