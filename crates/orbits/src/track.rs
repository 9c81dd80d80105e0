//! Positions that were recorded.

use crate::frames::Vector;
use crate::station::geodetic;
use crate::time::Utc;

/// Longest time between two samples: the ground goes by at 7 km/s, and a cubic follows 60 s of it within a few metres.
const GAP_S_MAX: f64 = 60.0;

/// Where a satellite was at a moment, by the WGS 84 ellipsoid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub at: Utc,
    pub lat_deg: f64,
    pub lon_deg: f64,
    pub height_km: f64,
}

/// A recorded way. Between samples a cubic through the four nearest ones is taken; outside of them nothing is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    points: Vec<(Utc, Vector)>,
}

/// Why samples are no track.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum TrackError {
    #[error("a track of {found} samples")]
    Short { found: usize },
    /// Of the samples, in their order.
    #[error("a sample that is not later than the one before")]
    Order { index: usize },
    #[error("{gap_s:.0} s after the sample before")]
    Gap { index: usize, gap_s: f64 },
    #[error("a height of {height_km} km")]
    BelowTheGround { index: usize, height_km: f64 },
}

impl TrackError {
    pub fn expected(&self) -> &'static str {
        match self {
            Self::Short { .. } => "at least 4",
            Self::Order { .. } => "samples in the order of time",
            Self::Gap { .. } => "at most 60 s between two samples",
            Self::BelowTheGround { .. } => "a height above 0 km",
        }
    }

    /// The sample that is wrong, where it is one.
    pub fn index(&self) -> Option<usize> {
        match *self {
            Self::Short { .. } => None,
            Self::Order { index } | Self::Gap { index, .. } | Self::BelowTheGround { index, .. } => Some(index),
        }
    }
}

impl Track {
    pub fn new(samples: &[Sample]) -> Result<Self, TrackError> {
        if samples.len() < 4 {
            return Err(TrackError::Short { found: samples.len() });
        }
        for (index, sample) in samples.iter().enumerate() {
            if sample.height_km.is_nan() || sample.height_km <= 0.0 {
                return Err(TrackError::BelowTheGround { index, height_km: sample.height_km });
            }
            let Some(before) = index.checked_sub(1).map(|before| samples[before].at) else { continue };
            let gap_s = sample.at.since_s(before);
            if gap_s.is_nan() || gap_s <= 0.0 {
                return Err(TrackError::Order { index });
            }
            if gap_s > GAP_S_MAX {
                return Err(TrackError::Gap { index, gap_s });
            }
        }
        let point = |sample: &Sample| {
            (sample.at, geodetic(sample.lat_deg.to_radians(), sample.lon_deg.to_radians(), sample.height_km))
        };
        Ok(Self { points: samples.iter().map(point).collect() })
    }

    /// First and last moment.
    pub fn span(&self) -> (Utc, Utc) {
        let at = |point: Option<&(Utc, Vector)>| point.map_or(Utc::from_unix_s(0.0), |(at, _)| *at);
        (at(self.points.first()), at(self.points.last()))
    }

    /// Fixed to the Earth; nothing outside of the samples.
    pub(crate) fn position(&self, at: Utc) -> Option<Vector> {
        let (first, last) = self.span();
        if !(first..=last).contains(&at) {
            return None;
        }
        let after = self.points.partition_point(|(then, _)| *then <= at);
        let start = after.saturating_sub(2).min(self.points.len() - 4);
        let nearest = &self.points[start..start + 4];
        Some(lagrange(nearest, at))
    }
}

fn lagrange(points: &[(Utc, Vector)], at: Utc) -> Vector {
    let mut sum = Vector::default();
    for (i, (own, point)) in points.iter().enumerate() {
        let others = points.iter().enumerate().filter(|(j, _)| *j != i);
        let weight: f64 = others.map(|(_, (other, _))| at.since_s(*other) / own.since_s(*other)).product();
        sum = Vector::new(sum.x + weight * point.x, sum.y + weight * point.y, sum.z + weight * point.z);
    }
    sum
}
