//! What the formulae expect of each pass of a satellite.

use orbits::Pass;
use photonics::expect::response::{CHECK, KEY};
use serde::Serialize;

use super::expected::PreparedParts;
use super::{Plan, PlannedLink, SpaceLink};

/// A pass, and what it yields as one block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassPrediction {
    /// Universal time at which the satellite comes above the mask, is highest, and goes.
    pub rise: String,
    pub culmination: String,
    pub set: String,
    /// Simulated time of the rise, which is before the run where that begins within the pass.
    pub begins_s: f64,
    /// Of its light in the run.
    pub duration_s: f64,
    pub elevation_deg: f64,
    pub closest_km: f64,
    /// Of the light's mean, between the transmitter's telescope and the clicks.
    pub mean_loss_db: f64,
    /// Bits that both ends keep, of both bases, and their error rate in the key basis.
    pub sifted_bits: f64,
    pub qber_key: f64,
    /// By the bound that the topology chooses: 0 where the pass gives none.
    pub key_bits: f64,
}

impl Plan {
    /// The passes of a link between a satellite and the ground: those of the run, or of a week. Of other links none.
    pub fn passes(&self, link: &PlannedLink, efficiency: f64) -> Vec<PassPrediction> {
        let Some(parts) = self.prepared(link) else { return Vec::new() };
        let Some(space) = parts.space else { return Vec::new() };
        let passes = space.passes(self.limit_ps).unwrap_or_default();
        passes.iter().map(|pass| parts.pass(space, pass, self.limit_ps, efficiency)).collect()
    }
}

impl PreparedParts<'_> {
    fn pass(&self, space: &SpaceLink, pass: &Pass, limit_ps: Option<u64>, efficiency: f64) -> PassPrediction {
        let mean = space.mean_of(pass, limit_ps);
        let space = SpaceLink { mean, ..space.clone() };
        let [from_s, until_s] = space.lit_s(pass, limit_ps);
        let duration_s = until_s - from_s;
        let expected = PreparedParts { space: Some(&space), ..*self }.predict_block(duration_s, efficiency);
        let at = |moment: orbits::Utc| moment.to_string();
        PassPrediction {
            rise: at(pass.rise.0),
            culmination: at(pass.culmination.0),
            set: at(pass.set.0),
            begins_s: space.simulated_s(pass.rise.0),
            duration_s,
            elevation_deg: pass.culmination.1.elevation_deg,
            closest_km: pass.culmination.1.range_km,
            mean_loss_db: -10.0 * expected.inputs.receiver().transmission.log10(),
            sifted_bits: (expected.sifted_hz(KEY) + expected.sifted_hz(CHECK)) * duration_s,
            qber_key: expected.qber(KEY),
            key_bits: expected.chosen_bps() * duration_s,
        }
    }
}
