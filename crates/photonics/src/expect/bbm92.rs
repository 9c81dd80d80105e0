//! BBM92 with continuous-wave pairs in energy-time encoding: the evidence to expect. What key it makes is said by the
//! bounds of `distill`.
//!
//! Equation numbers are those of Neumann et al., PRA 104, 022406 (2021). Beyond that paper: a passive choice of basis,
//! the factor 1/2 of the side peaks, unequal arms, dead time, afterpulses and latching per detector, and (where
//! `Matching` asks for it) what unique matching costs.
//!
//! Second-order terms that are included: accidental coincidences of clicks of different pairs, of which dark counts and
//! afterpulses are part; tails of the side peaks inside the window, and detector skew; dead detectors of both ends
//! being correlated by the pairs they share; double clicks of one end (merged, discarded or given a random bit); kept
//! events closer than the dead time. Not included: more than one extra click in a window; frame borders; coincidences
//! between afterpulses of one pair.

use super::inputs::Bbm92Inputs;
use super::outcomes;
use crate::config::PORTS;

/// What a link does at one pump power.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub pair_rate_hz: f64,
    /// Clicks per second of each detector, dead time included (eq. (6)).
    pub click_rate_hz: [[f64; PORTS]; 2],
    /// Probability that a detector is ready.
    pub live_share: [[f64; PORTS]; 2],
    /// Time tags per second of both ends together.
    pub tag_rate_hz: f64,
    pub z: BasisPrediction,
    pub x: BasisPrediction,
    pub peak_fwhm_ps: f64,
}

/// Coincidences in one basis at both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BasisPrediction {
    /// Kept coincidences per second (eq. (14)).
    pub sifted_hz: f64,
    /// Those of clicks that are not of one pair (eq. (10)).
    pub accidental_hz: f64,
    /// Error rate (eq. (16)).
    pub qber: f64,
}

/// Rates of the 4 x 4 combinations of detectors inside the window.
type Matrix = [[f64; PORTS]; PORTS];

/// Evaluates the model.
pub fn predict(inputs: &Bbm92Inputs) -> Prediction {
    let singles = [Singles::of(inputs, 0), Singles::of(inputs, 1)];
    let mut true_hz = true_coincidences(inputs, &singles);
    let mut accidental_hz = accidental_coincidences(inputs, &singles);
    if inputs.matching.merge_doubles {
        merge_doubles(inputs, &singles, &mut true_hz, &mut accidental_hz);
    }
    drop_within_dead_time(inputs.matching.kept_dead_time_ps * 1e-12, &mut true_hz, &mut accidental_hz);

    let z = basis(&true_hz, &accidental_hz, 0);
    let x = basis(&true_hz, &accidental_hz, 2);
    let click_rate_hz = [singles[0].click_hz, singles[1].click_hz];
    Prediction {
        pair_rate_hz: inputs.pair_rate_hz,
        click_rate_hz,
        live_share: [singles[0].live, singles[1].live],
        tag_rate_hz: click_rate_hz.iter().flatten().sum(),
        z,
        x,
        peak_fwhm_ps: inputs.peak_fwhm_ps,
    }
}

impl Prediction {
    /// Clicks per second of one end.
    pub fn end_rate_hz(&self, end: usize) -> f64 {
        self.click_rate_hz[end].iter().sum()
    }

    /// Standard deviation of the number of clicks of one detector in `duration_s`: a renewal process with a dead time
    /// is sub-Poissonian, its variance is smaller by the square of the live share.
    pub fn click_count_sigma(&self, end: usize, port: usize, duration_s: f64) -> f64 {
        self.live_share[end][port] * libm::sqrt(self.click_rate_hz[end][port] * duration_s)
    }
}

/// Light and clicks of one end.
struct Singles {
    /// Share of the arriving photons that goes to each detector.
    share: [f64; PORTS],
    live: [f64; PORTS],
    click_hz: [f64; PORTS],
    dead_time_s: f64,
}

impl Singles {
    fn of(inputs: &Bbm92Inputs, end: usize) -> Self {
        let z = inputs.z_probability[end];
        let share = [z / 2.0, z / 2.0, (1.0 - z) / 2.0, (1.0 - z) / 2.0];
        let detector = &inputs.detectors[end];
        let dead_time_s = detector.dead_time_ps * 1e-12;
        // Blind time per click: the dead time, and now and then the reset of a latched detector.
        let blind_s = dead_time_s + detector.latch_probability * detector.latch_reset_ps * 1e-12;
        let mut live = [0.0; PORTS];
        let mut click_hz = [0.0; PORTS];
        for port in 0..PORTS {
            // Eq. (2) and (6), then m = lambda (1 - m tau) + m p solved for the click rate m.
            let rate_hz = inputs.pair_rate_hz * inputs.transmission[end] * share[port] + detector.dark_rate_hz;
            click_hz[port] = rate_hz / (1.0 - detector.afterpulse_probability + rate_hz * blind_s);
            live[port] = 1.0 - click_hz[port] * blind_s;
        }
        Self { share, live, click_hz, dead_time_s }
    }

    fn total_hz(&self) -> f64 {
        self.click_hz.iter().sum()
    }
}

/// Coincidences of both photons of a pair that fall into the window, per combination of detectors (eq. (3), (13)).
fn true_coincidences(inputs: &Bbm92Inputs, singles: &[Singles; 2]) -> Matrix {
    let arriving_hz = inputs.pair_rate_hz * inputs.transmission[0] * inputs.transmission[1];
    let dead_time_s = singles[0].dead_time_s.min(singles[1].dead_time_s);
    let mut rates = [[0.0; PORTS]; PORTS];
    for (first_port, row) in rates.iter_mut().enumerate() {
        for (second_port, rate) in row.iter_mut().enumerate() {
            if first_port / 2 != second_port / 2 {
                continue;
            }
            let live = singles[0].live[first_port] * singles[1].live[second_port];
            // A pair that fires both detectors blinds both: they are dead together more often than by chance.
            let shared_hz = arriving_hz * singles[0].share[first_port] * singles[1].share[second_port];
            let in_window = outcomes::in_window(inputs, [first_port, second_port]);
            *rate = arriving_hz * in_window * live * (1.0 + shared_hz * dead_time_s);
        }
    }
    rates
}

/// Coincidences of clicks that have nothing to do with each other (eq. (10)).
///
/// Behind a dead time there are a little fewer: where a photon's own partner reaches the detector of the accidental
/// one first, it blinds it.
fn accidental_coincidences(inputs: &Bbm92Inputs, singles: &[Singles; 2]) -> Matrix {
    let window_s = inputs.window_ps * 1e-12;
    let blinded = |end: usize, ports: [usize; 2]| {
        let earlier = if end == 0 { (0, 1) } else { (1, 0) };
        let share = 0.5 * outcomes::central(inputs, ports) + outcomes::joint(inputs, ports, earlier);
        if singles[end].dead_time_s > 0.0 { singles[end].live[ports[end]] * share } else { 0.0 }
    };
    let mut rates = [[0.0; PORTS]; PORTS];
    for (first_port, row) in rates.iter_mut().enumerate() {
        for (second_port, rate) in row.iter_mut().enumerate() {
            if first_port / 2 == second_port / 2 {
                let ports = [first_port, second_port];
                let clicks = singles[0].click_hz[first_port] * singles[1].click_hz[second_port];
                let seen = |end: usize| 1.0 - partner(inputs, singles, end, ports, blinded(end, ports));
                *rate = clicks * window_s * seen(0) * seen(1);
            }
        }
    }
    rates
}

/// Probability that the other photon of an accidental match's pair arrives at `end` with an outcome whose joint
/// probability with the click of the other end is `joint`.
fn partner(inputs: &Bbm92Inputs, singles: &[Singles; 2], end: usize, ports: [usize; 2], joint: f64) -> f64 {
    let share = singles[1 - end].share[ports[1 - end]];
    if share > 0.0 { inputs.transmission[end] * joint / share } else { 0.0 }
}

/// What becomes of matches with a third click nearby.
///
/// A third click at one end, within a window before or after, is merged: with one of the other basis the event is
/// discarded; with the other detector of the same basis it gets a random bit. An event counts at its first click's
/// time, so a third click that comes early also takes the event out of the coincidence window half of the time.
/// The same detector cannot fire twice.
///
/// An accidental match loses in one more way: either photon's own partner may be there too, and then the pair is
/// what counts. In basis Z that partner agrees, so that it is the wrong matches that are lost more often.
fn merge_doubles(inputs: &Bbm92Inputs, singles: &[Singles; 2], true_hz: &mut Matrix, accidental_hz: &mut Matrix) {
    let window_s = inputs.window_ps * 1e-12;
    // Shares of matches that are lost, and that keep a random bit.
    let third = |end: usize, port: usize| {
        let clicks_hz = &singles[end].click_hz;
        let (partner_hz, own_hz) = (clicks_hz[port ^ 1], clicks_hz[port]);
        let cross_hz = singles[end].total_hz() - partner_hz - own_hz;
        (window_s * (2.0 * cross_hz + 0.5 * partner_hz), window_s * 1.5 * partner_hz)
    };
    let without_partner = |end: usize, ports: [usize; 2]| {
        let seen_at = |port: usize| {
            let mut ports = ports;
            ports[end] = port;
            outcomes::central(inputs, ports) * singles[end].live[port]
        };
        let others = (0..PORTS).filter(|&port| port != ports[end]).map(seen_at).sum();
        1.0 - partner(inputs, singles, end, ports, others)
    };
    for first_port in 0..PORTS {
        for second_port in 0..PORTS {
            let (lost, random) = {
                let (first, second) = (third(0, first_port), third(1, second_port));
                (first.0 + second.0, first.1 + second.1)
            };
            let kept = libm::exp(-lost);
            true_hz[first_port][second_port] *= kept;
            let ports = [first_port, second_port];
            accidental_hz[first_port][second_port] *= kept * without_partner(0, ports) * without_partner(1, ports);
            // Half of the random bits are those of the pair itself.
            for rates in [&mut *true_hz, &mut *accidental_hz] {
                let moved = 0.5 * random * rates[first_port][second_port];
                rates[first_port][second_port] -= moved;
                rates[first_port][second_port ^ 1] += moved;
            }
        }
    }
}

/// Takes away the second of two kept events closer than the dead time. They are of different detectors at both
/// ends: an equal one was blind and is counted there.
fn drop_within_dead_time(dead_time_s: f64, true_hz: &mut Matrix, accidental_hz: &mut Matrix) {
    if dead_time_s <= 0.0 {
        return;
    }
    let mut kept_hz = [[0.0; PORTS]; PORTS];
    for (first_port, row) in kept_hz.iter_mut().enumerate() {
        for (second_port, rate) in row.iter_mut().enumerate() {
            *rate = true_hz[first_port][second_port] + accidental_hz[first_port][second_port];
        }
    }
    for first_port in 0..PORTS {
        for second_port in 0..PORTS {
            let before_hz: f64 = (0..PORTS)
                .flat_map(|i| (0..PORTS).map(move |j| (i, j)))
                .filter(|&(i, j)| i != first_port && j != second_port)
                .map(|(i, j)| kept_hz[i][j])
                .sum();
            let survives = 1.0 / (1.0 + before_hz * dead_time_s);
            true_hz[first_port][second_port] *= survives;
            accidental_hz[first_port][second_port] *= survives;
        }
    }
}

/// Sums the two detectors of a basis, whose first port is `from` (eq. (14) to (16)).
fn basis(true_hz: &Matrix, accidental_hz: &Matrix, from: usize) -> BasisPrediction {
    let (mut sifted_hz, mut accidental, mut wrong_hz) = (0.0, 0.0, 0.0);
    for i in from..from + 2 {
        for j in from..from + 2 {
            let rate_hz = true_hz[i][j] + accidental_hz[i][j];
            sifted_hz += rate_hz;
            accidental += accidental_hz[i][j];
            if i != j {
                wrong_hz += rate_hz;
            }
        }
    }
    let qber = if sifted_hz > 0.0 { wrong_hz / sifted_hz } else { 0.0 };
    BasisPrediction { sifted_hz, accidental_hz: accidental, qber }
}

#[cfg(test)]
#[path = "bbm92_tests.rs"]
mod tests;
