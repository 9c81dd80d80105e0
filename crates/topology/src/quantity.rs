//! Physical quantities as people write them: a number and a unit in one string.
//!
//! A quantity remembers the unit it was written in, so that a document survives a round trip unchanged, and
//! gives its value in the base unit of its dimension: exactly, for what is counted and compared, and as the nearest
//! double, for what is calculated.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use crate::decimal::{DIGITS_MAX, Decimal, DecimalError};
use crate::suggest;

/// Longest text of a quantity that is read.
pub const TEXT_LENGTH_MAX: usize = 40;

/// One unit of a dimension: `value in base unit = number * numerator / denominator`.
///
/// A fraction rather than a factor, so that `85 %` is the double nearest to 0.85.
#[derive(Debug)]
pub struct Unit {
    pub symbol: &'static str,
    numerator: f64,
    denominator: f64,
}

const fn unit(symbol: &'static str, numerator: f64, denominator: f64) -> Unit {
    Unit { symbol, numerator, denominator }
}

impl Unit {
    /// The factor to the base unit as `factor * 10^power`; degrees have none.
    fn exact(&self) -> Option<(i128, i32)> {
        let whole = |number: f64| (number.fract() == 0.0).then_some(number as i128);
        let (factor, mut rest, mut power) = (whole(self.numerator)?, whole(self.denominator)?, 0);
        while rest > 1 && rest % 10 == 0 {
            (rest, power) = (rest / 10, power - 1);
        }
        (rest == 1 && power > -20).then_some((factor, power))
    }
}

/// What a quantity measures: its units and the values that can exist, in the base unit.
pub trait Dimension: 'static {
    /// In running text: "a length".
    const NOUN: &'static str;
    /// Value of `format` in the JSON Schema.
    const FORMAT: &'static str;
    const UNITS: &'static [Unit];
    const MIN: f64;
    const MAX: f64;
    const EXAMPLE: &'static str;
}

/// Why a text is not a quantity of the wanted dimension.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantityError {
    NotANumber,
    TooLong,
    TooManyDigits,
    MissingUnit,
    UnknownUnit { unit: String, suggestion: Option<&'static str>, noun_of_unit: Option<&'static str> },
    Negative,
    TooSmall { min: String },
    TooLarge { max: String },
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantityError::NotANumber => f.write_str("does not start with a number"),
            QuantityError::TooLong => write!(f, "has more than {TEXT_LENGTH_MAX} characters"),
            QuantityError::TooManyDigits => write!(f, "has more than {DIGITS_MAX} digits"),
            QuantityError::MissingUnit => f.write_str("has no unit"),
            QuantityError::UnknownUnit { unit, noun_of_unit: Some(noun), .. } => {
                write!(f, "has the unit \"{unit}\", which is {noun}")
            }
            QuantityError::UnknownUnit { unit, .. } => write!(f, "has the unknown unit \"{unit}\""),
            QuantityError::Negative => f.write_str("is negative"),
            QuantityError::TooSmall { min } => write!(f, "is below {min}"),
            QuantityError::TooLarge { max } => write!(f, "is above {max}"),
        }
    }
}

impl std::error::Error for QuantityError {}

/// A number with a unit of dimension `D`.
pub struct Quantity<D> {
    /// As it was written.
    decimal: Decimal,
    /// The same as the nearest double.
    number: f64,
    unit: usize,
    dimension: PhantomData<fn() -> D>,
}

impl<D: Dimension> Quantity<D> {
    /// The value in the base unit of the dimension (km, ps, dB, 1/s, nm, rad, 1, bit ...).
    pub fn value(&self) -> f64 {
        let unit = &D::UNITS[self.unit];
        self.number * unit.numerator / unit.denominator
    }

    /// The value in the base unit to the last digit; degrees have none.
    pub fn exact(&self) -> Option<Decimal> {
        let (factor, power) = D::UNITS[self.unit].exact()?;
        self.decimal.scaled(factor, power)
    }

    /// The value in the base unit, if that is a whole number.
    pub fn whole(&self) -> Option<i128> {
        self.exact()?.whole()
    }

    /// The value rounded to whole base units, for quantities that count something (ps, bit).
    pub fn rounded(&self) -> u64 {
        // Saturates: a document is checked for absurd values before anything is planned from it.
        self.exact().map_or_else(
            || self.value().round() as u64,
            |exact| u64::try_from(exact.rounded().max(0)).unwrap_or(u64::MAX),
        )
    }

    /// As [`Quantity::rounded`], for quantities of either sign.
    pub fn rounded_signed(&self) -> i64 {
        self.exact().map_or_else(
            || self.value().round() as i64,
            |exact| exact.rounded().clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        )
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self.exact(), other.exact()) {
            (Some(own), Some(other)) => Some(own.cmp(&other)),
            _ => self.value().partial_cmp(&other.value()),
        }
    }

    /// A quantity from a text of this program: panics on a mistake, which a test of the defaults would show.
    pub(crate) fn preset(text: &'static str) -> Self {
        match text.parse() {
            Ok(quantity) => quantity,
            Err(error) => panic!("preset {text} {error}"),
        }
    }
}

impl<D: Dimension> FromStr for Quantity<D> {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (decimal, number, symbol) = split_number(text)?;
        if symbol.is_empty() {
            return Err(QuantityError::MissingUnit);
        }
        let Some(unit) = D::UNITS.iter().position(|unit| unit.symbol == symbol || alias(symbol) == Some(unit.symbol))
        else {
            return Err(unknown_unit::<D>(symbol));
        };
        let quantity = Quantity { decimal, number, unit, dimension: PhantomData };
        let value = quantity.value();
        let base = D::UNITS.first().map_or("", |unit| unit.symbol);
        if value < D::MIN || (D::MIN == 0.0 && decimal.is_negative()) {
            return Err(if D::MIN == 0.0 {
                QuantityError::Negative
            } else {
                QuantityError::TooSmall { min: format!("{} {base}", D::MIN) }
            });
        }
        if value > D::MAX {
            return Err(QuantityError::TooLarge { max: limit_text(D::MAX, &D::UNITS[0]) });
        }
        Ok(quantity)
    }
}

fn limit_text(value: f64, unit: &Unit) -> String {
    let number = value * unit.denominator / unit.numerator;
    if number >= 1e6 { format!("{number:e} {}", unit.symbol) } else { format!("{number} {}", unit.symbol) }
}

/// Splits `3.2e8 /s` into its number and what follows, blanks removed.
fn split_number(text: &str) -> Result<(Decimal, f64, &str), QuantityError> {
    let text = text.trim();
    if text.chars().count() > TEXT_LENGTH_MAX {
        return Err(QuantityError::TooLong);
    }
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            at += 1;
        }
        at
    };
    let start = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let mut end = digits(start);
    if end == start {
        return Err(QuantityError::NotANumber);
    }
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == end + 1 {
            return Err(QuantityError::NotANumber);
        }
        end = fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let decimal = text[..end].parse().map_err(|error| match error {
        DecimalError::NotANumber => QuantityError::NotANumber,
        DecimalError::TooManyDigits => QuantityError::TooManyDigits,
    })?;
    let number: f64 = text[..end].parse().map_err(|_| QuantityError::NotANumber)?;
    if !number.is_finite() {
        return Err(QuantityError::NotANumber);
    }
    Ok((decimal, number, text[end..].trim_start()))
}

/// Other spellings of a unit's symbol.
fn alias(symbol: &str) -> Option<&'static str> {
    match symbol {
        "µs" | "μs" => Some("us"),
        "µm" | "μm" => Some("um"),
        "µrad" | "μrad" => Some("urad"),
        "1/s" => Some("/s"),
        "bits/s" | "bps" => Some("bit/s"),
        "bits" => Some("bit"),
        _ => None,
    }
}

fn unknown_unit<D: Dimension>(symbol: &str) -> QuantityError {
    let symbols = || D::UNITS.iter().map(|unit| unit.symbol);
    let noun_of_unit = DIMENSIONS.iter().find(|d| d.units.iter().any(|u| u.symbol == symbol)).map(|d| d.noun);
    let same_letters = symbols().find(|candidate| candidate.eq_ignore_ascii_case(symbol));
    // A unit of another dimension is a mix-up, not a slip of the pen.
    let suggestion = match (same_letters, noun_of_unit) {
        (Some(same), _) => Some(same),
        (None, Some(_)) => None,
        (None, None) => suggest::nearest(symbol, symbols()),
    };
    QuantityError::UnknownUnit { unit: shortened(symbol), suggestion, noun_of_unit }
}

/// A text of the file as it may stand in a message: one line, printable, not long.
pub(crate) fn shortened(text: &str) -> String {
    let mut out: String = text.chars().take(TEXT_LENGTH_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(TEXT_LENGTH_MAX).is_some() {
        out.push_str("...");
    }
    out
}

// === impl Quantity: what derive cannot do without bounds on D ===

impl<D> Clone for Quantity<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Quantity<D> {}

impl<D: Dimension> PartialEq for Quantity<D> {
    fn eq(&self, other: &Self) -> bool {
        self.order(other) == Some(Ordering::Equal)
    }
}

impl<D: Dimension> PartialOrd for Quantity<D> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.order(other)
    }
}

impl<D: Dimension> fmt::Display for Quantity<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal, D::UNITS[self.unit].symbol)
    }
}

impl<D: Dimension> fmt::Debug for Quantity<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<D: Dimension> Serialize for Quantity<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, D: Dimension> Deserialize<'de> for Quantity<D> {
    fn deserialize<De: Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("\"{}\" {error}", shortened(&text))))
    }
}

impl<D: Dimension> JsonSchema for Quantity<D> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        D::FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let units: Vec<String> = D::UNITS.iter().map(|unit| escaped(unit.symbol)).collect();
        let sign = if D::MIN < 0.0 { "-?" } else { "" };
        let pattern = format!("^{sign}[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)? *({})$", units.join("|"));
        json_schema!({
            "type": "string",
            "format": D::FORMAT,
            "pattern": pattern,
            "maxLength": TEXT_LENGTH_MAX,
            "examples": [D::EXAMPLE],
        })
    }
}

fn escaped(symbol: &str) -> String {
    symbol.replace('(', "\\(").replace(')', "\\)")
}

// === the dimensions ===

/// A dimension as data, for what works on schemas rather than types.
pub(crate) struct DimensionInfo {
    pub noun: &'static str,
    pub format: &'static str,
    pub units: &'static [Unit],
    pub example: &'static str,
    pub check: fn(&str) -> Result<(), QuantityError>,
}

impl DimensionInfo {
    /// "a length such as 19.2 km (units: km, m)".
    pub fn expectation(&self) -> String {
        let units: Vec<&str> = self.units.iter().map(|unit| unit.symbol).collect();
        format!("{} such as \"{}\" (units: {})", self.noun, self.example, units.join(", "))
    }
}

/// The dimension behind the `format` of a schema.
pub(crate) fn dimension(format: &str) -> Option<&'static DimensionInfo> {
    DIMENSIONS.iter().find(|dimension| dimension.format == format)
}

macro_rules! dimensions {
    ($($(#[$doc:meta])* $name:ident, $noun:literal, $format:literal, $range:expr, $example:literal, [$($unit:expr),* $(,)?];)*) => {
        /// Markers of the dimensions.
        pub mod dimension_of {
            $($(#[$doc])* #[derive(Clone, Copy, Debug)] pub struct $name;)*
        }
        $(
            impl Dimension for dimension_of::$name {
                const NOUN: &'static str = $noun;
                const FORMAT: &'static str = $format;
                const UNITS: &'static [Unit] = &[$($unit),*];
                const MIN: f64 = $range.0;
                const MAX: f64 = $range.1;
                const EXAMPLE: &'static str = $example;
            }
            $(#[$doc])*
            pub type $name = Quantity<dimension_of::$name>;
        )*
        static DIMENSIONS: &[DimensionInfo] = &[$(DimensionInfo {
            noun: $noun,
            format: $format,
            units: <dimension_of::$name as Dimension>::UNITS,
            example: $example,
            check: |text| text.parse::<$name>().map(drop),
        }),*];
    };
}

const ANY: (f64, f64) = (-1e30, 1e30);
const POSITIVE: (f64, f64) = (0.0, 1e30);
/// Longest time that fits 64 bits of picoseconds with room for arithmetic: about 26 days.
const TIME_PS_MAX: f64 = 2.3e18;

dimensions! {
    /// Base unit km.
    Length, "a length", "quantity-length", (0.0, 1e6), "19.2 km", [unit("km", 1.0, 1.0), unit("m", 1.0, 1e3)];
    /// Base unit ps; not negative.
    Duration, "a duration", "quantity-duration", (0.0, TIME_PS_MAX), "120 ps", [
        unit("ps", 1.0, 1.0), unit("ns", 1e3, 1.0), unit("us", 1e6, 1.0), unit("ms", 1e9, 1.0),
        unit("s", 1e12, 1.0), unit("min", 6e13, 1.0), unit("h", 3.6e15, 1.0),
    ];
    /// Base unit ps; either sign.
    TimeOffset, "a time difference", "quantity-time-offset", (-TIME_PS_MAX, TIME_PS_MAX), "-2.5 ms", [
        unit("ps", 1.0, 1.0), unit("ns", 1e3, 1.0), unit("us", 1e6, 1.0), unit("ms", 1e9, 1.0), unit("s", 1e12, 1.0),
    ];
    /// Base unit dB.
    Loss, "a loss", "quantity-loss", (0.0, 300.0), "9.8 dB", [unit("dB", 1.0, 1.0)];
    /// Base unit dB/km.
    Attenuation, "an attenuation", "quantity-attenuation", (0.0, 100.0), "0.239 dB/km", [unit("dB/km", 1.0, 1.0)];
    /// Base unit 1/s.
    Rate, "a rate", "quantity-rate", (0.0, 1e13), "3.2e8 /s", [
        unit("/s", 1.0, 1.0), unit("Hz", 1.0, 1.0), unit("cps", 1.0, 1.0), unit("kHz", 1e3, 1.0),
        unit("kcps", 1e3, 1.0), unit("MHz", 1e6, 1.0), unit("Mcps", 1e6, 1.0), unit("GHz", 1e9, 1.0),
    ];
    /// Base unit nm.
    Wavelength, "a wavelength", "quantity-wavelength", (0.0, 1e5), "1560.2 nm",
        [unit("nm", 1.0, 1.0), unit("pm", 1.0, 1e3), unit("um", 1e3, 1.0)];
    /// Base unit ps/nm.
    Dispersion, "a dispersion", "quantity-dispersion", ANY, "-326.4 ps/nm", [unit("ps/nm", 1.0, 1.0)];
    /// Base unit ps/nm/km.
    DispersionCoefficient, "a dispersion per length", "quantity-dispersion-coefficient", ANY, "17 ps/nm/km",
        [unit("ps/nm/km", 1.0, 1.0)];
    /// Base unit rad.
    Angle, "an angle", "quantity-angle", ANY, "0.1 rad",
        [unit("rad", 1.0, 1.0), unit("mrad", 1.0, 1e3), unit("urad", 1.0, 1e6), unit("deg", std::f64::consts::PI, 180.0)];
    /// Base unit rad/s.
    AngularRate, "an angular rate", "quantity-angular-rate", ANY, "1e-7 rad/s",
        [unit("rad/s", 1.0, 1.0), unit("mrad/s", 1.0, 1e3), unit("deg/s", std::f64::consts::PI, 180.0)];
    /// Base unit rad/sqrt(s).
    AngularWalk, "a random walk of an angle", "quantity-angular-walk", POSITIVE, "1e-4 rad/sqrt(s)",
        [unit("rad/sqrt(s)", 1.0, 1.0), unit("mrad/sqrt(s)", 1.0, 1e3)];
    /// Base unit 1; between 0 and 1.
    Fraction, "a fraction", "quantity-fraction", (0.0, 1.0), "85 %",
        [unit("%", 1.0, 1e2), unit("ppm", 1.0, 1e6), unit("ppb", 1.0, 1e9)];
    /// Base unit 1 (7 ps/s is 7e-12).
    FrequencyError, "a relative frequency error", "quantity-frequency-error", (-1e-3, 1e-3), "7 ps/s", [
        unit("ps/s", 1.0, 1e12), unit("ns/s", 1.0, 1e9), unit("us/s", 1.0, 1e6), unit("ppm", 1.0, 1e6),
        unit("ppb", 1.0, 1e9),
    ];
    /// Base unit 1/sqrt(s).
    FrequencyWalk, "a random walk of the relative frequency", "quantity-frequency-walk", POSITIVE, "0.005 ps/s/sqrt(s)",
        [unit("ps/s/sqrt(s)", 1.0, 1e12)];
    /// Base unit ps/sqrt(s).
    TimeWalk, "a random walk of the time", "quantity-time-walk", POSITIVE, "2 ps/sqrt(s)", [unit("ps/sqrt(s)", 1.0, 1.0)];
    /// Base unit bit.
    DataSize, "an amount of data", "quantity-data-size", (0.0, 1e12), "64 kbit",
        [unit("bit", 1.0, 1.0), unit("kbit", 1e3, 1.0), unit("Mbit", 1e6, 1.0)];
    /// Base unit bit/s.
    BitRate, "a bit rate", "quantity-bit-rate", (0.0, 1e15), "7069 bit/s",
        [unit("bit/s", 1.0, 1.0), unit("kbit/s", 1e3, 1.0), unit("Mbit/s", 1e6, 1.0), unit("Gbit/s", 1e9, 1.0)];
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "quantity_tests.rs"]
mod tests;
