//! Sun and Moon, as exactly as the brightness of a sky needs: a hundredth of a degree for the Sun, a third for the Moon
//! (the low-precision series of the Astronomical Almanac).

#[cfg(test)]
use libm::{asin, atan2};
use libm::{cos, sin};

use crate::frames::Vector;
use crate::station::{EQUATOR_KM, Station};
use crate::time::Utc;

const ASTRONOMICAL_UNIT_KM: f64 = 149_597_870.7;

/// How bright a night is, by what is above the horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sky {
    pub sun_elevation_deg: f64,
    pub moon_elevation_deg: f64,
    /// Lit part of the Moon's disc, 0 to 1.
    pub moon_lit: f64,
}

impl Sky {
    pub fn at(station: &Station, at: Utc) -> Self {
        let (sun, moon) = (sun(at), moon(at));
        // Elongation: the Sun is so far that its direction from the Earth is that from the Moon within 0.15 degrees.
        let cosine = sun.dot(moon) / (sun.norm() * moon.norm());
        let elevation = |body: Vector| station.look(body.to_earth(at)).elevation_deg;
        Self {
            sun_elevation_deg: elevation(sun),
            moon_elevation_deg: elevation(moon),
            moon_lit: 0.5 * (1.0 - cosine.clamp(-1.0, 1.0)),
        }
    }
}

fn radians(degrees: f64) -> f64 {
    libm::fmod(degrees, 360.0).to_radians()
}

/// From the centre of the Earth, equator and equinox of date, km.
fn sun(at: Utc) -> Vector {
    let days = at.days_since_j2000();
    let anomaly = radians(357.528 + 0.985_600_3 * days);
    let longitude = radians(280.460 + 0.985_647_4 * days + 1.915 * sin(anomaly) + 0.020 * sin(2.0 * anomaly));
    let distance = 1.000_14 - 0.016_71 * cos(anomaly) - 0.000_14 * cos(2.0 * anomaly);
    from_ecliptic(longitude, 0.0, distance * ASTRONOMICAL_UNIT_KM, days)
}

fn moon(at: Utc) -> Vector {
    let t = at.centuries();
    let sine = |start: f64, rate: f64| sin(radians(start + rate * t));
    let cosine = |start: f64, rate: f64| cos(radians(start + rate * t));
    let longitude = 218.32 + 481_267.881 * t + 6.29 * sine(135.0, 477_198.87) - 1.27 * sine(259.3, -413_335.36)
        + 0.66 * sine(235.7, 890_534.22)
        + 0.21 * sine(269.9, 954_397.74)
        - 0.19 * sine(357.5, 35_999.05)
        - 0.11 * sine(186.5, 966_404.03);
    let latitude = 5.13 * sine(93.3, 483_202.02) + 0.28 * sine(228.2, 960_400.89)
        - 0.28 * sine(318.3, 6_003.15)
        - 0.17 * sine(217.6, -407_332.21);
    let parallax = 0.9508
        + 0.0518 * cosine(135.0, 477_198.87)
        + 0.0095 * cosine(259.3, -413_335.36)
        + 0.0078 * cosine(235.7, 890_534.22)
        + 0.0028 * cosine(269.9, 954_397.74);
    let distance_km = EQUATOR_KM / sin(parallax.to_radians());
    from_ecliptic(radians(longitude), latitude.to_radians(), distance_km, at.days_since_j2000())
}

fn from_ecliptic(longitude: f64, latitude: f64, distance_km: f64, days: f64) -> Vector {
    let obliquity = (23.439 - 4e-7 * days).to_radians();
    let flat = distance_km * cos(latitude);
    let (x, y, z) = (flat * cos(longitude), flat * sin(longitude), distance_km * sin(latitude));
    Vector::new(x, y * cos(obliquity) - z * sin(obliquity), y * sin(obliquity) + z * cos(obliquity))
}

/// Right ascension and declination in degrees, and the distance.
#[cfg(test)]
fn equatorial(body: Vector) -> (f64, f64, f64) {
    let ascension = atan2(body.y, body.x).to_degrees();
    let ascension = if ascension < 0.0 { ascension + 360.0 } else { ascension };
    (ascension, asin(body.z / body.norm()).to_degrees(), body.norm())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sun_is_where_the_almanac_has_it() {
        // Meeus, Astronomical Algorithms, example 25.a: 1992 October 13, 0 h TD.
        let (ascension, declination, km) = equatorial(sun("1992-10-13T00:00:00Z".parse().unwrap()));
        assert!((ascension - 198.380).abs() < 0.02, "{ascension}");
        assert!((declination + 7.785).abs() < 0.02, "{declination}");
        assert!((km / ASTRONOMICAL_UNIT_KM - 0.997_66).abs() < 1e-4);
    }

    #[test]
    fn the_moon_is_where_the_almanac_has_it() {
        // Meeus, example 47.a: 1992 April 12, 0 h TD; and 48.a: 0.6786 of the disc are lit.
        let at: Utc = "1992-04-12T00:00:00Z".parse().unwrap();
        let (ascension, declination, km) = equatorial(moon(at));
        assert!((ascension - 134.688).abs() < 0.4, "{ascension}");
        assert!((declination - 13.768).abs() < 0.3, "{declination}");
        assert!((km / 368_409.7 - 1.0).abs() < 0.01, "{km}");
        let sky = Sky::at(&Station::new(0.0, 0.0, 0.0), at);
        assert!((sky.moon_lit - 0.6786).abs() < 0.01, "{}", sky.moon_lit);
    }

    #[test]
    fn the_sun_is_overhead_at_noon_of_an_equinox() {
        // Equinox of 2016 March 20, 04:30 UTC; the equation of time is -7.5 min then: noon at 0 E is at 12:07:30.
        let station = Station::new(0.0, 112.5 + 1.9, 0.0);
        let sky = Sky::at(&station, "2016-03-20T04:30:00Z".parse().unwrap());
        assert!(sky.sun_elevation_deg > 89.8, "{}", sky.sun_elevation_deg);
        let night = Sky::at(&Station::new(0.0, -67.5, 0.0), "2016-03-20T04:30:00Z".parse().unwrap());
        assert!(night.sun_elevation_deg < -80.0);
    }
}
