//! Both ends meet: they greet each other, agree on where the session starts, and begin its light.

use anyhow::{Context, Result};
use distill::config::LinkProtocol;
use distill::pipeline::{Begun as BegunBlock, Hello, SessionStart, Setpoints, Stretch};
use photonics::random::Subseed;
use proto::channel::v1::{Open, Opened, module_message};
use tokio::sync::mpsc;

use super::{DEPARTURE, Node};
use crate::light::{Beginning, Begun, EpochLight};
use crate::link::Link;

/// Gives up what is kept of a block that was begun under another configuration: evidence of both says nothing together.
pub fn give_up_foreign(node: &mut Node, protocol: &LinkProtocol) -> Result<()> {
    let own = own_hello(node, protocol).protocol;
    if node.vault.stretches().are_of(own) {
        return Ok(());
    }
    node.monitor
        .note("stretches-voided", "the configuration of the link changed: what was sifted of a block is given up");
    node.give_up_stretches(0)
}

/// Says where this end stands and learns where the peer does; nothing where the run is over and the peer gone.
pub async fn greet(node: &mut Node, channel: &mut Link, protocol: &LinkProtocol) -> Result<Option<Opened>> {
    let hello = own_hello(node, protocol).encode_bytes().into();
    channel.send(module_message::Message::Open(Open { hello })).await?;
    // When the run is over and nothing is undecided here, a peer that does not come has ended.
    let over = node.without_light(node.vault.next_epoch()) && node.vault.in_doubt().is_none();
    if !over {
        return channel.opened().await.map(Some);
    }
    match tokio::time::timeout(DEPARTURE, channel.opened()).await {
        Ok(opened) => opened.map(Some),
        Err(_) => Ok(None),
    }
}

fn own_hello(node: &mut Node, protocol: &LinkProtocol) -> Hello {
    let vault = &mut node.vault;
    Hello::new(protocol, vault.next_block(), vault.next_epoch(), vault.committed_end())
        .with_stretches(vault.stretches().offers())
}

/// What both greetings come to.
pub struct Agreed {
    pub start: SessionStart,
    pub first_epoch: u64,
    /// Of a block that was begun before, where either end has begun one; with its reconciliation, where that has begun.
    pub carried: Option<(Vec<Stretch>, Option<BegunBlock>)>,
}

/// Where the session starts, from both greetings; leases the epochs to come.
pub fn agree(node: &mut Node, opened: &Opened, protocol: &LinkProtocol, setpoints: Setpoints) -> Result<Agreed> {
    let peer = Hello::decode_bytes(&opened.peer_hello)?;
    let own = own_hello(node, protocol);
    own.check_peer(&peer)?;
    let (first_block, first_epoch) = own.start(&peer);
    node.vault.session_starts(opened.session, first_block, first_epoch)?;
    let start = SessionStart {
        first_block,
        in_doubt: node.vault.in_doubt(),
        peer_committed_end: peer.committed_end,
        own_committed_end: node.vault.committed_end(),
        latency_steps: node.config.latency_epochs,
        setpoints,
    };
    let stretches = node.vault.stretches();
    let load = |rounds| stretches.load(rounds).map(|kept| (kept, stretches.begun(rounds)));
    let carried = own.carries(&peer).map(load).transpose()?;
    Ok(Agreed { start, first_epoch, carried })
}

/// The network went on without this link: the epochs up to the session's first one were dark.
pub fn passed_over(node: &mut Node, asked: u64, first_epoch: u64) -> Result<()> {
    node.vault.lease(first_epoch)?;
    let seconds = |epochs: u64| epochs as f64 * node.config.epoch_ps as f64 * 1e-12;
    let (dark_s, at_s) = (seconds(first_epoch - asked), seconds(first_epoch));
    node.monitor.note("passed-over", &format!("the network went on for {dark_s:.2} s: begins at {at_s:.2} s"));
    Ok(())
}

/// Begins the session's light.
pub async fn begin(node: &mut Node, session: u64, first_epoch: u64, setpoints: Setpoints) -> Result<Begun> {
    if node.without_light(first_epoch) {
        let (tx, rx) = mpsc::channel(1);
        tx.try_send(Ok(EpochLight::end(first_epoch))).ok().context("end a run without light")?;
        return Ok(Begun { first_epoch, epochs: rx });
    }
    let latency_epochs = node.config.latency_epochs;
    node.light.begin(Beginning { session, first_epoch, setpoints, latency_epochs }).await
}

/// A session's own randomness: no session draws what another one drew.
pub fn session_seed(module: &Subseed, first_epoch: u64) -> [u8; 32] {
    // A first epoch is never used twice, also not after a kill.
    *module.derive(&format!("session from epoch {first_epoch}")).bytes()
}
