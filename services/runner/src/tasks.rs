//! Every service as a task of this process; they exchange the same messages as processes do, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use detector::{Clicks, Origin, Recorder};
use futures::future::BoxFuture;
use module::light::SourceLink;
use module::recording::Sessions;
use module::vault::Vault;
use module::{Delivery, Monitor, Node};
use proto::channel::v1::{ChannelMessage, ModuleMessage};
use proto::source::v1::{AnalyserUpdate, PhotonEpoch};
use shell::dial::{Dial, Door, MemoryDial};
use shell::fault::Desk;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{
    CONTROL_IDENTITY, ChannelConfig, DetectorConfig, ModuleConfig, ServiceConfig, SourceConfig, TransmitterConfig,
};
use transmitter::Pulses;

use super::anchors::Anchors;
use super::faults::Desks;
use super::life::{Life, Serving};
use super::roster::Roster;
use super::{End, Held, Running, Start, keys, pace};

/// Streams that may wait to be taken up by a service.
const STREAMS_WAITING: usize = 4;

/// What one service hands to those that connect to it.
#[derive(Default)]
struct Doors {
    sources: BTreeMap<String, SourceLink>,
    channels: BTreeMap<String, Arc<dyn Dial<ModuleMessage, ChannelMessage>>>,
}

pub async fn start(start: &Start<'_>, held: Held) -> Result<Running> {
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut doors = Doors::default();
    let (mut nodes, mut others) = (JoinSet::new(), JoinSet::new());
    let desks = Desks::open(start.plan)?;
    keys::prepare_certificates(start, &desks.names(start.plan))?;
    let faults = desks.serve(start, &stop, &mut others).await?;
    let pace = pace::start(start, &desks, &mut others, &stop).await?;
    match &start.replay {
        None => start_sources(start, &desks, (&mut doors, pace.as_ref()), &mut others, (&drain, &stop)).await?,
        Some(replay) => replay.end_with(&drain),
    }
    start_channels(start, &desks, &mut doors, &mut others, &stop).await?;
    let (keys, stores) = keys::start(start, &desks, &mut others, &stop).await?;
    let relays = keys::start_relays(start, &desks, &keys, &mut others, &stop).await?;
    let roster = start.plan.faults_allowed.then(|| Roster::of(start.plan, start.folders, |_| CONTROL_IDENTITY));
    let mut ends = Vec::new();
    for service in &start.plan.services {
        let Some(config) = service.config.module() else { continue };
        let monitor = Arc::new(Monitor::new(module::initial_status(config)));
        ends.push(End::new(config, monitor.clone()));
        let instrument = Instrument::of(start, &service.config, &doors)?;
        let mut parts = parts(start, config, instrument, &doors, &keys, monitor, desks.get(&config.name))?;
        let desk = parts.faults.clone();
        let begin = move |life| parts.begin(life);
        nodes.spawn(Life::start(&config.name, desk, &stop, begin).await?.keep());
    }
    let pacer = pace.map(|pace| pace.monitor);
    Ok(Running { ends, stores, relays, pacer, drain, stop, nodes, others, faults, roster, held })
}

async fn start_sources(
    start: &Start<'_>,
    desks: &Desks,
    (doors, pace): (&mut Doors, Option<&pace::Here>),
    tasks: &mut JoinSet<Result<()>>,
    (drain, stop): (&CancellationToken, &CancellationToken),
) -> Result<()> {
    for config in start.plan.sources() {
        let door = Door::new(STREAMS_WAITING);
        let dial = MemoryDial::<AnalyserUpdate, PhotonEpoch>::through(door.clone(), source::EPOCHS_IN_FLIGHT);
        doors.sources.insert(config.name.clone(), Arc::new(dial));
        let (status, desk) = (Arc::new(source::Status::default()), desks.get(&config.name));
        let (service, faults): (SourceConfig, _) = (config.clone(), desk.clone());
        let pacer = pace.map(|pace| pace.dial(config));
        let begin = move |life: CancellationToken| -> BoxFuture<'static, Result<Serving>> {
            let losses = source::Losses::of(&service);
            let told = (status.clone(), faults.clone());
            let run = source::run(service.clone(), losses, door.open(), pacer.clone(), told, life);
            let run: Serving = Box::pin(run);
            Box::pin(async { Ok(run) })
        };
        let (life, stop) = (Life::start(&config.name, desk, drain, begin).await?, stop.clone());
        tasks.spawn(async move {
            // A source whose light has ended waits for outputs to tell them; when all is over none will come.
            tokio::select! {
                kept = life.keep() => kept,
                () = stop.cancelled() => Ok(()),
            }
        });
    }
    Ok(())
}

async fn start_channels(
    start: &Start<'_>,
    desks: &Desks,
    doors: &mut Doors,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let peers: BTreeMap<String, Door<channel::PeerStream>> =
        start.plan.channels().map(|config| (config.name.clone(), Door::new(STREAMS_WAITING))).collect();
    for config in start.plan.channels() {
        let modules: Door<channel::ModuleStream> = Door::new(STREAMS_WAITING);
        let dial = MemoryDial::through(modules.clone(), channel::BUNDLES_IN_FLIGHT);
        doors.channels.insert(config.name.clone(), Arc::new(dial));
        let incoming = peers.get(&config.name).context("a channel is not planned")?.clone();
        let door = peers.get(&config.peer).context("a channel's peer is not planned")?.clone();
        let peer: Arc<dyn Dial<_, _>> = Arc::new(MemoryDial::through(door, channel::BUNDLES_IN_FLIGHT));
        let (service, data): (ChannelConfig, _) = (config.clone(), start.folders.data.clone());
        let desk = desks.get(&config.name);
        let (faults, anchors) = (desk.clone(), start.anchors.clone());
        let begin = move |life: CancellationToken| -> BoxFuture<'static, Result<Serving>> {
            let (service, data, faults, anchors) = (service.clone(), data.clone(), faults.clone(), anchors.clone());
            let (modules, incoming, peer) = (modules.clone(), incoming.clone(), peer.clone());
            Box::pin(async move {
                let open = move || channel::open(&service, &data, faults, anchors.open()?);
                let opened = tokio::task::spawn_blocking(open).await.context("open a channel")??;
                let run: Serving = Box::pin(channel::run(opened, modules.open(), incoming.open(), peer, life));
                Ok(run)
            })
        };
        tasks.spawn(Life::start(&config.name, desk, stop, begin).await?.keep());
    }
    Ok(())
}

/// What an end of a link is made of, each time that it starts.
struct Parts {
    config: ModuleConfig,
    data: std::path::PathBuf,
    instrument: Instrument,
    channel: Arc<dyn Dial<ModuleMessage, ChannelMessage>>,
    delivery: Option<module::KmsDial>,
    anchors: Anchors,
    monitor: Arc<Monitor>,
    faults: Option<Desk>,
}

/// What stands before the module.
enum Instrument {
    Detector {
        config: Box<DetectorConfig>,
        origin: Origin,
        /// For its first life: a node that starts again has lost the beginning.
        recorder: Option<Recorder>,
    },
    Transmitter {
        config: Box<TransmitterConfig>,
        origin: transmitter::Origin,
        recorder: Option<Sessions>,
    },
}

impl Instrument {
    fn of(start: &Start<'_>, config: &ServiceConfig, doors: &Doors) -> Result<Self> {
        let source =
            |module: &ModuleConfig| doors.sources.get(&module.source).context("a source is not planned").cloned();
        match config {
            ServiceConfig::Detector(config) => {
                let origin = match &start.replay {
                    Some(replay) => Origin::Recording(replay.of(&config.module.site)?),
                    None => Origin::Source(source(&config.module)?),
                };
                let recorder = start.recording.as_ref().map(|recording| recording.recorder(config)).transpose()?;
                Ok(Self::Detector { config: config.clone(), origin, recorder })
            }
            ServiceConfig::Transmitter(config) => {
                let origin = match &start.replay {
                    Some(replay) => transmitter::Origin::Recording(replay.pulses()?),
                    None => transmitter::Origin::Source(source(&config.module)?),
                };
                let recorder = start.recording.as_ref().map(|recording| recording.choices(config)).transpose()?;
                Ok(Self::Transmitter { config: config.clone(), origin, recorder })
            }
            other => bail!("a {} has no module", other.kind()),
        }
    }

    fn light(&mut self, faults: Option<&Desk>) -> Result<Box<dyn module::Light>> {
        match self {
            Self::Detector { config, origin, recorder } => {
                Ok(Box::new(Clicks::new(config, origin.clone(), recorder.take(), faults.cloned())?))
            }
            Self::Transmitter { config, origin, recorder } => {
                Ok(Box::new(Pulses::new(config, origin.clone(), recorder.take())?))
            }
        }
    }
}

fn parts(
    start: &Start<'_>,
    config: &ModuleConfig,
    instrument: Instrument,
    doors: &Doors,
    keys: &keys::Doors,
    monitor: Arc<Monitor>,
    faults: Option<Desk>,
) -> Result<Parts> {
    let channel = doors.channels.get(&config.channel).context("a channel is not planned")?.clone();
    let delivery = match &config.kms {
        Some(kms) => Some(keys.modules.get(kms).context("a key store is not planned")?.clone()),
        None => None,
    };
    let (config, data) = (config.clone(), start.folders.data.clone());
    let anchors = start.anchors.clone();
    Ok(Parts { config, data, instrument, channel, delivery, anchors, monitor, faults })
}

impl Parts {
    fn begin(&mut self, life: CancellationToken) -> BoxFuture<'static, Result<Serving>> {
        let node = self.node(&life);
        Box::pin(async move {
            let run: Serving = Box::pin(module::run(node?, life));
            Ok(run)
        })
    }

    fn node(&mut self, life: &CancellationToken) -> Result<Node> {
        let config = self.config.clone();
        let mut vault = Vault::open(&self.data, None, &config.site, &config.link, module::disk(self.faults.as_ref()))?;
        let delivery = match &self.delivery {
            Some(dial) => Some(Delivery::start(dial.clone(), &mut vault, self.anchors.open()?, life.clone())?),
            None => None,
        };
        Ok(Node {
            config,
            light: self.instrument.light(self.faults.as_ref())?,
            channel: self.channel.clone(),
            vault,
            monitor: self.monitor.clone(),
            delivery,
            light_over: false,
            faults: self.faults.clone(),
        })
    }
}
