//! A prepared link with all its services as tasks, for tests to spoil one thing at a time.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchor::Unanchored;
use anyhow::Result;
use channel::{BUNDLES_IN_FLIGHT, ModuleStream, PeerStream};
use detector::{Clicks, Origin};
use distill::auth::Frame;
use distill::config::{
    Authentication, Bound, Emission, Framing, Intensity, LinkProtocol, PostProcessing, Reconciliation, Security,
    Sifting, SinglePhotons,
};
use distill::sifting::prepared::config::{self as sifting, Part, Prepared, Search, Sync};
use futures::future::BoxFuture;
use module::light::SourceLink;
use module::store::{BlockStore, KeyDigest};
use module::vault::Vault;
use module::{Monitor, Node};
use photonics::config::{
    Arm, BasisChoice, Clock, Detector, Encoding, GatedAvalanche, Light, PhaseDrift, Polarisation, PreparedAnalyser,
    PreparedDetectors, QuantumDot, Transmitter,
};
use proto::channel::v1::{ChannelMessage, ModuleMessage, PeerFrame};
use proto::source::v1::{AnalyserUpdate, PhotonEpoch};
use shell::dial::{Dial, Door, MemoryDial};
use shell::duplex::Duplex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use topology::plan::{
    ChannelConfig, DetectorConfig, ModuleConfig, Nature, PreparedReceiver, Pulses, Receiver, SecretSeed, SourceConfig,
    Speed, TransmitterConfig,
};
use transmitter::Pulses as TransmitterLight;

pub const LINK: &str = "trinity-cape";
/// Of transmitter and receiver.
pub const SITES: [&str; 2] = ["trinity", "cape"];
/// What hangs waits so long: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(300);

const EPOCH_PS: u64 = 20_000_000_000;
const ROUND_EPOCHS: u64 = 25;
const RESERVE_BITS: u64 = 128 * 60;
const TAGS_PER_HASH_KEY: u64 = 64;

/// The instruments of a link and the seed of its run.
#[derive(Clone)]
pub struct Instruments {
    pub transmitter: Transmitter,
    pub analyser: PreparedAnalyser,
    pub detectors: PreparedDetectors,
    pub emission: Emission,
    pub loss_db: f64,
    pub seed: u8,
    pub epochs: u64,
}

/// Weak pulses with two decoys at 20 MHz.
pub fn decoy(seed: u8) -> Instruments {
    let intensity = |mean_photons, probability| Intensity { mean_photons, probability };
    let intensities = [intensity(0.5, 0.7), intensity(0.1, 0.2), intensity(0.0002, 0.1)];
    let light = intensities
        .map(|of| photonics::config::Intensity { mean_photons: of.mean_photons, probability: of.probability });
    Instruments {
        transmitter: Transmitter {
            repetition_rate_hz: 20e6,
            encoding: Encoding::Polarisation,
            light: Light::Coherent(light.into()),
            z_probability: 0.8,
            intrinsic_error: [0.01; 2],
            pulse_fwhm_ps: 100.0,
            bin_separation_ps: 0.0,
            phase: PhaseDrift::default(),
            preamble_pulses: 1 << 20,
            steps: vec![],
        },
        analyser: PreparedAnalyser {
            encoding: Encoding::Polarisation,
            basis_choice: BasisChoice::Passive,
            z_probability: 0.8,
            error: [0.005; 2],
            bin_separation_ps: 0.0,
            phase: PhaseDrift::default(),
        },
        detectors: PreparedDetectors::FreeRunning(Detector {
            efficiency: 0.8,
            jitter_fwhm_ps: 60.0,
            dark_rate_hz: 100.0,
            dead_time_ps: 20_000.0,
            afterpulse_probability: 0.0,
            afterpulse_decay_ps: 0.0,
            latch_probability: 0.0,
            latch_reset_ps: 0.0,
            tdc_resolution_ps: 4.0,
            skew_ps: [0.0; 4],
        }),
        emission: Emission::TwoDecoys(intensities),
        loss_db: 8.0,
        seed,
        epochs: 100,
    }
}

/// The same with gated detectors behind a modulator: the receiver chooses each pulse's basis.
pub fn gated(seed: u8) -> Instruments {
    let decoy = decoy(seed);
    Instruments {
        analyser: PreparedAnalyser { basis_choice: BasisChoice::Active, ..decoy.analyser },
        detectors: PreparedDetectors::GatedAvalanche(GatedAvalanche {
            efficiency: 0.3,
            jitter_fwhm_ps: 60.0,
            gate_width_ps: 2000.0,
            dark_probability: 1e-6,
            afterpulse_probability: 0.0,
            afterpulse_decay_gates: 10.0,
            hold_off_gates: 0,
            saturation_hz: 0.0,
            tdc_resolution_ps: 4.0,
            skew_ps: [0.0; 4],
        }),
        ..decoy
    }
}

/// A quantum dot at 20 MHz.
pub fn quantum_dot(seed: u8) -> Instruments {
    let (mean_photons, g2) = (0.1, 0.01);
    let decoy = decoy(seed);
    let key_basis_probability = [decoy.transmitter.z_probability, decoy.analyser.z_probability];
    Instruments {
        transmitter: Transmitter {
            light: Light::QuantumDot(QuantumDot { mean_photons, g2, lifetime_ps: 200.0, temporal_filter: None }),
            ..decoy.transmitter
        },
        emission: Emission::SinglePhotons(SinglePhotons { mean_photons, g2, key_basis_probability }),
        ..decoy
    }
}

impl Instruments {
    fn protocol(&self, part: Part) -> LinkProtocol {
        LinkProtocol {
            post_processing: PostProcessing {
                framing: Framing { frame_ps: EPOCH_PS, round_frames: ROUND_EPOCHS },
                reconciliation: Reconciliation { frame_bits: 10_000, initial_qber: 0.03 },
                security: Security {
                    bound: Bound::Asymptotic,
                    epsilon_secrecy: 1e-10,
                    epsilon_correctness: 1e-15,
                    tolerated_qber: 0.11,
                    emission: self.emission,
                },
                authentication: Authentication::new(TAGS_PER_HASH_KEY),
            },
            sifting: Sifting::Prepared(Prepared {
                part,
                period_ps: 1e12 / self.transmitter.repetition_rate_hz,
                encoding: sifting::Encoding::Detectors,
                key_basis: sifting::Basis::Z,
                gate_ps: 2000.0,
                dead_time_ps: self.detectors.dead_time_ps(self.transmitter.repetition_rate_hz),
                preamble_pulses: self.transmitter.preamble_pulses,
                sync: Sync::Photons(Search { reach_ps: 30_000_000_000, frequency: 1e-7 }),
                tracking_interval_ps: 100_000_000_000,
                loops: sifting::Loops::OFF,
            }),
        }
    }

    fn subseed(&self, role: u8) -> Option<SecretSeed> {
        let mut bytes = [self.seed; 32];
        bytes[0] = role;
        Some(SecretSeed::new(bytes))
    }

    fn arm(&self) -> Arm {
        Arm {
            length_km: 10.0,
            loss_db: self.loss_db,
            delay_ps: 50_000_000.0,
            delay_drift_amplitude_ps: 0.0,
            delay_drift_period_s: 86_400.0,
            dispersion_ps_per_nm: 0.0,
            polarisation: Polarisation {
                initial_rad: [0.0; 2],
                drift_amplitude_rad: 0.0,
                drift_period_s: 86_400.0,
                dependent_loss: 0.0,
                steps: vec![],
            },
        }
    }

    fn module(&self, end: usize) -> ModuleConfig {
        let part = [Part::Transmitter, Part::Receiver][end];
        ModuleConfig {
            name: format!("{}-{LINK}-{}", ["transmitter", "detector"][end], SITES[end]),
            link: LINK.to_owned(),
            site: SITES[end].to_owned(),
            peer_site: SITES[1 - end].to_owned(),
            output: end as u32,
            epoch_ps: EPOCH_PS,
            latency_epochs: 8,
            epochs_limit: Some(self.epochs),
            protocol: self.protocol(part),
            blocks_kept: 10_000,
            initial_pump: 1.0,
            subseed: self.subseed(10 + end as u8),
            source: format!("source-{LINK}"),
            channel: format!("channel-{LINK}-{}", SITES[end]),
            kms: None,
            dark_when_full: false,
            faults_allowed: false,
            accepts: vec![],
        }
    }

    fn source(&self) -> SourceConfig {
        SourceConfig {
            name: format!("source-{LINK}"),
            link: LINK.to_owned(),
            site: SITES[0].to_owned(),
            epoch_ps: EPOCH_PS,
            latency_epochs: 8,
            round_epochs: ROUND_EPOCHS,
            speed: Speed::Max,
            epochs_limit: Some(self.epochs),
            subseed: self.subseed(1),
            nature: Nature::Pulses(Box::new(Pulses {
                transmitter: self.transmitter.clone(),
                arm: self.arm(),
                analyser: self.analyser.clone(),
                efficiency: self.detectors.efficiency(),
            })),
            outages: vec![],
            pacing: None,
            faults_allowed: false,
            accepts: [0, 1].map(|end| self.module(end).name).into(),
        }
    }

    fn channel(&self, end: usize) -> ChannelConfig {
        let module = self.module(end);
        ChannelConfig {
            name: module.channel,
            link: module.link,
            site: module.site,
            peer_site: module.peer_site,
            initiates: end == 0,
            peer: self.module(1 - end).channel,
            module: module.name,
            delay_ps: 50_000_000,
            speed: Speed::Max,
            reserve_bits: RESERVE_BITS,
            tags_per_hash_key: TAGS_PER_HASH_KEY,
            faults_allowed: false,
            accepts: vec![],
        }
    }

    fn light(&self, end: usize, source: SourceLink) -> Result<Box<dyn module::Light>> {
        let module = self.module(end);
        Ok(match end {
            0 => {
                let config = TransmitterConfig { module, transmitter: self.transmitter.clone() };
                Box::new(TransmitterLight::new(&config, transmitter::Origin::Source(source), None)?)
            }
            _ => {
                let receiver = PreparedReceiver {
                    detectors: self.detectors.clone(),
                    clock: Clock {
                        offset_ps: 3_000_000.0,
                        frequency_error: 2e-9,
                        frequency_walk_per_sqrt_s: 0.0,
                        phase_walk_ps_per_sqrt_s: 1.0,
                    },
                    analyser: self.analyser.clone(),
                    repetition_rate_hz: self.transmitter.repetition_rate_hz,
                    arm_delay_ps: self.arm().delay_ps,
                };
                let receiver = Receiver::Prepared(receiver);
                let config = DetectorConfig { module, receiver, instrument_subseed: self.subseed(2), outages: vec![] };
                Box::new(Clicks::new(&config, Origin::Source(source), None, None)?)
            }
        })
    }
}

/// A link whose source and channels run; its modules are started one by one.
pub struct Network {
    folder: tempfile::TempDir,
    source: SourceLink,
    channels: [Arc<dyn Dial<ModuleMessage, ChannelMessage>>; 2],
    pub monitors: [Arc<Monitor>; 2],
    /// Frames on the line that are still to be altered.
    pub forge: Arc<Mutex<u64>>,
    stop: CancellationToken,
}

/// A module that runs.
pub type Running = JoinHandle<Result<()>>;

impl Network {
    /// Starts everything but the modules.
    pub fn new(instruments: &Instruments) -> Self {
        println!("seed {}", instruments.seed);
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let forge: Arc<Mutex<u64>> = Arc::default();
        place_secrets(folder.path());
        let door = Door::new(4);
        let source = MemoryDial::<AnalyserUpdate, PhotonEpoch>::through(door.clone(), source::EPOCHS_IN_FLIGHT);
        let (config, status) = (instruments.source(), Arc::new(source::Status::default()));
        let losses = source::Losses::of(&config);
        tokio::spawn(source::run(config, losses, door.open(), None, (status, None), stop.clone()));
        let peers: [Door<PeerStream>; 2] = [Door::new(4), Door::new(4)];
        let channels = [0, 1].map(|end| {
            let modules: Door<ModuleStream> = Door::new(4);
            let dial = MemoryDial::through(modules.clone(), BUNDLES_IN_FLIGHT);
            let peer =
                Forger { line: MemoryDial::through(peers[1 - end].clone(), BUNDLES_IN_FLIGHT), forge: forge.clone() };
            let config = instruments.channel(end);
            let opened = channel::open(&config, folder.path(), None, Arc::new(Unanchored)).unwrap();
            tokio::spawn(channel::run(opened, modules.open(), peers[end].open(), Arc::new(peer), stop.clone()));
            Arc::new(dial) as Arc<dyn Dial<_, _>>
        });
        let monitors = [0, 1].map(|end| Arc::new(Monitor::new(module::initial_status(&instruments.module(end)))));
        Self { folder, source: Arc::new(source), channels, monitors, forge, stop }
    }

    pub fn start(&self, instruments: &Instruments, end: usize) -> Running {
        let config = instruments.module(end);
        let node = Node {
            light: instruments.light(end, self.source.clone()).unwrap(),
            channel: self.channels[end].clone(),
            vault: Vault::open(self.folder.path(), None, &config.site, &config.link, Default::default()).unwrap(),
            monitor: self.monitors[end].clone(),
            delivery: None,
            light_over: false,
            faults: None,
            config,
        };
        tokio::spawn(module::run(node, self.stop.clone()))
    }

    /// Waits until the run is over at both ends.
    pub async fn end(&self, running: [Running; 2]) {
        for end in running {
            let ended = tokio::time::timeout(PATIENCE, end).await;
            ended.unwrap_or_else(|_| panic!("stuck: {:?}", self.statuses())).unwrap().unwrap();
        }
    }

    /// Waits until something is the case.
    pub async fn wait(&self, until: impl Fn(&Self) -> bool) {
        let waited = async {
            while !until(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("stuck: {:?}", self.statuses()));
    }

    pub fn blocks(&self) -> [u64; 2] {
        self.monitors.each_ref().map(|monitor| monitor.status().blocks)
    }

    fn statuses(&self) -> [proto::detector::v1::ModuleStatus; 2] {
        self.monitors.each_ref().map(|monitor| monitor.status())
    }

    /// The key at the two ends.
    pub fn keys(&self) -> [KeyDigest; 2] {
        self.stores().map(|store| store.digest())
    }

    pub fn stores(&self) -> [BlockStore; 2] {
        SITES.map(|site| BlockStore::open_read_only(module::store::path(self.folder.path(), site, LINK)).unwrap())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn place_secrets(data: &Path) {
    let secret = channel::new_secret(RESERVE_BITS).unwrap();
    for site in SITES {
        let path = channel::secret_path(data, site, LINK);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, secret.as_slice()).unwrap();
    }
}

/// Somebody on the line, who alters what a module says: well-formed, so that only a tag can tell.
struct Forger {
    line: MemoryDial<PeerFrame, PeerFrame>,
    forge: Arc<Mutex<u64>>,
}

impl Dial<PeerFrame, PeerFrame> for Forger {
    fn dial(&self) -> BoxFuture<'_, Result<PeerStream>> {
        Box::pin(async move {
            let far = self.line.dial().await?;
            let (near, inner) = Duplex::pair(BUNDLES_IN_FLIGHT);
            for (mut rx, tx) in [(inner.rx, far.tx), (far.rx, inner.tx)] {
                let forge = self.forge.clone();
                tokio::spawn(async move {
                    while let Some(frame) = rx.recv().await {
                        if tx.send(altered(frame, &forge)).await.is_err() {
                            break;
                        }
                    }
                });
            }
            Ok(near)
        })
    }
}

fn altered(frame: PeerFrame, forge: &Mutex<u64>) -> PeerFrame {
    let mut left = forge.lock().unwrap();
    let Ok(mut content) = Frame::decode(&frame.frame) else { return frame };
    // Long ones are announcements and replies.
    if *left == 0 || content.payload.len() < 1000 {
        return frame;
    }
    *left -= 1;
    let mut payload = content.payload.to_vec();
    let last = payload.len() / 2;
    payload[last] ^= 1;
    content.payload = payload.into();
    PeerFrame { frame: content.encode() }
}
