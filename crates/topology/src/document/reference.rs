//! What was published about a link, and how close a run must come.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::figure::Figure;
use crate::quantity::{BitRate, Duration, Fraction, QuantityError, TEXT_LENGTH_MAX};

/// A published figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    /// What was measured.
    pub quantity: Measure,
    /// The published value.
    pub value: ReferenceValue,
    /// How far a run may be away: `5 %` of the value, `0.2 pp` (percentage points), or `factor 1.3`; `exact`, or `at least`
    /// the value.
    pub tolerance: Tolerance,
    /// Where it was published. What begins with `fitted:` is shown beside what is measured, without a verdict.
    #[schemars(length(min = 1, max = 500))]
    pub source: String,
    /// Share of the time in which the published system made key, by which a measured key rate is multiplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duty: Option<Fraction>,
}

impl Reference {
    /// Whether a parameter was chosen to meet the value, so that meeting it proves nothing.
    pub fn is_fitted(&self) -> bool {
        is_fitted(&self.source)
    }
}

pub(crate) fn is_fitted(source: &str) -> bool {
    source.starts_with("fitted:")
}

/// What can be compared with a published figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// Secret bits per simulated second, in bit/s.
    SecretKeyRate,
    /// Error rate in basis Z, in %.
    QberZ,
    /// Error rate in basis X, in %.
    QberX,
    /// Detections per pulse of the signal intensity, or of single photons, in ppm.
    GainSignal,
    /// The same of the decoy intensity.
    GainDecoy,
    /// The same of the vacuum, or of the intensity nearest to it.
    GainVacuum,
    /// Full width at half maximum of the coincidence peak, in ps.
    PeakWidth,
    /// How often light came back after an outage, or with a new session.
    Restarts,
    /// How often a person ordered an end of the link to go on.
    Interventions,
    /// Share of simulated time in which the link had a session with light, in %.
    Availability,
}

impl Measure {
    /// What it is a measure of.
    pub fn figure(self) -> Figure {
        match self {
            Measure::SecretKeyRate => Figure::SecretKeyRate,
            Measure::QberZ => Figure::QberZ,
            Measure::QberX => Figure::QberX,
            Measure::GainSignal => Figure::GainSignal,
            Measure::GainDecoy => Figure::GainDecoy,
            Measure::GainVacuum => Figure::GainVacuum,
            Measure::PeakWidth => Figure::PeakWidth,
            Measure::Restarts => Figure::Restarts,
            Measure::Interventions => Figure::Interventions,
            Measure::Availability => Figure::Availability,
        }
    }

    /// Name as it stands in a document.
    pub fn name(self) -> &'static str {
        self.figure().name()
    }

    /// Unit in which values are shown.
    pub fn unit(self) -> &'static str {
        match self {
            Measure::QberZ | Measure::QberX | Measure::Availability => "%",
            Measure::GainSignal | Measure::GainDecoy | Measure::GainVacuum => "ppm",
            Measure::SecretKeyRate | Measure::PeakWidth | Measure::Restarts | Measure::Interventions => {
                self.figure().unit()
            }
        }
    }

    /// Whether it says how often something happened: known exactly, and without a unit.
    pub fn is_counted(self) -> bool {
        matches!(self, Measure::Restarts | Measure::Interventions)
    }

    /// Whether it is about a whole run: it is known at its end, and does not scatter.
    pub fn is_of_a_run(self) -> bool {
        self.is_counted() || self == Measure::Availability
    }

    /// A value of 1, in the unit in which values are shown.
    pub fn scale(self) -> f64 {
        match self.unit() {
            "%" => 100.0,
            "ppm" => 1e6,
            _ => 1.0,
        }
    }

    pub(crate) fn fits(self, value: ReferenceValue) -> bool {
        matches!(
            (self, value),
            (Measure::SecretKeyRate, ReferenceValue::BitRate(_))
                | (
                    Measure::QberZ
                        | Measure::QberX
                        | Measure::GainSignal
                        | Measure::GainDecoy
                        | Measure::GainVacuum
                        | Measure::Availability,
                    ReferenceValue::Fraction(_)
                )
                | (Measure::Restarts | Measure::Interventions, ReferenceValue::Count(_))
                | (Measure::PeakWidth, ReferenceValue::Duration(_))
        )
    }
}

/// A published value; its unit must fit the quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReferenceValue {
    BitRate(BitRate),
    Fraction(Fraction),
    Duration(Duration),
    Count(u32),
}

impl ReferenceValue {
    /// The value in bit/s, as a fraction of 1, in ps, or the count.
    pub fn value(self) -> f64 {
        match self {
            ReferenceValue::BitRate(rate) => rate.value(),
            ReferenceValue::Fraction(fraction) => fraction.value(),
            ReferenceValue::Duration(duration) => duration.value(),
            ReferenceValue::Count(count) => f64::from(count),
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, QuantityError> {
        if let Some(count) = text.strip_suffix("times").and_then(|count| count.trim_end().parse().ok()) {
            return Ok(ReferenceValue::Count(count));
        }
        let rate = text.parse().map(ReferenceValue::BitRate);
        rate.or_else(|error| {
            let fraction = text.parse().map(ReferenceValue::Fraction);
            fraction.or_else(|_| text.parse().map(ReferenceValue::Duration)).map_err(|_| error)
        })
    }
}

impl fmt::Display for ReferenceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReferenceValue::BitRate(rate) => rate.fmt(f),
            ReferenceValue::Fraction(fraction) => fraction.fmt(f),
            ReferenceValue::Duration(duration) => duration.fmt(f),
            ReferenceValue::Count(count) => write!(f, "{count} times"),
        }
    }
}

/// How far a measured value may be from a published one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// A part of the published value: `5 %` is 0.05.
    Relative(f64),
    /// A difference of two percentages: `0.2 pp` is 0.002.
    Points(f64),
    /// Between the value divided and multiplied by this.
    Factor(f64),
    /// No difference at all.
    Exact,
    /// The published value is a bound: as much, or more.
    AtLeast,
}

impl Tolerance {
    pub fn accepts(self, published: f64, measured: f64) -> bool {
        let difference = (measured - published).abs();
        match self {
            Tolerance::Relative(part) => difference <= part * published.abs(),
            Tolerance::Points(points) => difference <= points,
            Tolerance::Factor(factor) => measured <= published * factor && measured * factor >= published,
            Tolerance::Exact => measured == published,
            Tolerance::AtLeast => measured >= published,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_LENGTH_MAX {
            return None;
        }
        let text = text.trim();
        match text {
            "exact" => return Some(Tolerance::Exact),
            "at least" => return Some(Tolerance::AtLeast),
            _ => {}
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        if let Some(factor) = text.strip_prefix("factor ") {
            return number(factor).filter(|factor| *factor >= 1.0).map(Tolerance::Factor);
        }
        if let Some(points) = text.strip_suffix("pp") {
            return number(points).map(|points| Tolerance::Points(points / 100.0));
        }
        number(text.strip_suffix('%')?).map(|percent| Tolerance::Relative(percent / 100.0))
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to 1e-6 of a percent, which hides the binary fraction that the division left.
        let percent = |part: f64| (part * 1e8).round() / 1e6;
        match *self {
            Tolerance::Relative(part) => write!(f, "{} %", percent(part)),
            Tolerance::Points(points) => write!(f, "{} pp", percent(points)),
            Tolerance::Factor(factor) => write!(f, "factor {factor}"),
            Tolerance::Exact => f.write_str("exact"),
            Tolerance::AtLeast => f.write_str("at least"),
        }
    }
}

pub(crate) const VALUE_FORMAT: &str = "quantity-reference";
pub(crate) const TOLERANCE_FORMAT: &str = "quantity-tolerance";

impl Serialize for ReferenceValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReferenceValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ReferenceValue::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Tolerance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tolerance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tolerance::parse(&String::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("not a tolerance"))
    }
}

impl JsonSchema for ReferenceValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ReferenceValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": VALUE_FORMAT,
            "pattern": "^[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)? *(bit/s|kbit/s|Mbit/s|Gbit/s|%|ppm|ppb|ps|ns|us|ms|s|min|h|times)$",
            "maxLength": TEXT_LENGTH_MAX,
            "examples": ["7069 bit/s", "4.24 %", "9 times"],
        })
    }
}

impl JsonSchema for Tolerance {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Tolerance".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": TOLERANCE_FORMAT,
            "pattern": "^([0-9]+(\\.[0-9]+)? *(%|pp)|factor [0-9]+(\\.[0-9]+)?|exact|at least)$",
            "maxLength": TEXT_LENGTH_MAX,
            "examples": ["5 %", "0.2 pp", "factor 1.3", "exact", "at least"],
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_mean_what_they_say() {
        let parse = |text| Tolerance::parse(text).unwrap();
        assert!(parse("5 %").accepts(7069.0, 7400.0));
        assert!(!parse("5 %").accepts(7069.0, 7500.0));
        assert!(parse("0.2 pp").accepts(0.0424, 0.0443));
        assert!(!parse("0.2 pp").accepts(0.0424, 0.0445));
        assert!(parse("factor 1.3").accepts(175.0, 225.0));
        assert!(parse("factor 1.3").accepts(175.0, 136.0));
        assert!(!parse("factor 1.3").accepts(175.0, 130.0));
        assert_eq!(Tolerance::parse("5"), None);
        assert_eq!(Tolerance::parse("-5 %"), None);
        assert_eq!(Tolerance::parse("factor 0.5"), None);
        assert!(parse("exact").accepts(9.0, 9.0) && !parse("exact").accepts(9.0, 10.0));
        assert!(parse("at least").accepts(0.99, 0.992) && !parse("at least").accepts(0.99, 0.989));
        for text in ["5 %", "0.2 pp", "factor 1.3", "0.05 %", "exact", "at least"] {
            assert_eq!(parse(text).to_string(), text);
        }
    }
}
