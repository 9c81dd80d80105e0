//! Two-line elements, and SGP4 on them.

use sgp4::chrono::NaiveDateTime;

use crate::frames::Vector;
use crate::time::Utc;

/// Orbits that take longer are those of the model's deep space, and hardly set.
pub(crate) const PERIOD_S_MAX: f64 = 225.0 * 60.0;

/// Characters of each line.
const LENGTH: usize = 69;

/// Elements of a satellite as catalogues give them.
#[derive(Clone)]
pub struct TwoLineElements {
    epoch: Utc,
    period_s: f64,
    lowest_km: f64,
    model: std::sync::Arc<sgp4::Constants>,
}

/// One of the two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    First,
    Second,
}

/// Why two lines are no elements.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ElementsError {
    #[error("a line of {found} characters")]
    Length { line: Line, found: usize },
    #[error("the line begins with \"{found}\"")]
    Number { line: Line, found: String },
    #[error("the checksum is {found}, the line's digits give {computed}")]
    Checksum { line: Line, found: char, computed: u32 },
    #[error("lines of two satellites, {first} and {second}")]
    TwoSatellites { first: String, second: String },
    #[error("{what}")]
    Field { line: Line, what: String },
    #[error("an orbit that takes {minutes:.0} min")]
    Slow { minutes: f64 },
    #[error("an orbit whose lowest point is {lowest_km:.0} km above the ground")]
    BelowTheGround { lowest_km: f64 },
    #[error("no orbit: {what}")]
    NoOrbit { what: String },
}

impl ElementsError {
    /// Which line is wrong, where it is one of them.
    pub fn line(&self) -> Option<Line> {
        match self {
            Self::Length { line, .. } | Self::Number { line, .. } | Self::Checksum { line, .. } => Some(*line),
            Self::Field { line, .. } => Some(*line),
            Self::TwoSatellites { .. } | Self::Slow { .. } | Self::BelowTheGround { .. } | Self::NoOrbit { .. } => None,
        }
    }

    /// What stands in messages after "expected".
    pub fn expected(&self) -> String {
        match self {
            Self::Length { .. } => format!("{LENGTH} characters"),
            Self::Number { line: Line::First, .. } => "a line that begins with \"1 \"".to_owned(),
            Self::Number { line: Line::Second, .. } => "a line that begins with \"2 \"".to_owned(),
            Self::Checksum { .. } => "the line as the catalogue has it: one character of it differs".to_owned(),
            Self::TwoSatellites { .. } => "both lines of one satellite".to_owned(),
            Self::Field { .. } | Self::NoOrbit { .. } => "two-line elements".to_owned(),
            Self::Slow { .. } => "at most 225 min".to_owned(),
            Self::BelowTheGround { .. } => "an orbit above the ground".to_owned(),
        }
    }
}

impl std::fmt::Debug for TwoLineElements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwoLineElements").field("epoch", &self.epoch).field("period_s", &self.period_s).finish()
    }
}

impl TwoLineElements {
    pub fn parse(first: &str, second: &str) -> Result<Self, ElementsError> {
        line(Line::First, first)?;
        line(Line::Second, second)?;
        let (number, other) = (&first[2..7], &second[2..7]);
        if number != other {
            return Err(ElementsError::TwoSatellites { first: number.to_owned(), second: other.to_owned() });
        }
        let elements = sgp4::Elements::from_tle(None, first.as_bytes(), second.as_bytes()).map_err(|error| {
            let what = error.to_string();
            let line = if what.contains("line 2") { Line::Second } else { Line::First };
            ElementsError::Field { line, what }
        })?;
        let period_s = 86_400.0 / elements.mean_motion;
        if elements.mean_motion <= 0.0 || period_s > PERIOD_S_MAX {
            return Err(ElementsError::Slow { minutes: period_s / 60.0 });
        }
        let axis_km = crate::kepler::semi_major_axis_km(period_s);
        let lowest_km = axis_km * (1.0 - elements.eccentricity) - crate::station::EQUATOR_KM;
        if lowest_km <= 0.0 {
            return Err(ElementsError::BelowTheGround { lowest_km });
        }
        // Catalogues fit their elements with the constants of WGS 72.
        let model = sgp4::Constants::from_elements_afspc_compatibility_mode(&elements)
            .map_err(|error| ElementsError::NoOrbit { what: error.to_string() })?;
        Ok(Self { epoch: moment(elements.datetime), period_s, lowest_km, model: std::sync::Arc::new(model) })
    }

    /// When they held.
    pub fn epoch(&self) -> Utc {
        self.epoch
    }

    pub(crate) fn period_s(&self) -> f64 {
        self.period_s
    }

    /// Lowest height above the equator's radius, by the mean elements.
    pub fn lowest_km(&self) -> f64 {
        self.lowest_km
    }

    /// True equator, mean equinox of date; the reason where the model breaks down.
    pub(crate) fn position(&self, at: Utc) -> Result<Vector, String> {
        let minutes = at.since_s(self.epoch) / 60.0;
        let since = sgp4::MinutesSinceEpoch(minutes);
        let predicted = self.model.propagate_afspc_compatibility_mode(since).map_err(|error| error.to_string())?;
        let [x, y, z] = predicted.position;
        Ok(Vector::new(x, y, z))
    }
}

fn moment(datetime: NaiveDateTime) -> Utc {
    Utc::from_unix_s(datetime.and_utc().timestamp_micros() as f64 * 1e-6)
}

/// What a line must be before its fields are read, so that what is wrong has a name.
fn line(which: Line, text: &str) -> Result<(), ElementsError> {
    if text.len() != LENGTH || !text.is_ascii() {
        return Err(ElementsError::Length { line: which, found: text.chars().count() });
    }
    let begins = if which == Line::First { "1 " } else { "2 " };
    if !text.starts_with(begins) {
        return Err(ElementsError::Number { line: which, found: text[..2].to_owned() });
    }
    let sum: u32 = text[..LENGTH - 1]
        .chars()
        .map(|character| match character {
            '-' => 1,
            digit => digit.to_digit(10).unwrap_or(0),
        })
        .sum();
    let found = char::from(text.as_bytes()[LENGTH - 1]);
    if found.to_digit(10) != Some(sum % 10) {
        return Err(ElementsError::Checksum { line: which, found, computed: sum % 10 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_published_test_set() {
        // Vallado et al., AIAA 2006-6753, satellite 00005; and Micius by an independent implementation of the same.
        let vanguard = [
            "1 00005U 58002B   00179.78495062  .00000023  00000-0  28098-4 0  4753",
            "2 00005  34.2682 348.7242 1859667 331.7664  19.3264 10.82419157413667",
        ];
        let micius = [
            "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
            "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
        ];
        for (lines, minutes, expected) in [
            (vanguard, 0.0, [7022.465_292_66, -1400.082_967_55, 0.039_951_55]),
            (vanguard, 360.0, [-7154.031_202_02, -3783.176_825_04, -3536.194_122_94]),
            (micius, 0.0, [-926.671_245, -2921.348_189, 6148.162_158]),
            (micius, 720.0, [780.042_594, -1933.141_938, -6559.203_067]),
        ] {
            let elements = TwoLineElements::parse(lines[0], &lines[1][..69]).unwrap();
            let found = elements.position(elements.epoch().plus_s(60.0 * minutes)).unwrap();
            let [x, y, z] = expected;
            let off_km = found.minus(Vector::new(x, y, z)).norm();
            // A moment is known to a quarter of a microsecond, in which a satellite goes 2 mm.
            assert!(off_km < 5e-6, "{minutes}: {off_km} km");
        }
    }
}
