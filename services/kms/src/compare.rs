//! Whether the key stores of two sites agree, bit for bit: for those who have both folders at hand and no network that
//! runs on them. No key is told: what is compared are HMACs under the secret that only the two stores have.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use keystore::{KeyStore, Levels, Secret, Settings, StoreError};
use shell::disk::Disk;

use crate::master;
use crate::pair::META_SECRET;

/// What one site holds of a pool: equal in its last three at both sites where they agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDigest {
    pub site: String,
    pub peer: String,
    pub generation: u32,
    /// Everything that either site may still hand out or assign.
    pub bits: u64,
    pub hmac_sha256: [u8; 32],
}

/// Digests of every pool of which both sites have their store below `data`, one row for each site.
pub fn pools(data: &Path) -> Result<Vec<PoolDigest>> {
    let mut stores = BTreeMap::new();
    for entry in std::fs::read_dir(data).with_context(|| format!("read {}", data.display()))? {
        let Ok(site) = entry.context("read a folder")?.file_name().into_string() else { continue };
        let folder = keystore::folder(data, &site);
        if master::path(data, &site).is_file() {
            let store = master::open_store(&folder, &Settings::default(), &Disk::default());
            stores.insert(site.clone(), store.with_context(|| format!("open the key store of {site}"))?);
        }
    }
    let mut rows = Vec::new();
    for (site, store) in &stores {
        let peers = store.pools().into_iter().filter(|peer| peer > site);
        for peer in peers {
            if let Some(other) = stores.get(&peer).filter(|other| other.pools().contains(site)) {
                rows.extend(pair((site, store), (&peer, other))?);
            }
        }
    }
    Ok(rows)
}

fn pair((site, store): (&String, &KeyStore), (peer, other): (&String, &KeyStore)) -> Result<[PoolDigest; 2]> {
    let secret = store.meta_get(peer, META_SECRET).wait().context("read the ID secret")?.unwrap_or_default();
    let mut ranges = store.held(peer).wait().context("look at a pool")?;
    ranges.extend(other.held(site).wait().context("look at a pool")?);
    let ranges = union(ranges);
    let row = |store: &KeyStore, site: &String, peer: &String| -> Result<PoolDigest> {
        let Levels { generation, .. } = store.levels(peer)?;
        let digest = digest(store, peer, generation, &ranges, &secret).context("digest a pool")?;
        let (bits, hmac_sha256) = (8 * digest.bytes, digest.hmac_sha256);
        Ok(PoolDigest { site: site.clone(), peer: peer.clone(), generation, bits, hmac_sha256 })
    };
    Ok([row(store, site, peer)?, row(other, peer, site)?])
}

fn digest(
    store: &KeyStore,
    peer: &str,
    generation: u32,
    ranges: &[(u64, u64)],
    secret: &Secret,
) -> Result<keystore::StreamDigest, StoreError> {
    store.digest(peer, generation, ranges, secret).wait()
}

/// The same bytes, none named twice.
fn union(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (start, bytes) in ranges {
        let end = start + bytes;
        match merged.last_mut().filter(|(before, length)| before + *length >= start) {
            Some((before, length)) => *length = (*length).max(end - *before),
            None => merged.push((start, bytes)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_where_they_touch() {
        assert_eq!(union(vec![(10, 5), (0, 4), (4, 2), (12, 1), (14, 6)]), [(0, 6), (10, 10)]);
        assert_eq!(union(Vec::new()), []);
    }
}
