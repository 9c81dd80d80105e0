//! The shares of one key: gathered at the target, released or dropped as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use keystore::{BlockStatus, Offer, SPAN_BYTES, Secret, StoreError};
use serde_json::json;
use telemetry::names::{attribute, span};
use telemetry::trace::Span;
use transfer::{Path, TransferId};

use super::vault::{About, Kept};
use super::{Failure, KEPT_MS_MAX, Outcome, Pads, RELEASED, SETTLED, VOID};
use crate::ingest::span_bytes;
use crate::pair::Pool;

/// Shares of a key at its target.
pub(super) struct Gathering {
    of: u8,
    shares: BTreeMap<u8, (TransferId, Path)>,
    /// The pool holds the key as a block.
    offered: bool,
    span: [u8; SPAN_BYTES],
}

impl Gathering {
    fn is_whole(&self) -> bool {
        self.shares.len() == usize::from(self.of)
    }
}

impl Pads {
    pub(super) fn gather(&self, transfer: TransferId, about: &About) {
        let mut state = self.state();
        let gathering = state.groups.entry(about.group).or_insert_with(|| Gathering {
            of: about.of,
            shares: BTreeMap::new(),
            offered: false,
            span: [0; SPAN_BYTES],
        });
        gathering.shares.insert(about.share, (transfer, about.path.clone()));
    }

    /// Notes what became of a key that was offered together with its only share. One that a full pool did not take is
    /// offered again later.
    pub(super) fn offered_at_once(
        &self,
        pool: &Pool,
        group: TransferId,
        offered: Option<&Result<BlockStatus, StoreError>>,
    ) {
        match offered {
            Some(Ok(_)) => {
                shell::failpoint::hit("share.offered");
                pool.wake.notify_one();
            }
            Some(Err(StoreError::BlockConflict { .. })) => {
                tracing::error!(peer = pool.peer, %group, "a relayed key came twice and differs");
            }
            _ => return,
        }
        if let Some(gathering) = self.state().groups.get_mut(&group) {
            gathering.offered = true;
        }
    }

    fn scatter(&self, group: TransferId, transfer: TransferId) {
        let mut state = self.state();
        if let Some(gathering) = state.groups.get_mut(&group) {
            gathering.shares.retain(|_, (known, _)| *known != transfer);
            if gathering.shares.is_empty() {
                state.groups.remove(&group);
            }
        }
    }

    /// Offers a key of which all shares have come to the pool. A full pool takes it later.
    pub(super) async fn together(&self, group: TransferId, span: &Span) -> Result<(), Failure> {
        if let Some(gathering) = self.state().groups.get_mut(&group) {
            gathering.span = span_bytes(&span.context());
        }
        match self.offer_gathered(group).await {
            Err(Failure::Store(StoreError::PoolFull { .. } | StoreError::Busy)) => Ok(()),
            other => other,
        }
    }

    async fn offer_gathered(&self, group: TransferId) -> Result<(), Failure> {
        let (shares, span): (Vec<(TransferId, Path)>, _) = {
            let state = self.state();
            let whole = state.groups.get(&group).filter(|gathering| gathering.is_whole() && !gathering.offered);
            let Some(gathering) = whole else { return Ok(()) };
            (gathering.shares.values().cloned().collect(), gathering.span)
        };
        let mut keys = Vec::with_capacity(shares.len());
        for (transfer, _) in &shares {
            let Some(entry) = self.target.get(*transfer).await? else { return Ok(()) };
            keys.push(entry.key);
        }
        let paths: Vec<&Path> = shares.iter().map(|(_, path)| path).collect();
        let Some(pool) = paths.first().and_then(|path| self.pools.get(path.origin().as_str())) else { return Ok(()) };
        self.offer(&pool, group, &keys, &paths, span).await?;
        if let Some(gathering) = self.state().groups.get_mut(&group) {
            gathering.offered = true;
        }
        Ok(())
    }

    /// Whether its bits count the two key stores agree on as for any block.
    async fn offer(
        &self,
        pool: &Arc<Pool>,
        group: TransferId,
        shares: &[Secret],
        paths: &[&Path],
        span: [u8; SPAN_BYTES],
    ) -> Result<(), Failure> {
        let offer = Offer {
            id: group.0,
            key: combined(shares),
            origin: origin(group, paths),
            span,
            offered_ms: crate::now_ms(),
            relayed: true,
        };
        match pool.store.offer(&pool.peer, offer).await {
            Ok(_) => {
                shell::failpoint::hit("share.offered");
                pool.wake.notify_one();
            }
            // Offered before with another end of the same key: it will never be confirmed.
            Err(StoreError::BlockConflict { .. }) => {
                tracing::error!(peer = pool.peer, %group, "a relayed key came twice and differs");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) async fn release(
        &self,
        group: TransferId,
        transfers: &[TransferId],
        traceparent: &str,
    ) -> Result<Outcome, Failure> {
        let mut entries = Vec::with_capacity(transfers.len());
        for transfer in transfers {
            match self.origin.get(*transfer).await? {
                Some(entry) => entries.push(entry),
                None => {
                    let before = self.origin.status(*transfer).await?;
                    if before != Kept::Gone(RELEASED.to_owned()) {
                        // The other end keeps a block that this one never confirms.
                        tracing::error!(%transfer, "a key cannot be released: its share is not in the store");
                    }
                    return self.released(transfers).await;
                }
            }
        }
        let paths: Vec<&Path> = entries.iter().map(|entry| &entry.about.path).collect();
        let pool = paths.first().and_then(|path| self.pools.get(path.target().as_str()));
        let Some(pool) = pool else { return self.released(transfers).await };
        let span = self.tracer.span(span::RELAY).parent_from(traceparent);
        let span = span.attribute(attribute::GROUP_ID, group.to_string()).start();
        let keys: Vec<Secret> = entries.iter().map(|entry| entry.key.clone()).collect();
        self.offer(&pool, group, &keys, &paths, span_bytes(&span.context())).await?;
        self.released(transfers).await
    }

    /// Erases the shares; the block is durable already, or there is nothing to make it of.
    async fn released(&self, transfers: &[TransferId]) -> Result<Outcome, Failure> {
        for transfer in transfers {
            self.origin.erase(*transfer, RELEASED).await?;
            shell::failpoint::hit("share.released");
        }
        Ok(Outcome::Done)
    }

    pub(super) async fn void(&self, group: TransferId, transfers: &[TransferId]) -> Result<Outcome, Failure> {
        let mut voided = Vec::with_capacity(transfers.len());
        for transfer in transfers {
            voided.push((*transfer, self.void_one(group, *transfer).await?));
        }
        Ok(Outcome::Voided(voided))
    }

    /// False where it is key already.
    async fn void_one(&self, group: TransferId, transfer: TransferId) -> Result<bool, Failure> {
        match self.origin.status(transfer).await? {
            Kept::Held => {
                self.origin.erase(transfer, VOID).await?;
                return Ok(true);
            }
            Kept::Gone(why) => return Ok(why != RELEASED),
            Kept::Never => {}
        }
        match self.target.status(transfer).await? {
            Kept::Held => {}
            Kept::Gone(why) => return Ok(why != SETTLED),
            Kept::Never => {
                self.never_seen(transfer);
                return Ok(true);
            }
        }
        if let Some(entry) = self.target.get(transfer).await?
            && let Some(pool) = self.pools.get(entry.about.path.origin().as_str())
        {
            match pool.store.quarantine(&pool.peer, group.0, "the transfer was voided").await {
                Ok(BlockStatus::Confirmed { .. }) | Err(StoreError::BlockConflict { .. }) => return Ok(false),
                Ok(_) | Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.target.erase(transfer, VOID).await?;
        self.scatter(group, transfer);
        Ok(true)
    }

    pub(super) async fn settle(&self, group: TransferId, transfer: TransferId) -> Result<Outcome, Failure> {
        match self.between.status(transfer).await? {
            Kept::Held => self.between.erase(transfer, SETTLED).await?,
            Kept::Gone(_) => {}
            Kept::Never => match self.target.status(transfer).await? {
                Kept::Held => {
                    // The share goes only when the pool has the key.
                    self.offer_gathered(group).await?;
                    self.target.erase(transfer, SETTLED).await?;
                    self.scatter(group, transfer);
                }
                Kept::Gone(_) => {}
                Kept::Never => self.never_seen(transfer),
            },
        }
        Ok(Outcome::Done)
    }

    /// Offers what a full pool did not take.
    pub(super) async fn offer_late(&self) -> Result<(), Failure> {
        let late = |(group, gathering): (&TransferId, &Gathering)| {
            (gathering.is_whole() && !gathering.offered).then_some(*group)
        };
        let groups: Vec<TransferId> = self.state().groups.iter().filter_map(late).collect();
        for group in groups {
            match self.offer_gathered(group).await {
                Err(Failure::Store(StoreError::PoolFull { .. } | StoreError::Busy)) | Ok(()) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Erases what nobody has spoken of for very long.
    pub(super) async fn tidy(&self) -> Result<(), Failure> {
        for vault in [&self.origin, &self.between, &self.target] {
            for transfer in vault.all().await? {
                let Some(entry) = vault.get(transfer).await? else { continue };
                if entry.about.since_ms.saturating_add(KEPT_MS_MAX) < crate::now_ms() {
                    vault.erase(transfer, "expired").await?;
                    self.scatter(entry.about.group, transfer);
                }
            }
        }
        Ok(())
    }
}

/// The exclusive or of all shares: without one of them nothing is known of the key.
fn combined(shares: &[Secret]) -> Secret {
    let mut sum = vec![0; shares.iter().map(Secret::len).max().unwrap_or_default()];
    for share in shares {
        sum.iter_mut().zip(share.expose()).for_each(|(sum, byte)| *sum ^= byte);
    }
    Secret::new(sum)
}

/// Where the block came from, as its pool remembers it. All paths, unless they are too long to be remembered.
pub(super) fn origin(group: TransferId, paths: &[&Path]) -> String {
    let mut origin = json!({"kind": "relay", "group": group.to_string(), "path": paths.first(), "shares": paths.len()});
    let short = origin.to_string();
    if let Some(fields) = origin.as_object_mut().filter(|_| paths.len() > 1) {
        fields.insert("paths".to_owned(), json!(paths));
    }
    Some(origin.to_string()).filter(|long| long.len() <= keystore::ORIGIN_BYTES_MAX).unwrap_or(short)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use transfer::SiteName;

    use super::*;

    fn path(sites: &[&str]) -> Path {
        Path::new(sites.iter().map(|site| SiteName::parse(site).unwrap()).collect()).unwrap()
    }

    #[test]
    fn a_key_is_the_exclusive_or_of_its_shares() {
        let shares = [[1, 2, 3], [7, 7, 7], [9, 0, 4]].map(|share| Secret::copy_of(&share));
        assert_eq!(combined(&shares).expose(), [15, 5, 0]);
    }

    #[test]
    fn an_origin_names_every_path_that_fits() {
        let (one, two) = (path(&["a", "b", "d"]), path(&["a", "c", "d"]));
        let text = origin(TransferId([0xab; 16]), &[&one]);
        assert!(text.contains(r#""kind":"relay""#) && text.contains(r#""path":["a","b","d"]"#), "{text}");
        assert!(text.contains(&"ab".repeat(16)) && text.contains(r#""shares":1"#) && !text.contains("paths"), "{text}");
        assert!(origin(TransferId([1; 16]), &[&one, &two]).contains(r#""paths":[["a","b","d"],["a","c","d"]]"#));
        let names: Vec<String> = (0..17).map(|at| format!("{at:0>60}")).collect();
        let long = path(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(origin(TransferId([1; 16]), &[&long, &long]).len() <= keystore::ORIGIN_BYTES_MAX);
    }
}
