//! The names of what is measured or predicted of a link: one registry for documents, services, tables and JSON.
//!
//! A figure that was given a name keeps it. A protocol adds names here and lists them in its [`Listing`]; nothing else
//! has a column of its own for one of them.

mod listing;
mod measured;

pub use listing::Listing;
pub use measured::{FIGURES_MAX, Figures, Measured, NAME_CHARS_MAX, UNIT_CHARS_MAX};

/// A figure of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// Secret bits per simulated second, by the bound that the topology chooses.
    SecretKeyRate,
    /// The same by the finite bound.
    SecretKeyRateFinite,
    /// Share of the key that authentication used up.
    AuthenticationShare,
    /// Bits that tags take in an hour of light, of both ends together, and bits of key that are made in one, those
    /// included.
    TagBitsPerHour,
    KeyBitsPerHour,
    /// Light between two checkpoints, which close what was sifted of a block; the block where it has none.
    CheckpointInterval,
    /// Where blocks take long and none is stored yet: simulated time at which the first one is expected.
    FirstBlock,
    /// How often the link had light again by itself: after each stretch of simulated time without any, be it an outage or
    /// a cut, and with each later session, also one that a person ordered. An outage and the session after it count once.
    Restarts,
    /// Orders of a person to this end of the link: to meet its peer again, or to use a fresh authentication secret. A fault
    /// that is brought in or cleared does not count: it is part of an experiment.
    Interventions,
    /// Share of the simulated time since the link's first session in which it had a session with light.
    Availability,
    /// Error rate of the key basis Z.
    QberZ,
    /// Error rate of the check basis X.
    QberX,
    /// Detections per pulse sent, of each intensity of a link of pulses: of all pulses that the receiver announces, in
    /// whatever basis, which are those that fired detectors of one basis alone, within the gate, and while none was
    /// dead. Single photons are signals. Where light is drawn as counts, intensities are known of sifted bits alone:
    /// each intensity is taken to have the same share of its events among them.
    GainSignal,
    GainDecoy,
    GainVacuum,
    /// Interference visibility that the error rate of basis X stands for.
    Visibility,
    /// Bits per second that both ends keep, in each basis.
    SiftedRateZ,
    SiftedRateX,
    /// Clicks per simulated second at the end that tells.
    ClickRate,
    /// Full width at half maximum of the coincidence peak.
    PeakWidth,
    /// Difference of the two clocks, and what was left of it before its last correction.
    ClockOffset,
    ClockResidual,
    /// Relative difference of the two clocks' rates.
    ClockFrequency,
    /// Intensity of the pump, relative to nominal.
    Pump,
    /// What the analyser at the end that tells is set to: its phase, and the two angles of its polarisation controller.
    Phase,
    PolarisationFirst,
    PolarisationSecond,
}

/// All that the registry knows of a figure.
struct Entry {
    name: &'static str,
    unit: &'static str,
    /// What people read before its value: in lower case where it is a word, which headings write in capitals.
    label: &'static str,
    /// Unit that people read, how many of it are one of `unit`, digits after the point, and digits in all.
    shown: &'static str,
    scale: f64,
    digits: usize,
    width: u16,
    /// Chosen by a control loop, or about the run: known while nothing is measured.
    set: bool,
}

const fn entry(name: &'static str, unit: &'static str, label: &'static str) -> Entry {
    Entry { name, unit, label, shown: unit, scale: 1.0, digits: 0, width: 8, set: false }
}

impl Entry {
    const fn share(name: &'static str, label: &'static str) -> Self {
        Self { shown: "%", scale: 100.0, digits: 2, width: 6, ..entry(name, "1", label) }
    }

    const fn gain(name: &'static str, label: &'static str) -> Self {
        entry(name, "1", label).shown("ppm", 1e6, 1, 9)
    }

    const fn setting(name: &'static str, unit: &'static str, label: &'static str) -> Self {
        Self { digits: 3, width: 7, set: true, ..entry(name, unit, label) }
    }

    const fn shown(self, shown: &'static str, scale: f64, digits: usize, width: u16) -> Self {
        Self { shown, scale, digits, width, ..self }
    }
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::SecretKeyRate,
        Self::SecretKeyRateFinite,
        Self::AuthenticationShare,
        Self::TagBitsPerHour,
        Self::KeyBitsPerHour,
        Self::CheckpointInterval,
        Self::FirstBlock,
        Self::Restarts,
        Self::Interventions,
        Self::Availability,
        Self::QberZ,
        Self::QberX,
        Self::GainSignal,
        Self::GainDecoy,
        Self::GainVacuum,
        Self::Visibility,
        Self::SiftedRateZ,
        Self::SiftedRateX,
        Self::ClickRate,
        Self::PeakWidth,
        Self::ClockOffset,
        Self::ClockResidual,
        Self::ClockFrequency,
        Self::Pump,
        Self::Phase,
        Self::PolarisationFirst,
        Self::PolarisationSecond,
    ];

    /// Of each kind of pulse, the brightest first.
    pub const GAINS: [Self; 3] = [Self::GainSignal, Self::GainDecoy, Self::GainVacuum];

    const fn entry(self) -> Entry {
        match self {
            Self::SecretKeyRate => entry("secretKeyRate", "bit/s", "SKR"),
            Self::SecretKeyRateFinite => entry("secretKeyRateFinite", "bit/s", "finite"),
            Self::AuthenticationShare => Entry::share("authenticationShare", "auth"),
            Self::TagBitsPerHour => entry("tagBitsPerHour", "bit/h", "tags"),
            Self::KeyBitsPerHour => entry("keyBitsPerHour", "bit/h", "key"),
            Self::CheckpointInterval => Entry { set: true, ..entry("checkpointInterval", "s", "checkpoints") },
            Self::FirstBlock => {
                Entry { set: true, ..entry("firstBlock", "s", "first block") }.shown("h", 1.0 / 3600.0, 1, 8)
            }
            Self::Restarts => Entry { set: true, ..entry("restarts", "1", "restarts") },
            Self::Interventions => Entry { set: true, ..entry("interventions", "1", "interventions") },
            Self::Availability => Entry { set: true, ..Entry::share("availability", "available") },
            Self::QberZ => Entry::share("qberZ", "QBERz"),
            Self::QberX => Entry::share("qberX", "QBERx"),
            Self::GainSignal => Entry::gain("gainSignal", "signal gain"),
            Self::GainDecoy => Entry::gain("gainDecoy", "decoy gain"),
            Self::GainVacuum => Entry::gain("gainVacuum", "vacuum gain"),
            Self::Visibility => Entry::share("visibility", "vis"),
            Self::SiftedRateZ => entry("siftedRateZ", "bit/s", "Z").shown("/s", 1.0, 0, 8),
            Self::SiftedRateX => entry("siftedRateX", "bit/s", "X").shown("/s", 1.0, 0, 8),
            Self::ClickRate => entry("clickRate", "Hz", "clicks").shown("/s", 1.0, 0, 9),
            Self::PeakWidth => entry("peakWidth", "ps", "peak").shown("ps", 1.0, 1, 7),
            Self::ClockOffset => entry("clockOffset", "ps", "offset").shown("us", 1e-6, 4, 12),
            Self::ClockResidual => entry("clockResidual", "ps", "residual").shown("ps", 1.0, 1, 7),
            Self::ClockFrequency => entry("clockFrequency", "1", "drift").shown("ns/s", 1e9, 3, 9),
            Self::Pump => Entry::setting("pump", "1", "pump"),
            Self::Phase => Entry::setting("phase", "rad", "phase"),
            Self::PolarisationFirst => Entry::setting("polarisationFirst", "rad", "pol1"),
            Self::PolarisationSecond => Entry::setting("polarisationSecond", "rad", "pol2"),
        }
    }

    /// As it stands in documents, statuses and JSON.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The figure of a name; nothing where only newer versions know it.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name() == name)
    }

    /// Unit of its values; 1 for shares and ratios.
    pub fn unit(self) -> &'static str {
        self.entry().unit
    }

    /// Whether it is known while nothing is measured: a control loop chose it, or it is about the run.
    pub fn is_set(self) -> bool {
        self.entry().set
    }

    /// Head of a column of its values, with the unit that [`Self::number`] gives them in: `QBERz %`.
    pub fn heading(self) -> String {
        let Entry { label, shown, .. } = self.entry();
        let is_word = !label.contains(|c: char| c.is_ascii_uppercase());
        let label = if is_word { label.to_ascii_uppercase() } else { label.to_owned() };
        if shown == "1" { label } else { format!("{label} {shown}") }
    }

    /// Characters that a column of its values needs.
    pub fn width(self) -> u16 {
        self.entry().width.max(self.heading().len() as u16)
    }

    /// A value for people, without its unit; a hyphen where there is none.
    pub fn number(self, value: Option<f64>) -> String {
        let Entry { scale, digits, .. } = self.entry();
        let value = value.map(|value| value * scale).filter(|value| value.is_finite());
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    }

    /// A value for people, with its unit: `4.27 %`.
    pub fn quantity(self, value: Option<f64>) -> String {
        let (number, shown) = (self.number(value), self.entry().shown);
        if shown == "1" { number } else { format!("{number} {shown}") }
    }

    /// A value for people, with what it is a value of: `QBERz 4.27 %`.
    pub fn sentence(self, value: Option<f64>) -> String {
        format!("{} {}", self.entry().label, self.quantity(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_figures_have_one_name_and_each_is_found_by_its_own() {
        let mut names = Figure::ALL.map(Figure::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Figure::ALL.len());
        for figure in Figure::ALL {
            assert_eq!(Figure::of_name(figure.name()), Some(figure));
            assert!(figure.name().len() <= NAME_CHARS_MAX && figure.unit().len() <= UNIT_CHARS_MAX);
        }
        assert_eq!(Figure::of_name("temperature"), None);
    }

    #[test]
    fn people_read_label_number_and_unit() {
        assert_eq!((Figure::QberZ.heading().as_str(), Figure::QberZ.width()), ("QBERz %", 7));
        assert_eq!((Figure::Visibility.heading().as_str(), Figure::Visibility.width()), ("VIS %", 6));
        assert_eq!(Figure::ClockOffset.heading(), "OFFSET us");
        assert_eq!(Figure::Pump.heading(), "PUMP");
        assert_eq!(Figure::Visibility.sentence(Some(0.9865)), "vis 98.65 %");
        assert_eq!(Figure::ClockOffset.sentence(Some(-3_141_592_653.0)), "offset -3141.5927 us");
        assert_eq!(Figure::Pump.sentence(Some(1.0)), "pump 1.000");
        assert_eq!(Figure::GainDecoy.sentence(Some(7.537e-4)), "decoy gain 753.7 ppm");
        for nothing in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            assert_eq!(Figure::SiftedRateZ.sentence(nothing), "Z - /s");
        }
    }
}
