//! A link of entangled pairs: a source in the middle, an instrument with its module and a channel at each end.

use distill::config as protocol;
use distill::sifting::counts::Counts as Counted;
use photonics::config as instrument;

use super::instruments::{self, clock, levels, snspd};
use super::{Common, post_processing};
use crate::document::{Disturbance, Fidelity, Link};
use crate::plan::config::{
    CountedPairs, Counts, DetectorConfig, EntangledReceiver, Nature, Pairs, Receiver, ServiceConfig, SourceConfig,
};
use crate::plan::seed::Role;
use crate::plan::{PlannedLink, RunPlan, Service};
use crate::resolve::{EntangledEnd, EntangledLink};

pub(super) fn plan(kind: EntangledLink<'_>, run: RunPlan<'_>) -> (PlannedLink, Vec<Service>) {
    let link = kind.link;
    let common = Common::new(link, kind.ends.map(|end| end.site()), run);
    // The end with the larger loss announces: it has fewer clicks, so less is said.
    let [first, second] = kind.ends.map(|end| end.loss_db());
    let announcer = usize::from(second >= first);
    let planner = Planner { link, kind, common, announcer };
    (planner.link(), planner.services())
}

/// What is drawn where the link is one of counts.
pub(in crate::plan) fn counted(kind: EntangledLink<'_>, run: RunPlan<'_>) -> CountedPairs {
    let common = Common::new(kind.link, kind.ends.map(|end| end.site()), run);
    Planner { link: kind.link, kind, common, announcer: 0 }.counted()
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
    common: Common<'a>,
    /// The end that says when it clicked; the other one answers.
    announcer: usize,
}

impl Planner<'_> {
    fn link(&self) -> PlannedLink {
        let end = |end: usize| (self.kind.ends[end].loss_db(), self.role(end).side());
        self.common.link(self.kind.source.site.as_str(), [end(0), end(1)])
    }

    fn role(&self, end: usize) -> protocol::Role {
        if end == self.announcer { protocol::Role::Announcer } else { protocol::Role::Matcher }
    }

    fn services(&self) -> Vec<Service> {
        let modules = [0, 1].map(|end| ServiceConfig::Detector(Box::new(self.detector_config(end))));
        // Classical traffic takes the same route, past the source.
        let delay_ps = self.kind.ends.iter().map(|end| end.fibre.delay_ps()).sum::<f64>().round() as u64;
        self.common.services(self.source_config(), modules, delay_ps)
    }

    fn source_config(&self) -> SourceConfig {
        let nature = match self.fidelity() {
            Fidelity::Tags => Nature::Pairs(Box::new(self.pairs())),
            Fidelity::Counts => Nature::Counts(Counts::Pairs(Box::new(self.counted()))),
        };
        self.common.source(self.kind.source.site.as_str(), nature)
    }

    fn fidelity(&self) -> Fidelity {
        self.common.run.fidelity(self.link)
    }

    fn pairs(&self) -> Pairs {
        Pairs {
            emitter: self.emitter(),
            arms: [0, 1].map(|end| self.arm(end)),
            analysers: [0, 1].map(|end| self.analyser(end)),
            detectors: self.kind.ends.map(|end| snspd(end.detector)),
        }
    }

    fn counted(&self) -> CountedPairs {
        CountedPairs { light: self.pairs(), sifting: self.sifting(0) }
    }

    fn detector_config(&self, end: usize) -> DetectorConfig {
        let own = &self.kind.ends[end];
        let receiver = Receiver::Entangled(EntangledReceiver {
            detector: snspd(own.detector),
            clock: clock(own.clock),
            analyser: self.analyser(end),
            arm_delay_ps: own.fibre.delay_ps(),
        });
        DetectorConfig {
            module: self.common.module(end, self.protocol(end), self.kind.source.pump_initial),
            receiver,
            instrument_subseed: self.common.subseed(Role::Instrument, own.site()),
            outages: self.common.cooling(end).into_iter().collect(),
        }
    }

    fn protocol(&self, end: usize) -> protocol::LinkProtocol {
        let sifting = self.sifting(end);
        let sifting = match self.fidelity() {
            Fidelity::Tags => protocol::Sifting::Entangled(sifting),
            Fidelity::Counts => protocol::Sifting::Counts(Counted { side: sifting.role.side(), loops: sifting.loops }),
        };
        let post_processing = post_processing(self.link, protocol::Emission::Pairs, self.common.run);
        protocol::LinkProtocol { post_processing, sifting }
    }

    fn sifting(&self, end: usize) -> protocol::Entangled {
        let link = self.link;
        let [one, other] = self.kind.ends.map(|end| end.detector.dead_time.rounded());
        protocol::Entangled {
            role: self.role(end),
            coincidence_window_ps: link.window.map_or(0, |window| window.rounded()),
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
        }
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
            steps: levels(powers, self.common.run.epoch_ps, 1.0, |level, factor| level * factor),
        }
    }

    fn arm(&self, end: usize) -> instrument::Arm {
        let EntangledEnd { arm, fibre, .. } = self.kind.ends[end];
        instruments::arm(self.link, arm, fibre, self.common.run.epoch_ps)
    }

    fn analyser(&self, end: usize) -> instrument::EnergyTimeAnalyser {
        let EntangledEnd { arm, analyser, .. } = self.kind.ends[end];
        let phase = instruments::phase(self.link, arm.site.as_str(), &analyser.phase, self.common.run.epoch_ps);
        instrument::EnergyTimeAnalyser {
            delay_ps: analyser.delay.value(),
            z_probability: analyser.z_probability.value(),
            visibility: analyser.visibility.value(),
            crosstalk: analyser.crosstalk.value(),
            phase_initial_rad: phase.initial_rad,
            phase_drift_rad_per_s: phase.rad_per_s,
            phase_noise_rad_per_sqrt_s: phase.noise_rad_per_sqrt_s,
            steps: phase.steps,
        }
    }
}
