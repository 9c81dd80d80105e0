//! Where a satellite is, by whatever is known of its orbit.

use crate::elements::TwoLineElements;
use crate::frames::Vector;
use crate::kepler::Kepler;
use crate::time::Utc;
use crate::track::Track;

/// What is known of a satellite's way.
#[derive(Clone, Debug)]
pub enum Orbit {
    Elements(TwoLineElements),
    Kepler(Kepler),
    Track(Track),
}

/// Why it is not known where a satellite is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    #[error("the elements do not hold at {at}: {what}")]
    BreaksDown { at: String, what: String },
    #[error("the track says nothing of {at}")]
    OutsideOfTrack { at: String },
}

impl Orbit {
    /// In axes that turn with the Earth, km.
    pub fn position(&self, at: Utc) -> Result<Vector, PositionError> {
        match self {
            Self::Elements(elements) => match elements.position(at) {
                Ok(position) => Ok(position.to_earth(at)),
                Err(what) => Err(PositionError::BreaksDown { at: at.to_string(), what }),
            },
            Self::Kepler(kepler) => Ok(kepler.position(at).to_earth(at)),
            Self::Track(track) => {
                track.position(at).ok_or_else(|| PositionError::OutsideOfTrack { at: at.to_string() })
            }
        }
    }

    /// When what is known was true: the epoch of elements, the beginning of a track.
    pub fn epoch(&self) -> Utc {
        match self {
            Self::Elements(elements) => elements.epoch(),
            Self::Kepler(kepler) => kepler.epoch,
            Self::Track(track) => track.span().0,
        }
    }

    /// The part of a stretch of time for which positions are known.
    pub(crate) fn known(&self, from: Utc, until: Utc) -> (Utc, Utc) {
        match self {
            Self::Track(track) => {
                let (first, last) = track.span();
                (if first > from { first } else { from }, if last < until { last } else { until })
            }
            Self::Elements(_) | Self::Kepler(_) => (from, until),
        }
    }

    /// A time in which a station's elevation turns at most once from growing to falling: a sixtieth of the time that a
    /// revolution takes where the satellite is fastest.
    pub(crate) fn step_s(&self) -> f64 {
        const STEPS: f64 = 60.0;
        match self {
            Self::Elements(elements) => elements.period_s() / STEPS,
            Self::Kepler(kepler) => {
                // At the perigee the angle grows so much faster than in the mean.
                let e = kepler.eccentricity;
                let faster = libm::sqrt(1.0 + e) / libm::pow(1.0 - e, 1.5);
                kepler.period_s() / (STEPS * faster)
            }
            Self::Track(_) => 30.0,
        }
    }

    /// A revolution, or what stands for one of a track.
    pub(crate) fn period_s(&self) -> f64 {
        match self {
            Self::Elements(elements) => elements.period_s(),
            Self::Kepler(kepler) => kepler.period_s(),
            Self::Track(_) => 0.0,
        }
    }
}
