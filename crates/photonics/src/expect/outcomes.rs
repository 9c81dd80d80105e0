//! Which detectors a pair fires, and when: the joint probabilities behind the rates.

use super::inputs::Bbm92Inputs;
use super::math::window_share;

/// Ways through the two analysers, 0 short and 1 long. Equal ways meet in the central peak, the others in the side
/// peaks.
pub type Ways = (usize, usize);

const CENTRAL: [Ways; 2] = [(0, 0), (1, 1)];
const ALL: [Ways; 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Probability that a pair of which both photons arrive takes these ways and fires these detectors.
pub fn joint(inputs: &Bbm92Inputs, ports: [usize; 2], ways: Ways) -> f64 {
    let ways = [ways.0, ways.1];
    let in_z = ports.map(|port| port < 2);
    let choice: f64 = [0, 1].map(|end| if in_z[end] { z(inputs, end) } else { 1.0 - z(inputs, end) }).iter().product();
    let fired = if in_z == [false, false] && ways[0] == ways[1] {
        // Only here do two amplitudes lead to the same clicks.
        let sign = if ports[0] == ports[1] { 1.0 } else { -1.0 };
        (1.0 + sign * inputs.visibility * inputs.mean_cos_phase) / 4.0
    } else {
        [0, 1]
            .map(|end| if in_z[end] { fires(inputs.crosstalk[end], ways[end] == ports[end]) } else { 0.5 })
            .iter()
            .product()
    };
    0.25 * choice * fired
}

/// The same for either way that ends in the central peak.
pub fn central(inputs: &Bbm92Inputs, ports: [usize; 2]) -> f64 {
    CENTRAL.iter().map(|ways| joint(inputs, ports, *ways)).sum()
}

/// Probability that a pair that arrives fires these detectors within the window.
pub fn in_window(inputs: &Bbm92Inputs, ports: [usize; 2]) -> f64 {
    let skew_ps = inputs.detectors[0].skew_ps[ports[0]] - inputs.detectors[1].skew_ps[ports[1]];
    let [first_ps, second_ps] = inputs.analyser_delay_ps;
    let shares = ALL.iter().map(|ways| {
        let centre_ps = ways.0 as f64 * first_ps - ways.1 as f64 * second_ps + skew_ps;
        joint(inputs, ports, *ways) * window_share(centre_ps, inputs.window_ps, inputs.peak_fwhm_ps)
    });
    shares.sum()
}

fn z(inputs: &Bbm92Inputs, end: usize) -> f64 {
    inputs.z_probability[end]
}

/// Probability that a photon in one arm of an analyser fires that arm's detector, or the other's.
fn fires(crosstalk: f64, own_arm: bool) -> f64 {
    if own_arm { 1.0 - crosstalk } else { crosstalk }
}

#[cfg(test)]
mod tests {
    use super::super::inputs::{DetectorModel, Matching};
    use super::*;

    #[test]
    fn every_pair_that_arrives_fires_exactly_two_detectors() {
        let inputs = Bbm92Inputs {
            pair_rate_hz: 1.0,
            transmission: [1.0; 2],
            z_probability: [0.3, 0.8],
            crosstalk: [0.01, 0.02],
            analyser_delay_ps: [400.0; 2],
            visibility: 0.97,
            mean_cos_phase: 0.9,
            detectors: [DetectorModel::default(), DetectorModel::default()],
            window_ps: 120.0,
            peak_fwhm_ps: 90.0,
            matching: Matching::default(),
        };
        let all = |what: fn(&Bbm92Inputs, [usize; 2]) -> f64| -> f64 {
            (0..16).map(|ports| what(&inputs, [ports / 4, ports % 4])).sum()
        };
        assert!((all(|inputs, ports| ALL.iter().map(|ways| joint(inputs, ports, *ways)).sum()) - 1.0).abs() < 1e-12);
        assert!((all(central) - 0.5).abs() < 1e-12);
        assert!(all(in_window) < 0.5);
    }
}
