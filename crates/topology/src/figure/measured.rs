//! Values of figures by name, as services tell them and views show them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Figure;
use super::listing::OF_EVERY_LINK;

/// Figures that one status may have.
pub const FIGURES_MAX: usize = 64;
/// Characters of the name of a figure, and of its unit.
pub const NAME_CHARS_MAX: usize = 48;
pub const UNIT_CHARS_MAX: usize = 16;

/// What was measured, or predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    Value(f64),
    /// `count` of `total` cases, such as errors of bits: so its uncertainty is known.
    Ratio {
        count: u64,
        total: u64,
    },
}

impl Measured {
    /// `count` of `total`; nothing of nothing is no measurement.
    pub fn ratio(count: u64, total: u64) -> Option<Self> {
        (total > 0 && count <= total).then_some(Self::Ratio { count, total })
    }

    pub fn value(self) -> f64 {
        match self {
            Self::Value(value) => value,
            Self::Ratio { count, total } => count as f64 / total as f64,
        }
    }

    /// One standard deviation, where the measurement says it.
    pub fn deviation(self) -> Option<f64> {
        match self {
            Self::Value(_) => None,
            Self::Ratio { total, .. } => {
                let p = self.value();
                Some((p * (1.0 - p) / total as f64).sqrt())
            }
        }
    }

    fn is_sound(self) -> bool {
        match self {
            Self::Value(value) => value.is_finite(),
            Self::Ratio { count, total } => Self::ratio(count, total).is_some(),
        }
    }
}

/// Figures of a link by name, in the units of the registry. What was not measured is not there, nor what is no number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<Cow<'static, str>, Told>);

#[derive(Clone, Debug, PartialEq)]
struct Told {
    unit: Cow<'static, str>,
    measured: Measured,
}

impl Figures {
    pub fn of<V: Into<Option<f64>>, const N: usize>(values: [(Figure, V); N]) -> Self {
        let mut figures = Self::default();
        for (figure, value) in values {
            figures.set(figure, value.into().map(Measured::Value));
        }
        figures
    }

    /// Replaces the value of a figure; with none it is unknown from here on.
    pub fn set(&mut self, figure: Figure, measured: impl Into<Option<Measured>>) {
        match measured.into().filter(|measured| measured.is_sound()) {
            Some(measured) => drop(self.0.insert(figure.name().into(), Told { unit: figure.unit().into(), measured })),
            None => drop(self.0.remove(figure.name())),
        }
    }

    /// Enters what another process tells, which may be newer or hostile. What has no sound name, unit or value, what
    /// has another unit than the registry's, what is told twice and what is too much is left out.
    pub fn hear(&mut self, name: &str, unit: &str, measured: Measured) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_named = (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_name);
        let has_unit = (1..=UNIT_CHARS_MAX).contains(&unit.len()) && unit.chars().all(|c| c.is_ascii_graphic());
        if !is_named || !has_unit || !measured.is_sound() || self.0.len() >= FIGURES_MAX || self.0.contains_key(name) {
            return;
        }
        match Figure::of_name(name) {
            Some(figure) if figure.unit() == unit => self.set(figure, measured),
            Some(_) => {}
            None => drop(self.0.insert(name.to_owned().into(), Told { unit: unit.to_owned().into(), measured })),
        }
    }

    pub fn get(&self, figure: Figure) -> Option<Measured> {
        self.0.get(figure.name()).map(|told| told.measured)
    }

    pub fn value(&self, figure: Figure) -> Option<f64> {
        self.get(figure).map(Measured::value)
    }

    /// Name, unit and value of each, by name; also of those that only newer versions know.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Measured)> {
        self.0.iter().map(|(name, told)| (&**name, &*told.unit, told.measured))
    }

    /// Leaves what is known while nothing is measured.
    pub fn retain_set(&mut self) {
        self.0.retain(|name, _| Figure::of_name(name).is_some_and(Figure::is_set));
    }

    /// Takes the rates that every link has of what was counted over all its blocks, unless they are there. Its ratios
    /// are means of a run and no last measurements.
    pub fn complete(&mut self, mut counted: Self) {
        for name in OF_EVERY_LINK.map(Figure::name) {
            if let Some(told) = counted.0.remove(name) {
                self.0.entry(Cow::Borrowed(name)).or_insert(told);
            }
        }
    }

    /// Adds the cases of ratios to those that are there.
    pub fn count(&mut self, more: &Self) {
        for (name, told) in &more.0 {
            let Measured::Ratio { count, total } = told.measured else { continue };
            match self.0.get_mut(name).map(|known| &mut known.measured) {
                Some(Measured::Ratio { count: known, total: of }) => {
                    *known = known.saturating_add(count);
                    *of = of.saturating_add(total);
                }
                _ => drop(self.0.insert(name.clone(), told.clone())),
            }
        }
    }
}

impl Serialize for Figures {
    /// `{"qberZ": 0.0424, ...}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, _, measured) in self.iter() {
            map.serialize_entry(name, &measured.value())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(figures: &Figures) -> String {
        serde_json::to_string(figures).expect("plain numbers")
    }

    #[test]
    fn figures_have_their_names_and_what_is_not_measured_or_no_number_is_left_out() {
        let values = [(Figure::QberZ, Some(0.0424)), (Figure::QberX, None), (Figure::PeakWidth, Some(f64::NAN))];
        assert_eq!(json(&Figures::of(values)), r#"{"qberZ":0.0424}"#);
        assert_eq!(json(&Figures::of([(Figure::Pump, 1.5)])), r#"{"pump":1.5}"#);
        let mut figures = Figures::of([(Figure::Pump, 1.5)]);
        figures.set(Figure::Pump, Measured::Value(f64::INFINITY));
        figures.set(Figure::QberZ, Measured::ratio(0, 0));
        assert_eq!(figures, Figures::default());
    }

    #[test]
    fn a_ratio_knows_how_uncertain_it_is_and_a_value_does_not() {
        let errors = Measured::ratio(40, 1000).expect("of something");
        assert!((errors.value() - 0.04).abs() < 1e-12);
        assert!((errors.deviation().expect("of counts") - 0.006_197).abs() < 1e-6);
        assert_eq!(Measured::Value(0.04).deviation(), None);
        assert_eq!((Measured::ratio(0, 0), Measured::ratio(2, 1)), (None, None));
        assert_eq!(Measured::ratio(0, 5).map(Measured::value), Some(0.0));
    }

    #[test]
    fn what_a_newer_or_hostile_process_tells_is_known_by_name_or_left_out() {
        let mut figures = Figures::default();
        figures.hear("heraldingRatio", "1", Measured::Value(0.004));
        figures.hear("qberZ", "1", Measured::Ratio { count: 4, total: 100 });
        let sound = r#"{"heraldingRatio":0.004,"qberZ":0.04}"#;
        assert_eq!(json(&figures), sound);
        for (name, unit, measured) in [
            ("qberZ", "1", Measured::Value(0.5)),
            ("peakWidth", "ns", Measured::Value(1.0)),
            ("pump", "1", Measured::Value(f64::NAN)),
            ("qberX", "1", Measured::Ratio { count: 2, total: 1 }),
            ("qberX", "1", Measured::Ratio { count: 0, total: 0 }),
            ("", "1", Measured::Value(1.0)),
            ("esc\u{1b}[2J", "1", Measured::Value(1.0)),
            ("temperature", "", Measured::Value(1.0)),
            ("temperature", "\u{7}", Measured::Value(1.0)),
            ("n".repeat(NAME_CHARS_MAX + 1).as_str(), "1", Measured::Value(1.0)),
            ("temperature", "K".repeat(UNIT_CHARS_MAX + 1).as_str(), Measured::Value(1.0)),
        ] {
            figures.hear(name, unit, measured);
            assert_eq!(json(&figures), sound, "{name:?} {unit:?} {measured:?}");
        }
        for number in 0..1000 {
            figures.hear(&format!("figure{number}"), "1", Measured::Value(1.0));
        }
        assert_eq!(figures.iter().count(), FIGURES_MAX);
    }

    #[test]
    fn cases_of_ratios_add_up_and_those_told_first_stay() {
        let block = |count, total| {
            let mut figures = Figures::default();
            figures.set(Figure::QberZ, Measured::ratio(count, total));
            figures
        };
        let mut sum = Figures::default();
        for (count, total) in [(4, 100), (0, 0), (6, 100), (u64::MAX, u64::MAX)] {
            sum.count(&block(count, total));
        }
        assert_eq!(sum.get(Figure::QberZ), Some(Measured::Ratio { count: u64::MAX, total: u64::MAX }));
        let mut last = block(6, 100);
        last.complete(sum);
        assert_eq!(last, block(6, 100));
        last.set(Figure::Pump, Measured::Value(1.5));
        last.retain_set();
        assert_eq!(json(&last), r#"{"pump":1.5}"#);
    }
}
