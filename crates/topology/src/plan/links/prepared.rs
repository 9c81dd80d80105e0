//! A prepared link: a transmitter with its module at one end, a receiver with its module at the other. The source
//! stands with the transmitter and is its modulator.

use distill::config as protocol;
use distill::sifting::counts::Counts as Counted;
use distill::sifting::prepared::config::Part;

use super::{Common, instruments, post_processing};
use crate::document::Fidelity;
use crate::plan::config::{
    CountedPulses, Counts, DetectorConfig, Nature, PreparedReceiver, Pulses, Receiver, ServiceConfig, SourceConfig,
    TransmitterConfig,
};
use crate::plan::seed::Role;
use crate::plan::{PlannedLink, RunPlan, Service, SpaceLink};
use crate::resolve::{PreparedLink, Way};

/// Ends by output of the source.
const TRANSMITTER: usize = 0;
const RECEIVER: usize = 1;

pub(super) fn plan(kind: &PreparedLink<'_>, run: RunPlan<'_>) -> (PlannedLink, Vec<Service>) {
    let common = Common::new(kind.link, kind.sites(), run);
    let [site, _] = kind.sites();
    let planned = common.link(site, [(0.0, Part::Transmitter.side()), (kind.loss_db(), Part::Receiver.side())]);
    let planner = Planner { kind, common };
    let modules = [planner.transmitter(), planner.receiver()];
    let delay_ps = kind.delay_ps().round() as u64;
    let services = planner.common.services(planner.source(site), modules, delay_ps);
    (planned, services)
}

/// What is drawn where the link is one of counts.
pub(in crate::plan) fn counted(kind: &PreparedLink<'_>, run: RunPlan<'_>) -> CountedPulses {
    Planner { kind, common: Common::new(kind.link, kind.sites(), run) }.counted()
}

/// Warnings for those who start it.
pub(super) fn warnings(kind: &PreparedLink<'_>, run: RunPlan<'_>) -> Vec<String> {
    let space = SpaceLink::of(run.spec, kind, run.epoch_ps, run.limit_ps);
    space
        .and_then(|space| space.never(run.limit_ps))
        .map(|never| format!("link {}: {never}", kind.link.name))
        .into_iter()
        .collect()
}

struct Planner<'a> {
    kind: &'a PreparedLink<'a>,
    common: Common<'a>,
}

impl Planner<'_> {
    fn epoch_ps(&self) -> u64 {
        self.common.run.epoch_ps
    }

    fn fidelity(&self) -> Fidelity {
        self.common.run.fidelity(self.kind.link)
    }

    fn nature(&self) -> Nature {
        match self.fidelity() {
            Fidelity::Tags => Nature::Pulses(Box::new(self.pulses())),
            Fidelity::Counts => Nature::Counts(Counts::Pulses(Box::new(self.counted()))),
        }
    }

    fn pulses(&self) -> Pulses {
        let (kind, epoch_ps) = (self.kind, self.epoch_ps());
        Pulses {
            transmitter: kind.transmitter_config(epoch_ps),
            arm: match kind.way {
                Way::Fibre(fibre) => instruments::arm(kind.link, kind.arm, fibre, epoch_ps),
                Way::FreeSpace(_) => instruments::free_space(kind.way_loss_db(), kind.delay_ps()),
            },
            analyser: kind.analyser_config(epoch_ps),
            efficiency: kind.detector.efficiency(),
        }
    }

    fn counted(&self) -> CountedPulses {
        CountedPulses {
            light: self.pulses(),
            detectors: self.kind.detectors_config(),
            sifting: self.kind.sifting(Part::Receiver, self.epoch_ps()),
            space: self.space().map(Box::new),
        }
    }

    fn space(&self) -> Option<SpaceLink> {
        SpaceLink::of(self.common.run.spec, self.kind, self.epoch_ps(), self.common.run.limit_ps)
    }

    /// The source, which has no light where a satellite is away.
    fn source(&self, site: &str) -> SourceConfig {
        let mut source = self.common.source(site, self.nature());
        if let Nature::Counts(Counts::Pulses(counted)) = &source.nature
            && let Some(space) = &counted.space
        {
            source.outages.extend(space.outages(self.common.run.limit_ps));
        }
        source
    }

    fn transmitter(&self) -> ServiceConfig {
        ServiceConfig::Transmitter(Box::new(TransmitterConfig {
            module: self.common.module(TRANSMITTER, self.protocol(Part::Transmitter), 1.0),
            transmitter: self.kind.transmitter_config(self.epoch_ps()),
        }))
    }

    fn receiver(&self) -> ServiceConfig {
        let kind = self.kind;
        let receiver = Receiver::Prepared(PreparedReceiver {
            detectors: kind.detectors_config(),
            clock: kind.clock_config(),
            analyser: kind.analyser_config(self.epoch_ps()),
            repetition_rate_hz: kind.transmitter.repetition_rate().value(),
            arm_delay_ps: kind.delay_ps(),
        });
        ServiceConfig::Detector(Box::new(DetectorConfig {
            module: self.common.module(RECEIVER, self.protocol(Part::Receiver), 1.0),
            receiver,
            instrument_subseed: self.common.subseed(Role::Instrument, kind.arm.site.as_str()),
            outages: self.common.cooling(RECEIVER).into_iter().collect(),
        }))
    }

    fn protocol(&self, part: Part) -> protocol::LinkProtocol {
        let sifting = self.kind.sifting(part, self.epoch_ps());
        let sifting = match self.fidelity() {
            Fidelity::Tags => protocol::Sifting::Prepared(sifting),
            Fidelity::Counts => {
                let (polarisation, phase) = (sifting.loops.polarisation, sifting.loops.phase);
                let loops = protocol::Loops { polarisation, phase, ..protocol::Loops::default() };
                protocol::Sifting::Counts(Counted { side: part.side(), loops })
            }
        };
        let post_processing = post_processing(self.kind.link, self.kind.emission(), self.common.run);
        protocol::LinkProtocol { post_processing, sifting }
    }
}
