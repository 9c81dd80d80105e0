//! Telling of keys that were handed out: spans that say of which blocks each is made, and by which ways relayed ones came.

use keystore::{Drawn, OriginPiece, Use};
use serde_json::Value;
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;

use crate::deliveries::{Deliveries, RelayedKey, RelayedPiece};
use crate::key_id;
use crate::pair::Pool;
use etsi014::supply::{SaeId, SuppliedKey};

/// Links of one span, as OpenTelemetry limits them.
const LINKS_MAX: usize = 32;
/// Where a key is made for several slaves, or for a slave of the same site.
const RANDOM: &str = "random bits of the master's key store";

/// Keys that were handed out.
pub(crate) struct Told<'a> {
    pub master: &'a SaeId,
    pub slave: &'a SaeId,
    pub keys: &'a [SuppliedKey],
    /// Where in a pool each of them started.
    pub pool: Option<(&'a Pool, &'a [u64])>,
}

impl Told<'_> {
    /// What a key is made of; nothing where that is not known any more.
    async fn pieces(&self, index: usize) -> Vec<OriginPiece> {
        let Some((pool, places)) = self.pool else { return Vec::new() };
        let (Some(start), Some(supplied)) = (places.get(index), self.keys.get(index)) else { return Vec::new() };
        origins(pool, pool.levels().generation, *start, supplied.key.len() as u64).await
    }

    /// The same in words, for every bit of the key.
    fn describe(&self, index: usize, pieces: &[OriginPiece]) -> Vec<String> {
        let start = self.pool.and_then(|(_, places)| places.get(index)).copied().unwrap_or(0);
        let bits = self.keys.get(index).map_or(0, |supplied| supplied.key.len_bits());
        match self.pool {
            None => vec![format!("bits 0..{bits}: {RANDOM}")],
            Some(_) => describe(pieces, start),
        }
    }
}

/// Which bytes of a pool's stream are used from now on, for a log: their blocks and places, no key.
pub(crate) fn drawn(pool: &Pool, use_: Use, keys: &[Drawn]) {
    if !tracing::enabled!(target: "kms::drawn", tracing::Level::TRACE) {
        return;
    }
    for Drawn { generation, start, key, origins } in keys {
        let (site, peer, bytes) = (pool.site.as_str(), pool.peer.as_str(), key.len());
        let blocks = origins.iter().map(|origin| format!("{:032x}", u128::from_be_bytes(origin.block_id)));
        let blocks = blocks.collect::<Vec<_>>().join("+");
        tracing::trace!(target: "kms::drawn", site, peer, generation, blocks, purpose = ?use_, start, bytes);
    }
}

/// Where bytes of a pool are from; nothing where that is not known any more.
pub(crate) async fn origins(pool: &Pool, generation: u32, start: u64, bytes: u64) -> Vec<OriginPiece> {
    pool.origins(generation, start, bytes).await
}

/// Pieces in words: which bits, counted from `start`, are from where.
pub(crate) fn describe(pieces: &[OriginPiece], start: u64) -> Vec<String> {
    pieces
        .iter()
        .map(|piece| {
            let first = piece.start.saturating_sub(start) * 8;
            format!("bits {first}..{}: {}", first + piece.bytes * 8, origin(piece))
        })
        .collect()
}

fn origin(piece: &OriginPiece) -> String {
    let origin: Value = serde_json::from_str(&piece.origin).unwrap_or_default();
    match origin["kind"].as_str() {
        Some("link") => {
            let link = origin["link"].as_str().unwrap_or_default();
            format!("link {link} block {} epoch {}", origin["block"], origin["epoch"])
        }
        Some("relay") => {
            let sites = origin["path"].as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("relayed {}", sites.collect::<Vec<_>>().join(" > "))
        }
        _ => "unknown".to_owned(),
    }
}

/// Tells for one key store.
pub(crate) struct Teller {
    site: String,
    tracer: Tracer,
    deliveries: Deliveries,
}

impl Teller {
    pub fn new(service: &str, site: &str, deliveries: Deliveries) -> Self {
        Self { site: site.to_owned(), tracer: Tracer::new(service), deliveries }
    }

    /// A span per request, and below it one per key, linked to the blocks that the key is made of.
    pub async fn tell(&self, name: &'static str, told: &Told<'_>) {
        let mut request = self
            .tracer
            .span(name)
            .attribute(attribute::SITE_ID, self.site.as_str())
            .attribute(attribute::SAE_MASTER, told.master.as_str())
            .attribute(attribute::SAE_SLAVE, told.slave.as_str())
            .attribute(attribute::KEY_COUNT, told.keys.len())
            .attribute(attribute::KEY_BITS, told.keys.iter().map(|key| key.key.len_bits()).sum::<u64>());
        if let Some((pool, _)) = told.pool {
            request = request.attribute(attribute::PEER_SITE, pool.peer.as_str());
        }
        let mut request = request.start();
        if !request.is_recording() {
            return;
        }
        for (index, supplied) in told.keys.iter().enumerate() {
            let pieces = told.pieces(index).await;
            let mut builder = self
                .tracer
                .span(span::KEY)
                .parent(&request.context())
                .attribute(attribute::SITE_ID, self.site.as_str())
                .attribute(attribute::KEY_FINGERPRINT, key_id::fingerprint(&supplied.id))
                .attribute(attribute::KEY_BITS, supplied.key.len_bits());
            for (at, piece) in told.describe(index, &pieces).into_iter().enumerate() {
                builder = builder.attribute(&attribute::numbered(attribute::KEY_PIECE, at), piece);
            }
            for context in pieces.iter().take(LINKS_MAX).filter_map(|piece| crate::ingest::span_context(&piece.span)) {
                builder = builder.link(&context);
            }
            builder.start().end();
        }
        request.succeed();
        request.end();
    }

    /// Writes down by which ways relayed keys came. Where a link joins the sites, those that relays brought no part of
    /// are left out.
    pub async fn note_relayed(&self, told: &Told<'_>) {
        for (index, supplied) in told.keys.iter().enumerate() {
            let Some((pool, _)) = told.pool else { return };
            let pieces: Vec<RelayedPiece> = told.pieces(index).await.iter().filter_map(relayed_piece).collect();
            if pool.adjacent && pieces.is_empty() {
                continue;
            }
            let key = RelayedKey {
                key_id: supplied.id.to_string(),
                master: told.master.to_string(),
                slave: told.slave.to_string(),
                sites: [self.site.clone(), pool.peer.clone()],
                pieces,
            };
            if let Err(error) = self.deliveries.note(&key) {
                tracing::warn!(%error, "cannot write down by which way a key came");
            }
        }
    }
}

fn relayed_piece(piece: &OriginPiece) -> Option<RelayedPiece> {
    let origin: Value = serde_json::from_str(&piece.origin).ok()?;
    let path = origin["path"].as_array()?.iter().filter_map(|site| site.as_str().map(str::to_owned)).collect();
    let shares = origin["shares"].as_u64().and_then(|shares| u32::try_from(shares).ok()).unwrap_or(1);
    Some(RelayedPiece { bits: piece.bytes * 8, path, shares })
}

#[cfg(test)]
mod tests {
    use keystore::SPAN_BYTES;

    use super::*;

    fn piece(start: u64, bytes: u64, origin: &str) -> OriginPiece {
        OriginPiece { start, bytes, block_id: [0; 16], origin: origin.to_owned(), span: [0; SPAN_BYTES] }
    }

    #[test]
    fn every_bit_of_a_key_is_said_to_be_from_somewhere() {
        let pieces = [
            piece(100, 2, r#"{"kind":"link","link":"a-b","block":7,"epoch":900}"#),
            piece(102, 30, r#"{"kind":"relay","path":["a","b","c"],"shares":1}"#),
            piece(132, 1, "?"),
        ];
        let words = describe(&pieces, 100);
        assert_eq!(
            words,
            ["bits 0..16: link a-b block 7 epoch 900", "bits 16..256: relayed a > b > c", "bits 256..264: unknown"]
        );
    }
}
