//! What the formulae say of a planned link, and what its services will ask of a machine.

use distill::config::{Entangled, PostProcessing};
use photonics::expect::inputs::mean_cos_phase;
use photonics::expect::load::{BYTES_PER_SIFTED_BIT, Buffering, Load, load};
use photonics::expect::optimum::{OperatingPoint, at_pump, at_qber_z};
use photonics::expect::{Bbm92Inputs, Matching, from_config};

use super::{Counts, Nature, Pairs, Plan, PlannedLink, Service, ServiceConfig, Speed};

/// Efficiency that Cascade reaches on frames of this length; what a run measures stands in its ledger.
pub const RECONCILIATION_EFFICIENCY: f64 = 1.05;
/// Width that clock tracking adds to the peak, in quadrature.
const TRACKING_FWHM_PS: f64 = 8.0;
/// Bin of the coarse correlation and the frames that wait in a module, as the modules are built.
const CORRELATION_BIN_S: f64 = 10e-9;
const FRAMES_IN_FLIGHT: f64 = 8.0;

/// A service that only waits and writes.
const IDLE_BYTES: u64 = 16 << 20;
/// A photon under way: its packed word, and once more as it is drawn.
const BYTES_PER_PHOTON: f64 = 64.0;
/// A sifted bit under way where light is counts.
const BYTES_PER_COUNT: f64 = 0.5;
/// Epochs that are under way to each detector node.
const EPOCHS_IN_FLIGHT: f64 = 8.0;
/// A key store's database keeps this much of its file at hand.
const STORE_CACHE_BYTES: u64 = 16 << 20;
/// Processor time of a tag in the source, or at the end that it reaches.
const NS_PER_TAG: f64 = 60.0;
/// What a busy service asks for where the run goes as fast as it can: everything that is left over.
const UNPACED_MILLICORES: u32 = 100;
const IDLE_MILLICORES: u32 = 10;

/// What a service should get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub millicores: u32,
}

impl std::ops::AddAssign for Resources {
    fn add_assign(&mut self, other: Self) {
        self.memory_bytes += other.memory_bytes;
        self.millicores += other.millicores;
    }
}

/// The parts of a link of entangled pairs that the formulae take.
#[derive(Clone, Copy, Debug)]
pub struct EntangledParts<'a> {
    pub pairs: &'a Pairs,
    /// Of output 0.
    pub sifting: &'a Entangled,
    pub post_processing: &'a PostProcessing,
    pub initial_pump: f64,
}

impl Plan {
    /// What each service should get, in the order of the services.
    pub fn resources(&self) -> Vec<Resources> {
        let loads: std::collections::BTreeMap<&str, Load> =
            self.links.iter().filter_map(|link| Some((link.name.as_str(), self.load(&link.name)?))).collect();
        let load = |service: &Service| service.link.as_deref().and_then(|link| loads.get(link));
        self.services.iter().map(|service| resources(self, service, load(service))).collect()
    }

    /// The parts of a link of pairs; nothing of another kind of link.
    pub fn entangled(&self, link: &PlannedLink) -> Option<EntangledParts<'_>> {
        let ServiceConfig::Source(source) = &self.service(&link.source.service)?.config else { return None };
        let end = self.service(&link.ends[0].module)?.config.module()?;
        let (pairs, sifting) = match &source.nature {
            Nature::Pairs(pairs) => (&**pairs, end.protocol.sifting.entangled()?),
            Nature::Counts(Counts::Pairs(counted)) => (&counted.light, &counted.sifting),
            Nature::Pulses(_) | Nature::Counts(Counts::Pulses(_)) => return None,
        };
        let post_processing = &end.protocol.post_processing;
        Some(EntangledParts { pairs, sifting, post_processing, initial_pump: end.initial_pump })
    }

    /// Sifted bits a second that a source of counts is expected to draw; none of another one.
    fn counted_hz(&self, link: &str) -> Option<f64> {
        let ServiceConfig::Source(source) = &self.service(&self.link(link)?.source.service)?.config else {
            return None;
        };
        let Nature::Counts(counts) = &source.nature else { return None };
        Some(counts.law(&counts.brightest(1.0)).ok()?.sifted_hz())
    }

    /// Tags and memory of a link at its operating point.
    pub fn load(&self, link: &str) -> Option<Load> {
        let link = self.link(link)?;
        if let Some(parts) = self.prepared(link) {
            return Some(parts.load());
        }
        let parts = self.entangled(link)?;
        let point = parts.operating_point(&parts.inputs());
        Some(load(&point.prediction, &parts.buffering(link)))
    }
}

fn resources(plan: &Plan, service: &Service, load: Option<&Load>) -> Resources {
    let idle = Resources { memory_bytes: IDLE_BYTES, millicores: IDLE_MILLICORES };
    let busy = |tags_hz: f64, memory_bytes: f64| Resources {
        memory_bytes: memory_bytes as u64,
        millicores: match plan.speed {
            Speed::Max => UNPACED_MILLICORES,
            Speed::RealTime(pace) => ((tags_hz * pace * NS_PER_TAG * 1e-6).ceil() as u32).max(IDLE_MILLICORES),
        },
    };
    let counted_hz = service.link.as_deref().and_then(|link| plan.counted_hz(link));
    match (&service.config, load) {
        (ServiceConfig::Source(config), Some(load)) => {
            let seconds = config.epoch_ps as f64 * 1e-12 * EPOCHS_IN_FLIGHT;
            let bytes = match counted_hz {
                Some(bits_hz) => bits_hz * seconds * BYTES_PER_COUNT,
                None => load.total_tags_hz * seconds * BYTES_PER_PHOTON,
            };
            busy(load.total_tags_hz, IDLE_BYTES as f64 + bytes)
        }
        (config @ (ServiceConfig::Detector(_) | ServiceConfig::Transmitter(_)), Some(load)) => {
            let Some(module) = config.module() else { return idle };
            let end = module.output.min(1) as usize;
            let framing = module.protocol.post_processing.framing;
            let each_s =
                FRAMES_IN_FLIGHT * framing.frame_s() * BYTES_PER_COUNT + framing.round_s() * BYTES_PER_SIFTED_BIT;
            let counted = counted_hz.map(|bits_hz| IDLE_BYTES as f64 + bits_hz * each_s);
            busy(load.tags_hz[end], counted.unwrap_or(load.module_bytes[end]))
        }
        (ServiceConfig::Kms(_), _) => Resources { memory_bytes: IDLE_BYTES + STORE_CACHE_BYTES, ..idle },
        _ => idle,
    }
}

/// The formulae's inputs at nominal pump.
pub fn inputs(source: &Pairs, sifting: &Entangled) -> Bbm92Inputs {
    let (arms, analysers, detectors) =
        (source.arms.each_ref(), source.analysers.each_ref(), source.detectors.each_ref());
    let window_ps = sifting.coincidence_window_ps as f64;
    let mut inputs = from_config(&source.emitter, arms, analysers, detectors, window_ps, 1.0);
    inputs.peak_fwhm_ps = inputs.peak_fwhm_ps.hypot(TRACKING_FWHM_PS);
    if sifting.loops.phase {
        inputs.mean_cos_phase = mean_cos_phase(sifting.loops.phase_dither_rad, 0.0);
    }
    inputs.matching = Matching { merge_doubles: true, kept_dead_time_ps: sifting.dead_time_ps as f64 };
    inputs
}

impl EntangledParts<'_> {
    pub fn inputs(&self) -> Bbm92Inputs {
        inputs(self.pairs, self.sifting)
    }

    /// Where the pump loop settles, within what the laser can do.
    pub fn operating_point(&self, inputs: &Bbm92Inputs) -> OperatingPoint {
        let loops = &self.sifting.loops;
        if !loops.pump {
            return at_pump(inputs, self.initial_pump);
        }
        let (held, pump_max) = (at_qber_z(inputs, loops.target_qber_z), self.pairs.emitter.pump_max);
        if held.pump > pump_max { at_pump(inputs, pump_max) } else { held }
    }

    /// What the modules keep at hand.
    pub fn buffering(&self, link: &PlannedLink) -> Buffering {
        let Self { sifting, post_processing, .. } = self;
        Buffering {
            announcer: link.reference(),
            frame_s: post_processing.framing.frame_s(),
            frames_in_flight: FRAMES_IN_FLIGHT,
            acquisition_s: sifting.acquisition.window_ps as f64 * 1e-12,
            search_s: sifting.acquisition.search_ps as f64 * 1e-12,
            block_s: post_processing.framing.round_s(),
            bin_s: CORRELATION_BIN_S,
        }
    }
}
