//! Keys of several slaves (multicast): made at the master's site, brought to the others under one-time pad, and kept
//! under their IDs until every slave has taken them.

use anyhow::{Context, Result, bail};
use keystore::{Deposit, Secret, Use};
use proto::kms::v1::{Share, ShareTaken};
use tokio::sync::oneshot;

use crate::pair::{Pool, ShareOut};
use crate::seal::{self, Sealed};
use etsi014::supply::SaeId;

const ORIGIN: &str = r#"{"kind":"multicast"}"#;

/// A key for several slaves.
pub struct Multicast<'a> {
    pub key_id: [u8; 16],
    pub key: &'a Secret,
    pub master: &'a SaeId,
    pub slaves: Vec<String>,
    pub expires_ms: u64,
}

impl Multicast<'_> {
    /// Keeps the key for slaves of this site.
    pub fn deposit(&self) -> Deposit {
        Deposit {
            key_id: self.key_id,
            key: self.key.clone(),
            master: self.master.to_string(),
            slaves: self.slaves.clone(),
            expires_ms: self.expires_ms,
            origin: ORIGIN.to_owned(),
        }
    }

    /// Brings the key to the slaves' site, and waits until it is durable there.
    pub async fn send(&self, pool: &Pool) -> Result<()> {
        let sealed = seal::seal(pool, Use::SupplyOut, self.key, &self.context(&self.slaves)).await?;
        let share = Share {
            key_id: self.key_id.to_vec().into(),
            master_sae: self.master.to_string(),
            slave_saes: self.slaves.clone(),
            generation: sealed.generation,
            start: sealed.start,
            sealed: sealed.bytes.into(),
            tag: sealed.tag.to_vec().into(),
            nonce: sealed.nonce.to_vec().into(),
        };
        let (taken, answer) = oneshot::channel();
        pool.shares.send(ShareOut { share, taken }).await.ok().context("the pair's dialogue has ended")?;
        if answer.await.context("the peer has gone")? { Ok(()) } else { bail!("the peer did not take the key") }
    }

    fn context(&self, slaves: &[String]) -> Vec<u8> {
        context(&self.key_id, self.master.as_str(), slaves)
    }
}

/// What the tag covers beside the key.
fn context(key_id: &[u8], master: &str, slaves: &[String]) -> Vec<u8> {
    let mut context = key_id.to_vec();
    for name in std::iter::once(master).chain(slaves.iter().map(String::as_str)) {
        context.extend_from_slice(&(name.len() as u64).to_le_bytes());
        context.extend_from_slice(name.as_bytes());
    }
    context
}

/// Takes a share that the peer sent.
pub async fn take(pool: &Pool, share: Share) -> ShareTaken {
    let key_id = share.key_id.clone();
    let taken = match try_take(pool, share).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(peer = pool.peer, "a shared key was not taken: {}", shell::chain(&error));
            false
        }
    };
    ShareTaken { key_id, taken }
}

async fn try_take(pool: &Pool, share: Share) -> Result<()> {
    let key_id: [u8; 16] = share.key_id.as_ref().try_into().ok().context("a key ID has 16 bytes")?;
    let context = context(&key_id, &share.master_sae, &share.slave_saes);
    let sealed = Sealed {
        generation: share.generation,
        start: share.start,
        bytes: share.sealed.to_vec(),
        tag: share.tag.as_ref().try_into().ok().context("a tag has 16 bytes")?,
        nonce: share.nonce.as_ref().try_into().ok().context("a nonce has 16 bytes")?,
    };
    let key = seal::open(pool, Use::SupplyIn, &sealed, &context).await?;
    let deposit = Deposit {
        key_id,
        key,
        master: share.master_sae,
        slaves: share.slave_saes,
        expires_ms: crate::now_ms() + pool.retention_ms,
        origin: ORIGIN.to_owned(),
    };
    pool.store.deposit(deposit).await.context("keep the key")?;
    Ok(())
}
