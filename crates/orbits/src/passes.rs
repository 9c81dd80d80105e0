//! When a station sees a satellite.
//!
//! Elevation rises to one maximum in each revolution, below the horizon or above it, so a maximum is never missed by
//! looking a sixtieth of a revolution apart, however short a pass is. Maxima are then narrowed down by the golden section,
//! rise and set by halving between the maximum and the ends of its rise and fall.

use crate::orbit::{Orbit, PositionError};
use crate::station::{Look, Station};
use crate::time::Utc;

/// How exactly moments are found.
const EXACT_S: f64 = 1e-4;

/// A moment of a pass and what the station sees then.
pub type Moment = (Utc, Look);

/// A time in which a station sees a satellite above an elevation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// When it comes above the elevation; of a track that begins above it, where that begins.
    pub rise: Moment,
    /// When it is highest.
    pub culmination: Moment,
    pub set: Moment,
}

impl Pass {
    pub fn duration_s(&self) -> f64 {
        self.set.0.since_s(self.rise.0)
    }
}

/// All passes that are at least in part between two moments, in the order of time. They are whole: the first may have
/// begun before, the last may end later.
pub fn passes(
    orbit: &Orbit,
    station: &Station,
    mask_deg: f64,
    from: Utc,
    until: Utc,
) -> Result<Vec<Pass>, PositionError> {
    let mut found = Vec::new();
    for hump in humps(orbit, station, from, until)? {
        if hump.highest.1.elevation_deg <= mask_deg {
            continue;
        }
        let sight = Sight { orbit, station };
        let pass = Pass {
            rise: sight.crossing(hump.begin, hump.highest.0, mask_deg)?,
            culmination: hump.highest,
            set: sight.crossing(hump.end, hump.highest.0, mask_deg)?,
        };
        if pass.set.0 > from && pass.rise.0 < until {
            found.push(pass);
        }
    }
    Ok(found)
}

/// When and how the station sees the satellite highest between two moments, whatever the elevation; nothing where no
/// position is known.
pub fn highest(orbit: &Orbit, station: &Station, from: Utc, until: Utc) -> Result<Option<Moment>, PositionError> {
    let within = |hump: &Hump| (from..=until).contains(&hump.highest.0);
    let humps = humps(orbit, station, from, until)?;
    let best = humps.iter().filter(|hump| within(hump)).map(|hump| hump.highest);
    Ok(best.max_by(|a, b| a.1.elevation_deg.total_cmp(&b.1.elevation_deg)))
}

struct Sight<'a> {
    orbit: &'a Orbit,
    station: &'a Station,
}

/// A rise and fall of the elevation: where they begin and end within a step, and the maximum between.
struct Hump {
    begin: Utc,
    highest: Moment,
    end: Utc,
}

fn humps(orbit: &Orbit, station: &Station, from: Utc, until: Utc) -> Result<Vec<Hump>, PositionError> {
    let sight = Sight { orbit, station };
    let step_s = orbit.step_s();
    // A pass that is cut by an end has its maximum within a revolution of it.
    let margin_s = orbit.period_s();
    let (first, last) = orbit.known(from.plus_s(-margin_s), until.plus_s(margin_s));
    let seconds = last.since_s(first);
    if seconds.is_nan() || seconds <= 0.0 {
        return Ok(Vec::new());
    }
    let steps = libm::ceil(seconds / step_s) as usize;
    let at = |index: usize| if index >= steps { last } else { first.plus_s(index as f64 * step_s) };
    let mut humps = Vec::new();
    let (mut begin, mut rising) = (first, true);
    let mut before = sight.elevation(first)?;
    for index in 1..=steps {
        let now = sight.elevation(at(index))?;
        if rising && (now < before || index == steps) {
            // The maximum is near the step before, or at the end of what is known.
            let (low, high) = (at(index.saturating_sub(2)), at(index));
            humps.push(Hump { begin, highest: sight.maximum(low, high)?, end: at(index) });
            rising = false;
        } else if !rising && now > before {
            begin = at(index - 1);
            rising = true;
        }
        if !rising && let Some(hump) = humps.last_mut() {
            hump.end = at(index);
        }
        before = now;
    }
    Ok(humps)
}

impl Sight<'_> {
    fn look(&self, at: Utc) -> Result<Look, PositionError> {
        Ok(self.station.look(self.orbit.position(at)?))
    }

    fn elevation(&self, at: Utc) -> Result<f64, PositionError> {
        Ok(self.look(at)?.elevation_deg)
    }

    /// By the golden section, which needs no derivative; at an end of the interval where the elevation has none inside.
    fn maximum(&self, mut low: Utc, mut high: Utc) -> Result<Moment, PositionError> {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let part = |low: Utc, high: Utc, share: f64| low.plus_s(share * high.since_s(low));
        let (mut left, mut right) = (part(low, high, 1.0 - GOLDEN), part(low, high, GOLDEN));
        let (mut at_left, mut at_right) = (self.elevation(left)?, self.elevation(right)?);
        // Elevation is flat at its maximum: a double tells no moments apart that are closer than some milliseconds.
        while high.since_s(low) > EXACT_S {
            if at_left < at_right {
                (low, left, at_left) = (left, right, at_right);
                right = part(low, high, GOLDEN);
                at_right = self.elevation(right)?;
            } else {
                (high, right, at_right) = (right, left, at_left);
                left = part(low, high, 1.0 - GOLDEN);
                at_left = self.elevation(left)?;
            }
        }
        let middle = part(low, high, 0.5);
        Ok((middle, self.look(middle)?))
    }

    /// Between a moment below the elevation and one above it; the first of them where it is above as well.
    fn crossing(&self, below: Utc, above: Utc, mask_deg: f64) -> Result<Moment, PositionError> {
        let (mut outside, mut inside) = (below, above);
        if self.elevation(outside)? >= mask_deg {
            return Ok((outside, self.look(outside)?));
        }
        while outside.since_s(inside).abs() > EXACT_S {
            let middle = inside.plus_s(0.5 * outside.since_s(inside));
            if self.elevation(middle)? >= mask_deg { inside = middle } else { outside = middle }
        }
        Ok((inside, self.look(inside)?))
    }
}
