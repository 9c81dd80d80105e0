//! Orbits by their shape: an ellipse, with the secular drifts that the Earth's flattening (J2) causes.

use libm::{cbrt, cos, fmod, sin, sqrt};

use crate::frames::Vector;
use crate::station::EQUATOR_KM;
use crate::time::Utc;

const TAU: f64 = std::f64::consts::TAU;
/// WGS 84.
const GRAVITY_KM3_PER_S2: f64 = 398_600.441_8;
const J2: f64 = 1.082_626_68e-3;
/// Air stops what is lower within hours.
const LOWEST_KM: f64 = 120.0;

/// Mean elements at an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kepler {
    pub epoch: Utc,
    /// Mean height above the radius of the equator: semi-major axis less that.
    pub altitude_km: f64,
    pub eccentricity: f64,
    pub inclination_rad: f64,
    /// Right ascension of the ascending node.
    pub node_rad: f64,
    pub perigee_rad: f64,
    pub mean_anomaly_rad: f64,
}

/// Why a shape is no orbit.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum KeplerError {
    #[error("an orbit whose lowest point is {lowest_km:.0} km above the ground")]
    Low { lowest_km: f64 },
    #[error("an orbit that takes {minutes:.0} min")]
    Slow { minutes: f64 },
    #[error("an eccentricity of {eccentricity}")]
    Open { eccentricity: f64 },
}

impl KeplerError {
    pub fn expected(&self) -> &'static str {
        match self {
            Self::Low { .. } => "at least 120 km, below which air stops a satellite",
            Self::Slow { .. } => "at most 225 min (6,600 km)",
            Self::Open { .. } => "from 0 to below 1",
        }
    }
}

/// How fast the elements change, rad/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub node: f64,
    pub perigee: f64,
    pub mean_anomaly: f64,
}

pub(crate) fn semi_major_axis_km(period_s: f64) -> f64 {
    let motion = TAU / period_s;
    cbrt(GRAVITY_KM3_PER_S2 / (motion * motion))
}

impl Kepler {
    /// The same, if it is an orbit.
    pub fn checked(self) -> Result<Self, KeplerError> {
        let Self { eccentricity, altitude_km, .. } = self;
        if !(0.0..1.0).contains(&eccentricity) {
            return Err(KeplerError::Open { eccentricity });
        }
        let lowest_km = (EQUATOR_KM + altitude_km) * (1.0 - eccentricity) - EQUATOR_KM;
        if lowest_km.is_nan() || lowest_km < LOWEST_KM {
            return Err(KeplerError::Low { lowest_km });
        }
        let minutes = self.period_s() / 60.0;
        if self.period_s() > crate::elements::PERIOD_S_MAX {
            return Err(KeplerError::Slow { minutes });
        }
        Ok(self)
    }

    fn axis_km(&self) -> f64 {
        EQUATOR_KM + self.altitude_km
    }

    fn motion(&self) -> f64 {
        let axis_km = self.axis_km();
        sqrt(GRAVITY_KM3_PER_S2 / (axis_km * axis_km * axis_km))
    }

    /// Without the flattening.
    pub fn period_s(&self) -> f64 {
        TAU / self.motion()
    }

    pub fn rates(&self) -> Rates {
        let flat = 1.0 - self.eccentricity * self.eccentricity;
        let ratio = EQUATOR_KM / (self.axis_km() * flat);
        let motion = self.motion();
        let k = 1.5 * motion * J2 * ratio * ratio;
        let sine = sin(self.inclination_rad);
        Rates {
            node: -k * cos(self.inclination_rad),
            perigee: k * (2.0 - 2.5 * sine * sine),
            mean_anomaly: motion + k * sqrt(flat) * (1.0 - 1.5 * sine * sine),
        }
    }

    /// In the axes of the stars.
    pub(crate) fn position(&self, at: Utc) -> Vector {
        let (seconds, rates) = (at.since_s(self.epoch), self.rates());
        let anomaly = eccentric_anomaly(self.mean_anomaly_rad + rates.mean_anomaly * seconds, self.eccentricity);
        let axis_km = self.axis_km();
        let along = axis_km * (cos(anomaly) - self.eccentricity);
        let across = axis_km * sqrt(1.0 - self.eccentricity * self.eccentricity) * sin(anomaly);
        let perigee = self.perigee_rad + rates.perigee * seconds;
        let node = self.node_rad + rates.node * seconds;
        // In the orbit's plane, from the node.
        let (x, y) = (along * cos(perigee) - across * sin(perigee), along * sin(perigee) + across * cos(perigee));
        let (cos_i, sin_i) = (cos(self.inclination_rad), sin(self.inclination_rad));
        Vector::new(x * cos(node) - y * cos_i * sin(node), x * sin(node) + y * cos_i * cos(node), y * sin_i)
    }
}

/// Solves Kepler's equation by Newton's method, which converges from pi for every eccentricity below 1.
fn eccentric_anomaly(mean_rad: f64, eccentricity: f64) -> f64 {
    let mean = fmod(mean_rad, TAU);
    let mut anomaly = if eccentricity < 0.8 { mean } else { std::f64::consts::PI.copysign(mean) };
    for _ in 0..50 {
        let step = (anomaly - eccentricity * sin(anomaly) - mean) / (1.0 - eccentricity * cos(anomaly));
        anomaly -= step;
        if step.abs() < 1e-14 {
            break;
        }
    }
    anomaly
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circular(altitude_km: f64, inclination_deg: f64) -> Kepler {
        Kepler {
            epoch: Utc::from_unix_s(0.0),
            altitude_km,
            eccentricity: 0.0,
            inclination_rad: inclination_deg.to_radians(),
            node_rad: 0.0,
            perigee_rad: 0.0,
            mean_anomaly_rad: 0.0,
        }
    }

    #[test]
    fn a_sun_synchronous_orbit_drifts_with_the_sun() {
        // One turn in a tropical year.
        let sun = 1.991_064e-7;
        for (altitude_km, inclination_deg) in [(500.0, 97.4018), (488.0, 97.3565)] {
            let node = circular(altitude_km, inclination_deg).rates().node;
            assert!((node / sun - 1.0).abs() < 1e-4, "{altitude_km} km: {node}");
        }
        let orbit = circular(500.0, 97.4018);
        assert!((orbit.period_s() / 60.0 - 94.616).abs() < 5e-4, "{}", orbit.period_s() / 60.0);
        let rates = orbit.rates();
        let draconic_min = TAU / (rates.mean_anomaly + rates.perigee) / 60.0;
        assert!((draconic_min - 94.7398).abs() < 1e-4, "{draconic_min}");
    }

    #[test]
    fn keplers_equation_is_solved_for_every_eccentricity() {
        for eccentricity in [0.0, 0.1, 0.5, 0.79, 0.81, 0.95, 0.999] {
            for turn in -40..40 {
                let mean = f64::from(turn) * 0.157;
                let anomaly = eccentric_anomaly(mean, eccentricity);
                let left = anomaly - eccentricity * sin(anomaly) - fmod(mean, TAU);
                assert!(left.abs() < 1e-12, "e {eccentricity}, M {mean}: {left}");
            }
        }
    }

    #[test]
    fn what_is_no_orbit_is_refused() {
        assert!(matches!(circular(-10.0, 0.0).checked(), Err(KeplerError::Low { .. })));
        assert!(matches!(circular(35_786.0, 0.0).checked(), Err(KeplerError::Slow { .. })));
        let open = Kepler { eccentricity: 1.0, ..circular(500.0, 0.0) };
        assert!(matches!(open.checked(), Err(KeplerError::Open { .. })));
        let dives = Kepler { eccentricity: 0.2, ..circular(500.0, 0.0) };
        assert!(matches!(dives.checked(), Err(KeplerError::Low { lowest_km }) if lowest_km < 0.0));
    }
}
