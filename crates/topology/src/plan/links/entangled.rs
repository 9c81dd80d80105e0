//! A link of entangled pairs: a source in the middle, an instrument with its module and a channel at each end.

use distill::config as protocol;
use photonics::config as instrument;

use super::{post_processing, references};
use crate::document::{Disturbance, FreeRunningClock, Link, Snspd};
use crate::plan::config::{ChannelConfig, DetectorConfig, ServiceConfig, SourceConfig};
use crate::plan::seed::{Role, SecretSeed, derive_subseed};
use crate::plan::{
    CONTROL_IDENTITY, PlannedEnd, PlannedLink, PlannedSource, RunPlan, Service, ServiceNames, kms_name, round_epochs,
};
use crate::quantity::Duration;
use crate::resolve::{EntangledEnd, EntangledLink};

const PS_PER_S: f64 = 1e12;

pub(super) fn plan(kind: EntangledLink<'_>, run: RunPlan) -> (PlannedLink, Vec<Service>) {
    let link = kind.link;
    let names = ServiceNames::of(link.name.as_str(), kind.ends.map(|end| end.site()));
    // The end with the larger loss announces: it has fewer clicks, so less is said.
    let [first, second] = kind.ends.map(|end| end.loss_db());
    let announcer = usize::from(second >= first);
    let planner = Planner { link, kind, names, announcer, run };
    (planner.link(), planner.services())
}

pub(super) fn warnings(kind: &EntangledLink<'_>) -> Vec<String> {
    let (link, mut warnings) = (kind.link, Vec::new());
    if !link.acquisition.correlator {
        warnings.push(format!("link {}: without a correlator no clock is found and no key is made", link.name));
    }
    if link.loops.pump.enabled && kind.source.pump_max <= 1.0 {
        warnings.push(format!("link {}: the pump loop cannot raise the power above nominal", link.name));
    }
    warnings
}

struct Planner<'a> {
    link: &'a Link,
    kind: EntangledLink<'a>,
    names: ServiceNames,
    /// The end that says when it clicked; the other one answers.
    announcer: usize,
    run: RunPlan,
}

impl Planner<'_> {
    fn link(&self) -> PlannedLink {
        let end = |end: usize| PlannedEnd {
            site: self.kind.ends[end].site().to_owned(),
            detector: self.names.detectors[end].clone(),
            channel: self.names.channels[end].clone(),
            loss_db: self.kind.ends[end].loss_db(),
            side: self.role(end).side(),
        };
        PlannedLink {
            name: self.link.name.to_string(),
            protocol: self.link.protocol,
            epoch_ps: self.run.epoch_ps,
            source: PlannedSource { site: self.kind.source.site.to_string(), service: self.names.source.clone() },
            ends: [end(0), end(1)],
            references: references(self.link),
        }
    }

    fn role(&self, end: usize) -> protocol::Role {
        if end == self.announcer { protocol::Role::Announcer } else { protocol::Role::Matcher }
    }

    /// Source, then both detectors, then both channels.
    fn services(&self) -> Vec<Service> {
        let service = |name: &str, site: &str, connects_to: Vec<String>, accepts: &[String], config| Service {
            name: name.to_owned(),
            site: site.to_owned(),
            link: Some(self.link.name.to_string()),
            connects_to,
            accepts: accepts.to_vec(),
            config,
        };
        let source = self.source_config();
        let mut services = vec![service(
            &source.name,
            &source.site,
            Vec::new(),
            &source.accepts,
            ServiceConfig::Source(Box::new(source.clone())),
        )];
        for end in 0..2 {
            let config = self.detector_config(end);
            let connects_to =
                [config.source.clone(), config.channel.clone()].into_iter().chain(config.kms.clone()).collect();
            let boxed = ServiceConfig::Detector(Box::new(config.clone()));
            services.push(service(&config.name, &config.site, connects_to, &config.accepts, boxed));
        }
        for end in 0..2 {
            let config = self.channel_config(end);
            let connects_to = if config.initiates { vec![config.peer.clone()] } else { Vec::new() };
            let boxed = ServiceConfig::Channel(Box::new(config.clone()));
            services.push(service(&config.name, &config.site, connects_to, &config.accepts, boxed));
        }
        services
    }

    fn subseed(&self, role: Role, site: &str) -> Option<SecretSeed> {
        self.run.seed.map(|seed| derive_subseed(seed, role, self.link.name.as_str(), site))
    }

    fn source_config(&self) -> SourceConfig {
        let [first, second] = self.names.detectors.clone();
        SourceConfig {
            name: self.names.source.clone(),
            link: self.link.name.to_string(),
            site: self.kind.source.site.to_string(),
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            round_epochs: round_epochs(self.link, self.run.epoch_ps),
            speed: self.run.speed,
            epochs_limit: Some(self.run.last_epoch()),
            subseed: self.subseed(Role::Source, ""),
            emitter: self.emitter(),
            arms: [0, 1].map(|end| self.arm(end)),
            analysers: [0, 1].map(|end| self.analyser(end)),
            detectors: self.kind.ends.map(|end| detector(end.detector)),
            faults_allowed: self.run.faults_allowed,
            accepts: vec![first, second, CONTROL_IDENTITY.to_owned()],
        }
    }

    fn detector_config(&self, end: usize) -> DetectorConfig {
        let own = &self.kind.ends[end];
        let site = own.site();
        DetectorConfig {
            name: self.names.detectors[end].clone(),
            link: self.link.name.to_string(),
            site: site.to_owned(),
            peer_site: self.kind.peer_of(end).site().to_owned(),
            output: end as u32,
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            epochs_limit: Some(self.run.last_epoch()),
            detector: detector(own.detector),
            clock: clock(own.clock),
            analyser: self.analyser(end),
            arm_delay_ps: own.arm.fibre.delay_ps(),
            protocol: self.protocol(end),
            initial_pump: self.kind.source.pump_initial,
            instrument_subseed: self.subseed(Role::Instrument, site),
            module_subseed: self.subseed(Role::Module, site),
            source: self.names.source.clone(),
            channel: self.names.channels[end].clone(),
            kms: Some(kms_name(site)),
            faults_allowed: self.run.faults_allowed,
            accepts: vec![CONTROL_IDENTITY.to_owned()],
        }
    }

    fn channel_config(&self, end: usize) -> ChannelConfig {
        let initiates = end == 0;
        let peer = &self.names.channels[usize::from(initiates)];
        let mut accepts = vec![self.names.detectors[end].clone()];
        if !initiates {
            accepts.push(peer.clone());
        }
        accepts.push(CONTROL_IDENTITY.to_owned());
        ChannelConfig {
            name: self.names.channels[end].clone(),
            link: self.link.name.to_string(),
            site: self.kind.ends[end].site().to_owned(),
            peer_site: self.kind.peer_of(end).site().to_owned(),
            initiates,
            peer: peer.clone(),
            module: self.names.detectors[end].clone(),
            // Classical traffic takes the same route, past the source.
            delay_ps: self.kind.ends.iter().map(|end| end.arm.fibre.delay_ps()).sum::<f64>().round() as u64,
            speed: self.run.speed,
            reserve_bits: self.link.authentication.reserve.rounded(),
            tags_per_hash_key: self.link.authentication.tags_per_hash_key,
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
    }

    fn protocol(&self, end: usize) -> protocol::LinkProtocol {
        let link = self.link;
        let [one, other] = self.kind.ends.map(|end| end.detector.dead_time.rounded());
        let sifting = protocol::Entangled {
            role: self.role(end),
            coincidence_window_ps: link.window.rounded(),
            analyser_delay_ps: self.kind.ends[end].analyser.delay.rounded(),
            dead_time_ps: one.max(other),
            acquisition: protocol::Acquisition {
                search_ps: link.acquisition.search.rounded(),
                frequency_search: link.acquisition.frequency_search.value(),
                window_ps: link.acquisition.window.rounded(),
                correlator: link.acquisition.correlator,
            },
            tracking_interval_ps: link.tracking.interval.rounded(),
            loops: protocol::Loops {
                polarisation: link.loops.polarisation.enabled,
                phase: link.loops.phase.enabled,
                pump: link.loops.pump.enabled,
                target_qber_z: link.loops.pump.target(),
                phase_dither_rad: link.loops.phase.dither_rad(),
                pump_max: self.kind.source.pump_max,
            },
        };
        let post_processing = post_processing(link, self.run);
        protocol::LinkProtocol { post_processing, sifting: protocol::Sifting::Entangled(sifting) }
    }

    fn emitter(&self) -> instrument::SpdcCw {
        let powers = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Pump(step) => Some((step.at, step.factor)),
            _ => None,
        });
        instrument::SpdcCw {
            pair_rate_hz: self.kind.source.pair_rate.value(),
            visibility: self.kind.source.visibility.value(),
            bandwidth_nm: self.kind.source.bandwidth.value(),
            pump_max: self.kind.source.pump_max,
            steps: self.levels(powers, 1.0, |level, factor| level * factor),
        }
    }

    fn arm(&self, end: usize) -> instrument::Arm {
        let arm = self.kind.ends[end].arm;
        let fibre = &arm.fibre;
        let turns = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Polarisation(step) if step.site == arm.site => Some((step.at, step.step.value())),
            _ => None,
        });
        instrument::Arm {
            length_km: fibre.length.value(),
            loss_db: fibre.loss_db(),
            delay_ps: fibre.delay_ps(),
            delay_drift_amplitude_ps: fibre.delay_drift.amplitude.value(),
            delay_drift_period_s: fibre.delay_drift.period.value() / PS_PER_S,
            dispersion_ps_per_nm: fibre.residual_dispersion_ps_per_nm(),
            polarisation: instrument::Polarisation {
                initial_rad: fibre.polarisation.initial.map(|angle| angle.value()),
                drift_amplitude_rad: fibre.polarisation.drift_amplitude.value(),
                drift_period_s: fibre.polarisation.drift_period.value() / PS_PER_S,
                dependent_loss: fibre.polarisation.dependent_loss.value(),
                steps: self.levels(turns, 0.0, |level, step| level + step),
            },
        }
    }

    fn analyser(&self, end: usize) -> instrument::EnergyTimeAnalyser {
        let EntangledEnd { arm, analyser, .. } = self.kind.ends[end];
        let phases = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Phase(step) if step.site == arm.site => Some((step.at, step.step.value())),
            _ => None,
        });
        instrument::EnergyTimeAnalyser {
            delay_ps: analyser.delay.value(),
            z_probability: analyser.z_probability.value(),
            visibility: analyser.visibility.value(),
            crosstalk: analyser.crosstalk.value(),
            phase_initial_rad: analyser.phase.initial.value(),
            phase_drift_rad_per_s: analyser.phase.drift.value(),
            phase_noise_rad_per_sqrt_s: analyser.phase.noise.value(),
            steps: self.levels(phases, 0.0, |level, step| level + step),
        }
    }

    /// Steps to levels: each step changes the level that the steps before it have reached. It acts from an epoch's
    /// beginning on, which is found here, where times are exact.
    fn levels(
        &self,
        steps: impl Iterator<Item = (Duration, f64)>,
        undisturbed: f64,
        apply: impl Fn(f64, f64) -> f64,
    ) -> Vec<instrument::Step> {
        let mut steps: Vec<(u64, f64)> = steps.map(|(at, step)| (at.rounded(), step)).collect();
        steps.sort_by_key(|(at_ps, _)| *at_ps);
        let mut level = undisturbed;
        let steps = steps.into_iter().map(|(at_ps, step)| {
            level = apply(level, step);
            let epoch = at_ps.div_ceil(self.run.epoch_ps);
            instrument::Step { at_s: instrument::epoch_start_s(epoch, self.run.epoch_ps), value: level }
        });
        steps.collect()
    }
}

fn detector(detector: &Snspd) -> instrument::Detector {
    instrument::Detector {
        efficiency: detector.efficiency.value(),
        jitter_fwhm_ps: detector.jitter.value(),
        dark_rate_hz: detector.dark_count_rate.value(),
        dead_time_ps: detector.dead_time.value(),
        afterpulse_probability: detector.afterpulse.probability.value(),
        afterpulse_decay_ps: detector.afterpulse.decay.value(),
        latch_probability: detector.latching.probability.value(),
        latch_reset_ps: detector.latching.reset.value(),
        tdc_resolution_ps: detector.tdc.resolution.value(),
        skew_ps: detector.skew.map(|skew| skew.value()),
    }
}

fn clock(clock: &FreeRunningClock) -> instrument::Clock {
    instrument::Clock {
        offset_ps: clock.offset.value(),
        frequency_error: clock.frequency_error.value(),
        frequency_walk_per_sqrt_s: clock.frequency_walk.value(),
        phase_walk_ps_per_sqrt_s: clock.phase_walk.value(),
    }
}
