//! One link of the document to the plain numbers that `photonics` and `distill` take.

use distill::config as protocol;
use photonics::config as instrument;

use super::config::{ChannelConfig, DetectorConfig, ServiceConfig, SourceConfig};
use super::seed::{Role, SecretSeed, derive_subseed};
use super::{CONTROL_IDENTITY, PlannedLink, PlannedReference, RunPlan, Service, ServiceNames, kms_name, round_epochs};
use crate::document::{
    Analyser, Arm, Bound, Clock, Detector, Disturbance, EnergyTimeAnalyser, Link, Snspd, Source, SpdcCw,
};
use crate::quantity::Duration;

const PS_PER_S: f64 = 1e12;

/// A link with its parts already taken out of their variants.
pub(super) struct LinkPlanner<'a> {
    link: &'a Link,
    source: &'a SpdcCw,
    arms: [&'a Arm; 2],
    analysers: [&'a EnergyTimeAnalyser; 2],
    detectors: [&'a Snspd; 2],
    names: ServiceNames,
    run: RunPlan,
}

impl<'a> LinkPlanner<'a> {
    /// None if the link has not exactly two arms.
    pub fn new(link: &'a Link, run: RunPlan) -> Option<Self> {
        let arms: [&Arm; 2] = <&[Arm; 2]>::try_from(link.arms.as_slice()).ok()?.each_ref();
        let Source::SpdcCw(source) = &link.source;
        Some(LinkPlanner {
            link,
            source,
            analysers: arms.map(|arm| match &arm.analyser {
                Analyser::EnergyTime(analyser) => analyser,
            }),
            detectors: arms.map(|arm| match &arm.detector {
                Detector::Snspd(detector) => detector,
            }),
            names: ServiceNames::of(link.name.as_str(), arms.map(|arm| arm.site.as_str())),
            arms,
            run,
        })
    }

    pub fn link(&self) -> PlannedLink {
        let arm_loss_db = arm_losses_db(self.arms);
        let references = self.link.reference.iter().map(|reference| PlannedReference {
            quantity: reference.quantity,
            published: reference.value.value(),
            tolerance: reference.tolerance,
            source: reference.source.clone(),
        });
        PlannedLink {
            name: self.link.name.to_string(),
            source_site: self.source.site.to_string(),
            sites: self.arms.map(|arm| arm.site.to_string()),
            source: self.names.source.clone(),
            detectors: self.names.detectors.clone(),
            channels: self.names.channels.clone(),
            total_loss_db: arm_loss_db[0] + arm_loss_db[1],
            arm_loss_db,
            announcer: self.announcer(),
            references: references.collect(),
        }
    }

    /// Source, then both detectors, then both channels.
    pub fn services(&self) -> Vec<Service> {
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

    /// The end with the larger loss announces: it has fewer clicks, so less is said.
    fn announcer(&self) -> usize {
        let [first, second] = arm_losses_db(self.arms);
        usize::from(second >= first)
    }

    fn subseed(&self, role: Role, site: &str) -> Option<SecretSeed> {
        self.run.seed.map(|seed| derive_subseed(seed, role, self.link.name.as_str(), site))
    }

    fn source_config(&self) -> SourceConfig {
        let [first, second] = self.names.detectors.clone();
        SourceConfig {
            name: self.names.source.clone(),
            link: self.link.name.to_string(),
            site: self.source.site.to_string(),
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            round_epochs: round_epochs(self.link, self.run.epoch_ps),
            speed: self.run.speed,
            epochs_limit: Some(self.run.last_epoch()),
            subseed: self.subseed(Role::Source, ""),
            emitter: self.emitter(),
            arms: [0, 1].map(|end| self.arm(end)),
            analysers: [0, 1].map(|end| self.analyser(end)),
            detectors: self.detectors.map(detector),
            faults_allowed: self.run.faults_allowed,
            accepts: vec![first, second, CONTROL_IDENTITY.to_owned()],
        }
    }

    fn detector_config(&self, end: usize) -> DetectorConfig {
        let site = self.arms[end].site.as_str();
        DetectorConfig {
            name: self.names.detectors[end].clone(),
            link: self.link.name.to_string(),
            site: site.to_owned(),
            peer_site: self.arms[1 - end].site.to_string(),
            output: end as u32,
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            epochs_limit: Some(self.run.last_epoch()),
            detector: detector(self.detectors[end]),
            clock: clock(&self.arms[end].clock),
            analyser: self.analyser(end),
            arm_delay_ps: self.arms[end].fibre.delay_ps(),
            protocol: self.protocol(end),
            initial_pump: self.source.pump_initial,
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
        let mut accepts = vec![self.names.detectors[end].clone()];
        if !initiates {
            accepts.push(self.names.channels[1 - end].clone());
        }
        accepts.push(CONTROL_IDENTITY.to_owned());
        ChannelConfig {
            name: self.names.channels[end].clone(),
            link: self.link.name.to_string(),
            site: self.arms[end].site.to_string(),
            peer_site: self.arms[1 - end].site.to_string(),
            initiates,
            peer: self.names.channels[1 - end].clone(),
            module: self.names.detectors[end].clone(),
            // Classical traffic takes the same route, past the source.
            delay_ps: self.arms.iter().map(|arm| arm.fibre.delay_ps()).sum::<f64>().round() as u64,
            speed: self.run.speed,
            reserve_bits: self.link.authentication.reserve.rounded(),
            tags_per_hash_key: self.link.authentication.tags_per_hash_key,
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
    }

    fn protocol(&self, end: usize) -> protocol::LinkProtocol {
        let link = self.link;
        let dead_time_ps = self.detectors.map(|detector| detector.dead_time.rounded());
        protocol::LinkProtocol {
            role: if end == self.announcer() { protocol::Role::Announcer } else { protocol::Role::Matcher },
            frame_ps: self.run.epoch_ps,
            coincidence_window_ps: link.window.rounded(),
            analyser_delay_ps: self.analysers[end].delay.rounded(),
            dead_time_ps: dead_time_ps[0].max(dead_time_ps[1]),
            round_frames: round_epochs(link, self.run.epoch_ps),
            acquisition: protocol::Acquisition {
                search_ps: link.acquisition.search.rounded(),
                frequency_search: link.acquisition.frequency_search.value(),
                window_ps: link.acquisition.window.rounded(),
                correlator: link.acquisition.correlator,
            },
            tracking_interval_ps: link.tracking.interval.rounded(),
            reconciliation: protocol::Reconciliation {
                frame_bits: link.reconciliation.frame_bits,
                initial_qber: link.reconciliation.initial_qber.value(),
            },
            security: protocol::Security {
                bound: match link.security.bound {
                    Bound::Asymptotic => protocol::Bound::Asymptotic,
                    Bound::Finite => protocol::Bound::Finite,
                },
                epsilon_secrecy: link.security.epsilon_secrecy,
                epsilon_correctness: link.security.epsilon_correctness,
                tolerated_qber: link.security.tolerated_qber.value(),
            },
            authentication: protocol::Authentication { tags_per_hash_key: link.authentication.tags_per_hash_key },
            loops: protocol::Loops {
                polarisation: link.loops.polarisation.enabled,
                phase: link.loops.phase.enabled,
                pump: link.loops.pump.enabled,
                target_qber_z: link.loops.pump.target(),
                phase_dither_rad: link.loops.phase.dither_rad(),
                pump_max: self.source.pump_max,
            },
        }
    }

    fn emitter(&self) -> instrument::SpdcCw {
        let powers = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Pump(step) => Some((step.at, step.factor)),
            _ => None,
        });
        instrument::SpdcCw {
            pair_rate_hz: self.source.pair_rate.value(),
            visibility: self.source.visibility.value(),
            bandwidth_nm: self.source.bandwidth.value(),
            pump_max: self.source.pump_max,
            steps: self.levels(powers, 1.0, |level, factor| level * factor),
        }
    }

    fn arm(&self, end: usize) -> instrument::Arm {
        let arm = self.arms[end];
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
        let analyser = self.analysers[end];
        let site = &self.arms[end].site;
        let phases = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Phase(step) if step.site == *site => Some((step.at, step.step.value())),
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

/// Fibre, devices and detector of each arm.
fn arm_losses_db(arms: [&Arm; 2]) -> [f64; 2] {
    arms.map(|arm| {
        let Detector::Snspd(detector) = &arm.detector;
        arm.fibre.loss_db() - 10.0 * detector.efficiency.value().max(f64::MIN_POSITIVE).log10()
    })
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

fn clock(clock: &Clock) -> instrument::Clock {
    let Clock::Rubidium(clock) = clock;
    instrument::Clock {
        offset_ps: clock.offset.value(),
        frequency_error: clock.frequency_error.value(),
        frequency_walk_per_sqrt_s: clock.frequency_walk.value(),
        phase_walk_ps_per_sqrt_s: clock.phase_walk.value(),
    }
}
