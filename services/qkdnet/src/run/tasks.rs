//! Every service as a task of this process; they exchange the same messages as processes do, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use detector::vault::Vault;
use detector::{Delivery, Light, Links, Monitor, Node, Recorder, Seeds};
use proto::channel::v1::{ChannelMessage, ModuleMessage};
use proto::source::v1::{AnalyserUpdate, PhotonEpoch};
use shell::dial::{Dial, MemoryDial};
use shell::duplex::Duplex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::DetectorConfig;

use super::{End, Held, Recording, Running, Start, keys};

/// Streams that may wait to be taken up by a service.
const STREAMS_WAITING: usize = 4;

/// What one service hands to those that connect to it.
#[derive(Default)]
struct Doors {
    sources: BTreeMap<String, Arc<dyn Dial<AnalyserUpdate, PhotonEpoch>>>,
    channels: BTreeMap<String, Arc<dyn Dial<ModuleMessage, ChannelMessage>>>,
    peers: BTreeMap<String, mpsc::Sender<channel::PeerStream>>,
}

pub async fn start(start: &Start<'_>, held: Held) -> Result<Running> {
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut doors = Doors::default();
    let (mut nodes, mut others) = (JoinSet::new(), JoinSet::new());
    if start.replay.is_empty() {
        start_sources(start, &mut doors, &mut others, &drain);
    }
    start_channels(start, &mut doors, &mut others, &stop)?;
    let names: Vec<String> = start.plan.key_stores().map(|config| config.name.clone()).collect();
    keys::prepare_certificates(start, &names)?;
    let (keys, stores) = keys::start(start, &mut others, &stop).await?;
    keys::start_relays(start, &keys, &mut others, &stop)?;
    let mut ends = Vec::new();
    for config in start.plan.detectors() {
        let node = node(start, config, &doors, &keys, &stop)?;
        ends.push(End { link: config.link.clone(), site: config.site.clone(), monitor: node.monitor.clone() });
        nodes.spawn(detector::run(node, stop.clone()));
    }
    Ok(Running { ends, stores, drain, stop, nodes, others, held })
}

fn start_sources(start: &Start<'_>, doors: &mut Doors, tasks: &mut JoinSet<Result<()>>, drain: &CancellationToken) {
    for config in start.plan.sources() {
        let (outputs_tx, outputs) = mpsc::channel(STREAMS_WAITING);
        let dial = MemoryDial::<AnalyserUpdate, PhotonEpoch>::new(outputs_tx, source::EPOCHS_IN_FLIGHT);
        doors.sources.insert(config.name.clone(), Arc::new(dial));
        let status = Arc::new(source::Status::default());
        tasks.spawn(source::run(config.clone(), outputs, status, drain.clone()));
    }
}

fn start_channels(
    start: &Start<'_>,
    doors: &mut Doors,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut incoming = BTreeMap::new();
    for config in start.plan.channels() {
        let (peers_tx, peers) = mpsc::channel(STREAMS_WAITING);
        doors.peers.insert(config.name.clone(), peers_tx);
        incoming.insert(config.name.clone(), peers);
    }
    for config in start.plan.channels() {
        let (modules_tx, modules) = mpsc::channel::<Duplex<ChannelMessage, ModuleMessage>>(STREAMS_WAITING);
        doors.channels.insert(config.name.clone(), Arc::new(MemoryDial::new(modules_tx, channel::BUNDLES_IN_FLIGHT)));
        let incoming = incoming.remove(&config.name).context("a channel is planned twice")?;
        let dial = doors.peers.get(&config.peer).context("a channel's peer is not planned")?.clone();
        let peer: Arc<dyn Dial<_, _>> = Arc::new(MemoryDial::new(dial, channel::BUNDLES_IN_FLIGHT));
        let endpoint = channel::open(config, &start.folders.data)?;
        tasks.spawn(channel::run(endpoint, modules, incoming, peer, stop.clone()));
    }
    Ok(())
}

fn node(
    start: &Start<'_>,
    config: &DetectorConfig,
    doors: &Doors,
    keys: &keys::Doors,
    stop: &CancellationToken,
) -> Result<Node> {
    let light = match start.replay.get(&config.site) {
        Some(file) => Light::Recording(file.clone()),
        None => Light::Source(doors.sources.get(&config.source).context("a source is not planned")?.clone()),
    };
    let channel = doors.channels.get(&config.channel).context("a channel is not planned")?.clone();
    let recorder = match &start.recording {
        Some(recording) => {
            let path = Recording::path(&recording.folder, &config.link, &config.site);
            Some(Recorder::create(&path, recording.frames, recording.bytes)?)
        }
        None => None,
    };
    let vault = Vault::open(&start.folders.data, &config.site, &config.link)?;
    let delivery = match &config.kms {
        Some(kms) => {
            let dial = keys.modules.get(kms).context("a key store is not planned")?.clone();
            Some(Delivery::start(dial, vault.directory(), stop.clone())?)
        }
        None => None,
    };
    Ok(Node {
        seeds: Seeds::of(config)?,
        links: Links { light, channel },
        vault,
        monitor: Arc::new(Monitor::new(detector::initial_status(config))),
        recorder,
        delivery,
        light_over: false,
        config: config.clone(),
    })
}
