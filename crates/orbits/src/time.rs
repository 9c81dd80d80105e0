//! Universal time as seconds, and the angle by which the Earth has turned.

use std::fmt;
use std::str::FromStr;

use libm::fmod;

const TAU: f64 = std::f64::consts::TAU;
pub const SECONDS_PER_DAY: f64 = 86_400.0;
/// Julian date of 1970-01-01T00:00:00Z.
const JULIAN_DATE_OF_UNIX: f64 = 2_440_587.5;
/// Julian date of 2000-01-01T12:00:00.
const JULIAN_DATE_OF_J2000: f64 = 2_451_545.0;

/// A moment: seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Utc(f64);

/// Why a text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a time in UTC")]
pub struct TimeError {
    text: String,
}

impl TimeError {
    /// What stands in messages after "expected".
    pub const EXPECTED: &'static str = "a time such as 2016-12-19T16:48:00Z, between the years 1957 and 2200";
}

impl Utc {
    pub const fn from_unix_s(unix_s: f64) -> Self {
        Self(unix_s)
    }

    pub const fn unix_s(self) -> f64 {
        self.0
    }

    pub fn plus_s(self, seconds: f64) -> Self {
        Self(self.0 + seconds)
    }

    /// Seconds from `earlier` to this.
    pub fn since_s(self, earlier: Utc) -> f64 {
        self.0 - earlier.0
    }

    /// Centuries since 2000-01-01T12:00:00.
    pub(crate) fn centuries(self) -> f64 {
        self.days_since_j2000() / 36_525.0
    }

    /// Days since 2000-01-01T12:00:00.
    pub(crate) fn days_since_j2000(self) -> f64 {
        self.0 / SECONDS_PER_DAY + (JULIAN_DATE_OF_UNIX - JULIAN_DATE_OF_J2000)
    }

    /// Greenwich mean sidereal time (IAU 1982), rad.
    pub(crate) fn sidereal_rad(self) -> f64 {
        let t = self.centuries();
        // A turn a day since noon: whole days are left out before anything is added, so that no digit is lost.
        let turned_s = fmod(self.0 + 43_200.0, SECONDS_PER_DAY);
        let drift_s = 67_310.548_41 + t * (8_640_184.812_866 + t * (0.093_104 - t * 6.2e-6));
        let seconds = fmod(turned_s + drift_s, SECONDS_PER_DAY);
        let angle = seconds / SECONDS_PER_DAY * TAU;
        if angle < 0.0 { angle + TAU } else { angle }
    }
}

impl FromStr for Utc {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let error = || TimeError { text: text.chars().take(40).collect() };
        let stamp: jiff::Timestamp = text.parse().map_err(|_| error())?;
        let unix_s = stamp.as_microsecond() as f64 * 1e-6;
        let (first, last) = (-410_227_200.0, 7_258_118_400.0);
        // Other offsets than Z would hide what simulated time counts from.
        let good = text.ends_with('Z') && (first..last).contains(&unix_s);
        good.then_some(Self(unix_s)).ok_or_else(error)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(libm::round(self.0) as i64) {
            Ok(stamp) => fmt::Display::fmt(&stamp, f),
            Err(_) => write!(f, "{} s", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_and_printed_and_others_are_refused() {
        let moment: Utc = "2016-12-19T16:48:00Z".parse().unwrap();
        assert_eq!(moment.unix_s(), 1_482_166_080.0);
        assert_eq!(moment.to_string(), "2016-12-19T16:48:00Z");
        for bad in ["", "2016-12-19", "2016-12-19T16:48:00+08:00", "1900-01-01T00:00:00Z", "9000-01-01T00:00:00Z"] {
            assert!(bad.parse::<Utc>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sidereal_time_is_that_of_the_almanac() {
        // Meeus, Astronomical Algorithms, examples 12.a and 12.b: 1987 April 10, 0 h and 19:21:00 UT.
        for (text, hours) in [
            ("1987-04-10T00:00:00Z", 13.0 + 10.0 / 60.0 + 46.3668 / 3600.0),
            ("1987-04-10T19:21:00Z", 8.0 + 34.0 / 60.0 + 57.0896 / 3600.0),
        ] {
            let angle = text.parse::<Utc>().unwrap().sidereal_rad();
            assert!((angle / TAU * 24.0 - hours).abs() < 1e-6 / 3.6, "{text}: {}", angle / TAU * 24.0);
        }
    }
}
