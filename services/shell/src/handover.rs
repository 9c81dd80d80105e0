//! Blocks on their way from a module to the key store of its site, each sealed ([`crate::sealing`]).

use anyhow::{Context as _, Result, bail};
use proto::kms::v1::deliver_answer::What;
use proto::kms::v1::{Block, BlockTaken, DeliverAnswer, SealTo};
use zeroize::Zeroizing;

use crate::Duplex;
use crate::duplex::Closed;
use crate::sealing::{Chain, KeyPair};

/// The module's end of a stream.
pub struct Handover {
    stream: Duplex<Block, DeliverAnswer>,
    chain: Chain,
    /// Until the first block has gone.
    public_key: Vec<u8>,
}

impl Handover {
    /// Waits until the store has said for which key the blocks are to be sealed.
    pub async fn open(mut stream: Duplex<Block, DeliverAnswer>) -> Result<Self> {
        let Some(What::SealTo(SealTo { public_key })) = stream.receive().await.and_then(|answer| answer.what) else {
            bail!("the key store has not said for which key it wants blocks sealed");
        };
        let pair = KeyPair::generate()?;
        let ours = pair.public_key().to_vec();
        Ok(Self { stream, chain: pair.send_to(&public_key)?, public_key: ours })
    }

    /// Sends a block of which everything but the key is given.
    pub async fn send(&mut self, about: Block, key: &[u8]) -> Result<()> {
        let sealed = self.chain.seal(&binding(&about), key)?.into();
        let block = Block { sealed, public_key: std::mem::take(&mut self.public_key).into(), ..about };
        self.stream.send(block).await.ok().context("the key store has gone")
    }

    /// Number of the next block that is durable in the store. May be dropped and called again.
    pub async fn taken(&mut self) -> Result<u64> {
        match self.stream.receive().await.context("the key store has gone")?.what {
            Some(What::Taken(BlockTaken { number })) => Ok(number),
            _ => bail!("the key store has answered something that is no answer to a block"),
        }
    }
}

/// The store's end of a stream.
pub struct Intake {
    stream: Duplex<DeliverAnswer, Block>,
    state: State,
}

enum State {
    /// Nothing has come yet.
    Offered(KeyPair),
    Agreed(Chain),
    Failed,
}

impl Intake {
    pub async fn open(stream: Duplex<DeliverAnswer, Block>) -> Result<Self> {
        let pair = KeyPair::generate()?;
        let what = Some(What::SealTo(SealTo { public_key: pair.public_key().to_vec().into() }));
        // A module that has gone already ends the stream, too.
        let _ = stream.send(DeliverAnswer { what }).await;
        Ok(Self { stream, state: State::Offered(pair) })
    }

    /// The next block and its key; `None` when the module has left. May be dropped and called again.
    pub async fn receive(&mut self) -> Result<Option<(Block, Zeroizing<Vec<u8>>)>> {
        let Some(block) = self.stream.receive().await else { return Ok(None) };
        let mut chain = match std::mem::replace(&mut self.state, State::Failed) {
            State::Offered(pair) => pair.receive_from(&block.public_key)?,
            State::Agreed(chain) => chain,
            State::Failed => bail!("a block came after one that did not open"),
        };
        let key =
            chain.open(&binding(&block), &block.sealed).with_context(|| format!("open block {}", block.number))?;
        self.state = State::Agreed(chain);
        Ok(Some((block, key)))
    }

    /// Says that a block is durable.
    pub async fn taken(&self, number: u64) -> Result<(), Closed> {
        self.stream.send(DeliverAnswer { what: Some(What::Taken(BlockTaken { number })) }).await
    }
}

/// What the key of a block must not be separated from.
fn binding(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40 + block.link.len());
    bytes.extend_from_slice(&block.number.to_le_bytes());
    bytes.extend_from_slice(&block.key_bits.to_le_bytes());
    bytes.extend_from_slice(&(block.id.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&block.id);
    bytes.extend_from_slice(block.link.as_bytes());
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn about(number: u64) -> Block {
        Block { link: "a-b".to_owned(), number, id: vec![3; 16].into(), key_bits: 40, ..Block::default() }
    }

    #[tokio::test]
    async fn blocks_arrive_in_order_with_their_key_and_are_answered() {
        let (module, store) = Duplex::pair(4);
        let (handover, intake) = tokio::join!(Handover::open(module), Intake::open(store));
        let (mut handover, mut intake) = (handover.unwrap(), intake.unwrap());
        for number in 0..3 {
            handover.send(about(number), &[number as u8; 5]).await.unwrap();
        }
        for number in 0..3 {
            let (block, key) = intake.receive().await.unwrap().unwrap();
            assert_eq!((block.number, &key[..]), (number, &[number as u8; 5][..]));
            intake.taken(number).await.unwrap();
            assert_eq!(handover.taken().await.unwrap(), number);
        }
        drop(handover);
        assert!(intake.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_block_that_was_not_sealed_for_this_stream_ends_it() {
        for spoil in [
            (|block: &mut Block| block.public_key = Default::default()) as fn(&mut Block),
            |block| block.number += 1,
            |block| block.sealed = vec![0; 21].into(),
        ] {
            let (module, store) = Duplex::pair(4);
            let (middle, relayed) = Duplex::pair(4);
            let (handover, intake) = tokio::join!(Handover::open(module), async {
                let intake = Intake::open(relayed).await.unwrap();
                let mut middle: Duplex<Block, DeliverAnswer> = middle;
                store.send(middle.receive().await.unwrap()).await.unwrap();
                (intake, middle, store)
            });
            let (mut handover, (mut intake, middle, mut store)) = (handover.unwrap(), intake);
            for number in 0..2 {
                handover.send(about(number), b"12345").await.unwrap();
                let mut block: Block = store.receive().await.unwrap();
                if number == 0 {
                    spoil(&mut block);
                }
                middle.send(block).await.unwrap();
            }
            assert!(intake.receive().await.is_err());
            assert!(intake.receive().await.is_err(), "nothing behind it is taken");
        }
    }
}
