//! What a relay asks of its key store: making, resealing and opening keys that travel over trusted nodes. The relay
//! itself never holds a key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result};
use keystore::{BlockStatus, Offer, SPAN_BYTES, Secret, StoreError, Use};
use proto::kms::v1::{
    DeliverShare, Done, Originate, RefusedReason, RelayAnswer, RelayRequest, Reseal, relay_answer, relay_request::What,
};
use serde_json::json;
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;

use crate::pair::Pool;
use crate::seal::{self, OpenError, SEAL_OVERHEAD_BYTES, Sealed};

/// Transfers whose answers are remembered, so that a request that comes twice is done once.
const REMEMBERED_MAX: usize = 8192;
/// Longest key of one transfer.
const TRANSFER_BYTES_MAX: u32 = 16 << 10;
const SHARES_MAX: u32 = 8;

type Id = [u8; 16];

/// Refusals are part of the protocol; everything else ends the dialogue with the relay.
enum Refusal {
    Refused(RefusedReason),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Failed(error.into())
    }
}

/// Shares of a key that have not all come together.
struct Group {
    peer: String,
    shares: BTreeMap<u32, Secret>,
    of: u32,
}

/// Answers the relay of this site.
pub struct Pads {
    pools: BTreeMap<String, Arc<Pool>>,
    answered: BTreeMap<Id, relay_answer::What>,
    order: VecDeque<Id>,
    groups: BTreeMap<Id, Group>,
    /// Which pool a group's key went to.
    offered: BTreeMap<Id, String>,
    tracer: Tracer,
}

impl Pads {
    pub fn new(pools: BTreeMap<String, Arc<Pool>>, tracer: Tracer) -> Self {
        Self {
            pools,
            answered: BTreeMap::new(),
            order: VecDeque::new(),
            groups: BTreeMap::new(),
            offered: BTreeMap::new(),
            tracer,
        }
    }

    /// Does one request; the same one again is answered as before.
    pub async fn answer(&mut self, request: RelayRequest) -> Result<Option<RelayAnswer>> {
        let transfer: Id = request.transfer.as_ref().try_into().ok().context("a transfer's identity has 16 bytes")?;
        let Some(what) = request.what else { return Ok(None) };
        let repeats = matches!(what, What::Originate(_) | What::Reseal(_) | What::Deliver(_));
        let answer = match self.answered.get(&transfer).filter(|_| repeats) {
            Some(known) => known.clone(),
            None => {
                let done = match what {
                    What::Originate(asked) => self.originate(transfer, asked).await,
                    What::Reseal(asked) => self.reseal(transfer, asked).await,
                    What::Deliver(asked) => self.deliver(transfer, asked).await,
                    What::Release(_) => Ok(relay_answer::What::Done(Done {})),
                    What::Void(_) => self.void(transfer).await,
                };
                let answer = match done {
                    Ok(answer) => answer,
                    Err(Refusal::Refused(reason)) => relay_answer::What::Refused(reason.into()),
                    Err(Refusal::Failed(error)) => return Err(error),
                };
                if repeats {
                    self.remember(transfer, answer.clone());
                }
                answer
            }
        };
        let transfer = request.transfer;
        Ok(Some(RelayAnswer { request: request.request, transfer, what: Some(answer) }))
    }

    fn remember(&mut self, transfer: Id, answer: relay_answer::What) {
        if self.answered.insert(transfer, answer).is_none() {
            self.order.push_back(transfer);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.answered.remove(&oldest);
        }
    }

    fn pool(&self, site: &str) -> Result<Arc<Pool>, Refusal> {
        self.pools.get(site).cloned().ok_or(Refusal::Refused(RefusedReason::Unknown))
    }

    async fn originate(&mut self, transfer: Id, asked: Originate) -> Result<relay_answer::What, Refusal> {
        if asked.bytes == 0 || asked.bytes > TRANSFER_BYTES_MAX {
            return Err(Refusal::Refused(RefusedReason::Unknown));
        }
        let (next, _) = (self.pool(&asked.next)?, self.pool(&asked.target)?);
        let key = seal::random(asked.bytes as usize)?;
        let sealed = self.seal(&next, transfer, &key).await?;
        let group = group_id(&asked.group, transfer);
        self.collect(group, &asked.target, (asked.share, asked.shares), key, &asked.path).await?;
        Ok(relay_answer::What::Sealed(sealed.encode().into()))
    }

    async fn reseal(&mut self, transfer: Id, asked: Reseal) -> Result<relay_answer::What, Refusal> {
        let (from, to) = (self.pool(&asked.from)?, self.pool(&asked.to)?);
        let sealed = Sealed::decode(&asked.payload).ok_or(Refusal::Refused(RefusedReason::Unknown))?;
        // Looked at first: an opened key that cannot be sealed again is lost.
        let bytes = (sealed.bytes.len() + SEAL_OVERHEAD_BYTES) as u64;
        if to.levels().available(Use::RelayOut) < bytes {
            to.want(Use::RelayOut, bytes);
            return Err(Refusal::Refused(RefusedReason::InsufficientKey));
        }
        let span = self.tracer.span(span::RELAY).attribute(attribute::PEER_SITE, asked.from.as_str());
        let mut span = span.attribute(attribute::NEXT_SITE, asked.to.as_str()).start();
        span.set(attribute::TRANSFER_ID, hex(&transfer));
        let key = self.open(&from, transfer, &sealed).await?;
        let resealed = self.seal(&to, transfer, &key).await?;
        span.end();
        Ok(relay_answer::What::Sealed(resealed.encode().into()))
    }

    async fn deliver(&mut self, transfer: Id, asked: DeliverShare) -> Result<relay_answer::What, Refusal> {
        let (from, _) = (self.pool(&asked.from)?, self.pool(&asked.origin)?);
        let sealed = Sealed::decode(&asked.payload).ok_or(Refusal::Refused(RefusedReason::Unknown))?;
        let key = self.open(&from, transfer, &sealed).await?;
        let group = group_id(&asked.group, transfer);
        self.collect(group, &asked.origin, (asked.share, asked.shares), key, &asked.path).await?;
        Ok(relay_answer::What::Done(Done {}))
    }

    async fn seal(&self, pool: &Pool, transfer: Id, key: &Secret) -> Result<Sealed, Refusal> {
        match seal::seal(pool, Use::RelayOut, key, &transfer).await {
            Ok(sealed) => Ok(sealed),
            Err(StoreError::Exhausted { asked_bytes, .. }) => {
                pool.want(Use::RelayOut, asked_bytes);
                Err(Refusal::Refused(RefusedReason::InsufficientKey))
            }
            Err(StoreError::UnknownPeer { .. }) => Err(Refusal::Refused(RefusedReason::InsufficientKey)),
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self, pool: &Pool, transfer: Id, sealed: &Sealed) -> Result<Secret, Refusal> {
        seal::open(pool, Use::RelayIn, sealed, &transfer).await.map_err(|error| match error {
            OpenError::BadTag => Refusal::Refused(RefusedReason::BadTag),
            OpenError::UnknownPad => Refusal::Refused(RefusedReason::Unknown),
            OpenError::Store(error) => Refusal::Failed(error.into()),
        })
    }

    /// Keeps a share; once all of a key have come together they are offered to the pool as a block. Whether its bits
    /// count the two key stores agree on as for any block.
    async fn collect(
        &mut self,
        group: Id,
        peer: &str,
        (share, of): (u32, u32),
        key: Secret,
        path: &[String],
    ) -> Result<(), Refusal> {
        if of == 0 || of > SHARES_MAX || share >= of {
            return Err(Refusal::Refused(RefusedReason::Unknown));
        }
        let gathered =
            self.groups.entry(group).or_insert_with(|| Group { peer: peer.to_owned(), shares: BTreeMap::new(), of });
        gathered.shares.insert(share, key);
        if gathered.shares.len() < gathered.of as usize {
            return Ok(());
        }
        let Some(whole) = self.groups.remove(&group) else { return Ok(()) };
        let pool = self.pool(&whole.peer)?;
        let key = combined(whole.shares.into_values());
        let origin = json!({"kind": "relay", "group": hex(&group), "path": path, "shares": of}).to_string();
        let offer = Offer { id: group, key, origin, span: [0; SPAN_BYTES] };
        pool.store.offer(&pool.peer, offer).await.context("offer a relayed key")?;
        self.offered.insert(group, whole.peer);
        if self.offered.len() > REMEMBERED_MAX {
            self.offered.pop_first();
        }
        pool.wake.notify_one();
        Ok(())
    }

    /// The key is never to count, unless the two ends have agreed on it already.
    async fn void(&mut self, group: Id) -> Result<relay_answer::What, Refusal> {
        self.groups.remove(&group);
        let peers: BTreeSet<String> = match self.offered.get(&group) {
            Some(peer) => BTreeSet::from([peer.clone()]),
            // Offered before this start: whichever pool has it.
            None => self.pools.iter().filter(|(_, pool)| !pool.adjacent).map(|(site, _)| site.clone()).collect(),
        };
        for peer in peers {
            let pool = self.pool(&peer)?;
            match pool.store.quarantine(&peer, group, "the transfer was voided").await {
                Ok(BlockStatus::Confirmed { .. }) | Err(StoreError::BlockConflict { .. }) => {
                    return Err(Refusal::Refused(RefusedReason::Unknown));
                }
                Ok(_) | Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(relay_answer::What::Done(Done {}))
    }
}

fn group_id(group: &[u8], transfer: Id) -> Id {
    group.try_into().unwrap_or(transfer)
}

/// The exclusive or of all shares: without one of them nothing is known of the key.
fn combined(shares: impl Iterator<Item = Secret>) -> Secret {
    let mut sum: Vec<u8> = Vec::new();
    for share in shares {
        sum.resize(sum.len().max(share.len()), 0);
        sum.iter_mut().zip(share.expose()).for_each(|(sum, byte)| *sum ^= byte);
    }
    Secret::new(sum)
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
