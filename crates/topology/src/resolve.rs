//! A link of the document to typed parts: which kind it is, and that what stands in it belongs to that kind.
//!
//! Checks and planner both take what comes out of here, so that no combination of protocol, source and instruments is
//! judged twice. A kind of link is a variant of [`LinkKind`], with a module in `checks` and one in `plan::links`.

use crate::checks::Finding;
use crate::document::{
    Analyser, Arm, BasisChoice, Bb84Analyser, Clock, Detector, Encoder, Encoding, EnergyTimeAnalyser, Fibre,
    FreeRunningClock, FreeSpace, GatedAvalanche, Link, Name, Protocol, QuantumDot, Snspd, Source, SpdcCw, TwinField,
    TwinFieldTransmitter, WeakCoherent,
};
use crate::quantity::{Duration, Rate, Wavelength};

/// A link with its parts taken out of their variants.
pub(crate) enum LinkKind<'a> {
    /// A source of pairs in the middle, a receiver at each end.
    Entangled(EntangledLink<'a>),
    /// A transmitter at one end, a receiver at the other.
    Prepared(PreparedLink<'a>),
    /// A transmitter at each end, a station between them.
    TwinField(TwinFieldLink<'a>),
}

/// BBM92 with energy-time entangled pairs.
pub(crate) struct EntangledLink<'a> {
    pub link: &'a Link,
    pub source: &'a SpdcCw,
    /// By output of the source.
    pub ends: [EntangledEnd<'a>; 2],
}

/// An arm with the instruments at its end.
#[derive(Clone, Copy)]
pub(crate) struct EntangledEnd<'a> {
    pub arm: &'a Arm,
    pub fibre: &'a Fibre,
    pub analyser: &'a EnergyTimeAnalyser,
    pub detector: &'a Snspd,
    pub clock: &'a FreeRunningClock,
}

/// BB84 with pulses that a transmitter prepares.
pub(crate) struct PreparedLink<'a> {
    pub link: &'a Link,
    pub transmitter: PreparedSource<'a>,
    pub arm: &'a Arm,
    pub way: Way<'a>,
    pub analyser: &'a Bb84Analyser,
    pub detector: PulseDetector<'a>,
    pub clock: &'a FreeRunningClock,
}

/// Twin fields, with their parts.
pub(crate) struct TwinFieldLink<'a> {
    pub link: &'a Link,
    pub source: &'a TwinField,
    /// The two detectors of the station.
    pub detector: &'a Snspd,
    /// At the two ends.
    pub transmitters: [&'a TwinFieldTransmitter; 2],
}

/// What light goes through from a transmitter to its receiver.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    Fibre(&'a Fibre),
    FreeSpace(&'a FreeSpace),
}

/// What a transmitter's light is made of.
#[derive(Clone, Copy)]
pub(crate) enum PreparedSource<'a> {
    Coherent(&'a WeakCoherent),
    Dot(&'a QuantumDot),
}

/// The detectors of a receiver of pulses.
#[derive(Clone, Copy)]
pub(crate) enum PulseDetector<'a> {
    FreeRunning(&'a Snspd),
    Gated(&'a GatedAvalanche),
}

/// The kind of a link, or what in it does not belong together; paths are below the link.
pub(crate) fn resolve(link: &Link) -> Result<LinkKind<'_>, Vec<Finding>> {
    match link.protocol {
        Protocol::Bbm92EnergyTime => entangled(link).map(LinkKind::Entangled),
        Protocol::DecoyBb84 | Protocol::SinglePhotonBb84 => prepared(link).map(LinkKind::Prepared),
        Protocol::SnsTwinField => twin_field(link).map(LinkKind::TwinField),
    }
}

fn entangled(link: &Link) -> Result<EntangledLink<'_>, Vec<Finding>> {
    let mut findings = Vec::new();
    let Source::SpdcCw(source) = &link.source else {
        return Err(vec![wrong_source(
            link,
            "spdc-cw",
            match link.source {
                Source::TwinField(_) => "a station between two transmitters makes key under sns-twin-field",
                _ => "a transmitter makes key under decoy-bb84 or single-photon-bb84",
            },
        )]);
    };
    let Ok(arms) = <&[Arm; 2]>::try_from(link.arms.as_slice()) else {
        let message = format!("a link of entangled pairs with {}", arms(link));
        return Err(vec![Finding::error("arms", message, "exactly 2: one to each end")]);
    };
    let ends: Vec<EntangledEnd<'_>> =
        arms.iter().enumerate().filter_map(|(index, arm)| entangled_end(link, index, arm, &mut findings)).collect();
    match <[EntangledEnd<'_>; 2]>::try_from(ends) {
        Ok(ends) if findings.is_empty() => Ok(EntangledLink { link, source, ends }),
        _ => Err(findings),
    }
}

fn entangled_end<'a>(link: &Link, index: usize, arm: &'a Arm, findings: &mut Vec<Finding>) -> Option<EntangledEnd<'a>> {
    let Clock::Rubidium(clock) = &arm.clock;
    let fibre = match way(arm) {
        Ok(Way::Fibre(fibre)) => Some(fibre),
        Ok(Way::FreeSpace(_)) => {
            let message = format!("free space under {}", link.protocol.name());
            let finding = Finding::error(format!("arms[{index}].freeSpace"), message, "a fibre");
            findings.push(finding.hint(Some("free space is simulated for links with a transmitter alone".into())));
            None
        }
        Err(finding) => {
            findings.push(finding.below(&format!("arms[{index}]")));
            None
        }
    };
    let analyser = match &arm.analyser {
        Analyser::EnergyTime(analyser) => Some(analyser),
        Analyser::Bb84(_) => {
            let finding =
                wrong_type(link, format!("arms[{index}].analyser"), "an analyser of the type bb84", "energy-time");
            findings.push(finding);
            None
        }
    };
    let detector = match &arm.detector {
        Detector::Snspd(detector) => Some(detector),
        Detector::GatedAvalanche(_) => {
            let path = format!("arms[{index}].detector");
            let finding = wrong_type(link, path, "a detector of the type gated-avalanche", "snspd");
            findings.push(finding.hint(Some("pairs come at any time, so gates would miss them".into())));
            None
        }
    };
    Some(EntangledEnd { arm, fibre: fibre?, analyser: analyser?, detector: detector?, clock })
}

fn prepared(link: &Link) -> Result<PreparedLink<'_>, Vec<Finding>> {
    let transmitter = match (&link.source, link.protocol) {
        (Source::WeakCoherent(source), Protocol::DecoyBb84) => PreparedSource::Coherent(source),
        (Source::QuantumDot(source), Protocol::SinglePhotonBb84) => PreparedSource::Dot(source),
        (Source::WeakCoherent(_), _) => {
            return Err(vec![wrong_source(link, "quantum-dot", "laser pulses make key under decoy-bb84")]);
        }
        (Source::QuantumDot(_), _) => {
            return Err(vec![wrong_source(link, "weak-coherent", "single photons make key under single-photon-bb84")]);
        }
        (source @ (Source::SpdcCw(_) | Source::TwinField(_)), protocol) => {
            let expected = if protocol == Protocol::DecoyBb84 { "weak-coherent" } else { "quantum-dot" };
            let hint = match source {
                Source::TwinField(_) => "a station between two transmitters makes key under sns-twin-field",
                _ => "pairs make key under bbm92-energy-time",
            };
            return Err(vec![wrong_source(link, expected, hint)]);
        }
    };
    let [arm] = link.arms.as_slice() else { return Err(vec![arms_of_a_transmitter(link)]) };
    let way = way(arm).map_err(|finding| vec![finding.below("arms[0]")])?;
    let Clock::Rubidium(clock) = &arm.clock;
    let detector = match &arm.detector {
        Detector::Snspd(detector) => PulseDetector::FreeRunning(detector),
        Detector::GatedAvalanche(detector) => PulseDetector::Gated(detector),
    };
    let analyser = match &arm.analyser {
        Analyser::Bb84(analyser) => analyser,
        // What stands for an analyser that is not there.
        analyser if *analyser == Analyser::default() => {
            let message = "the field \"analyser\" is missing";
            return Err(vec![Finding::error("arms[0]", message, "an analyser of the type bb84")]);
        }
        Analyser::EnergyTime(_) => {
            let found = "an analyser of the type energy-time";
            return Err(vec![wrong_type(link, "arms[0].analyser".into(), found, "bb84")]);
        }
    };
    Ok(PreparedLink { link, transmitter, arm, way, analyser, detector, clock })
}

/// The one optical path of an arm; what is wrong is said below the arm.
fn way(arm: &Arm) -> Result<Way<'_>, Finding> {
    match (&arm.fibre, &arm.free_space) {
        (Some(fibre), None) => Ok(Way::Fibre(fibre)),
        (None, Some(space)) => Ok(Way::FreeSpace(space)),
        (Some(_), Some(_)) => {
            Err(Finding::error("freeSpace", "a second optical path beside a fibre", "one of fibre and freeSpace"))
        }
        (None, None) => {
            Err(Finding::error("fibre", "the field \"fibre\" is missing", "a fibre, or freeSpace to a satellite"))
        }
    }
}

fn twin_field(link: &Link) -> Result<TwinFieldLink<'_>, Vec<Finding>> {
    let Source::TwinField(source) = &link.source else {
        let hint = "twin fields have two transmitters and a station, all of them in `source`";
        return Err(vec![wrong_source(link, "twin-field", hint)]);
    };
    let mut findings = Vec::new();
    if !link.arms.is_empty() {
        let message = format!("a link under {} with {}", link.protocol.name(), arms(link));
        let finding = Finding::error("arms", message, "none");
        findings.push(finding.hint(Some("each of `source.transmitters` has its way to the station".into())));
    }
    let detector = match &source.detector {
        Detector::Snspd(detector) => Some(detector),
        Detector::GatedAvalanche(_) => {
            let found = "a detector of the type gated-avalanche";
            findings.push(wrong_type(link, "source.detector".into(), found, "snspd"));
            None
        }
    };
    let transmitters = match source.transmitters.as_slice() {
        [first, second] => Some([first, second]),
        others => {
            let message = format!("{} transmitters", others.len());
            findings.push(Finding::error("source.transmitters", message, "exactly 2: one at each end"));
            None
        }
    };
    for (index, transmitter) in source.transmitters.iter().enumerate() {
        if transmitter.site == source.site {
            let message = format!("a transmitter at \"{}\", where the station is", source.site);
            let finding = Finding::error(format!("source.transmitters[{index}].site"), message, "another site");
            findings.push(finding.hint(Some("nobody trusts the station, so it can be no end of the link".into())));
        }
    }
    match (detector, transmitters) {
        (Some(detector), Some(transmitters)) if findings.is_empty() => {
            Ok(TwinFieldLink { link, source, detector, transmitters })
        }
        _ => Err(findings),
    }
}

fn arms(link: &Link) -> String {
    match link.arms.len() {
        1 => "1 arm".to_owned(),
        count => format!("{count} arms"),
    }
}

fn wrong_type(link: &Link, path: String, found: &str, expected: &str) -> Finding {
    Finding::error(format!("{path}.type"), format!("{found} under {}", link.protocol.name()), expected)
}

fn wrong_source(link: &Link, expected: &str, hint: &str) -> Finding {
    let found = format!("a source of the type {}", link.source.type_name());
    wrong_type(link, "source".into(), &found, expected).hint(Some(hint.to_owned()))
}

/// A prepared link that has not exactly one arm.
fn arms_of_a_transmitter(link: &Link) -> Finding {
    let site = link.source_site();
    if let Some(index) = link.arms.iter().position(|arm| arm.site == *site) {
        let message = format!("a detector at \"{site}\", where the transmitter is");
        return Finding::error(format!("arms[{index}].detector"), message, "one arm, which ends at the receiver")
            .hint(Some("the transmitter is the source: remove its arm".into()));
    }
    let message = format!("a link under {} with {}", link.protocol.name(), arms(link));
    Finding::error("arms", message, "exactly 1, from the transmitter to the receiver")
        .hint(Some("the transmitter is the source, which is an end of the link itself".into()))
}

impl<'a> EntangledEnd<'a> {
    pub fn site(&self) -> &'a str {
        self.arm.site.as_str()
    }

    /// Fibre, devices and detector.
    pub fn loss_db(&self) -> f64 {
        loss_db(self.fibre.loss_db(), self.detector.efficiency.value())
    }
}

impl<'a> PreparedSource<'a> {
    pub fn site(self) -> &'a Name {
        match self {
            PreparedSource::Coherent(source) => &source.site,
            PreparedSource::Dot(source) => &source.site,
        }
    }

    pub fn repetition_rate(self) -> Rate {
        match self {
            PreparedSource::Coherent(source) => source.repetition_rate,
            PreparedSource::Dot(source) => source.repetition_rate,
        }
    }

    pub fn wavelength(self) -> Wavelength {
        match self {
            PreparedSource::Coherent(source) => source.wavelength,
            PreparedSource::Dot(source) => source.wavelength,
        }
    }

    pub fn encoder(self) -> &'a Encoder {
        match self {
            PreparedSource::Coherent(source) => &source.encoder,
            PreparedSource::Dot(source) => &source.encoder,
        }
    }

    pub fn pulse_width(self) -> Duration {
        match self {
            PreparedSource::Coherent(source) => source.pulse_width,
            PreparedSource::Dot(source) => source.pulse_width,
        }
    }
}

impl PulseDetector<'_> {
    pub fn efficiency(self) -> f64 {
        match self {
            PulseDetector::FreeRunning(detector) => detector.efficiency.value(),
            PulseDetector::Gated(detector) => detector.efficiency.value(),
        }
    }
}

impl<'a> PreparedLink<'a> {
    /// Transmitter and receiver.
    pub fn sites(&self) -> [&'a str; 2] {
        [self.transmitter.site().as_str(), self.arm.site.as_str()]
    }

    /// How many there are at the receiver.
    pub fn detectors(&self) -> f64 {
        // One reads the arrival time of bits in basis Z; behind an active choice two serve both bases.
        match (self.analyser.encoding, self.analyser.basis_choice) {
            (Encoding::TimeBin, _) => 3.0,
            (_, BasisChoice::Active) => 2.0,
            _ => 4.0,
        }
    }

    /// Fibre and devices; of free space the optics alone, because the rest changes.
    pub fn way_loss_db(&self) -> f64 {
        match self.way {
            Way::Fibre(fibre) => fibre.loss_db(),
            Way::FreeSpace(space) => space.optics_loss.value(),
        }
    }

    /// That of light, for the classical channel and for clocks. Of free space it is taken as that of 1000 km, about the mean
    /// of a pass; at counts nothing else depends on it.
    pub fn delay_ps(&self) -> f64 {
        const FREE_SPACE_PS: f64 = 1000.0 / 299_792.458 * 1e12;
        match self.way {
            Way::Fibre(fibre) => fibre.delay_ps(),
            Way::FreeSpace(_) => FREE_SPACE_PS,
        }
    }

    /// What the way takes, and detector.
    pub fn loss_db(&self) -> f64 {
        loss_db(self.way_loss_db(), self.detector.efficiency())
    }
}

fn loss_db(way_db: f64, efficiency: f64) -> f64 {
    way_db - 10.0 * efficiency.max(f64::MIN_POSITIVE).log10()
}
