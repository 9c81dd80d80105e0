//! Holds an angle at the minimum of an error rate: the interferometers' phase at that of the error rate in X.
//!
//! At the minimum the slope is zero, so the set-point is dithered by a known angle `d` either way. With
//! `E = (1 - V cos theta) / 2` the two error rates give both `V sin theta = (E+ - E-) / sin d` and
//! `V cos theta = (1 - E+ - E-) / cos d`: where the centre stands on the fringe, on whatever side of whichever extremum
//! the loop starts. Turned by the centre that was active these are the two components of one phasor that does not
//! move, and a linear Kalman filter averages it for as long as drift allows.

use std::collections::VecDeque;

use super::{Slots, slot_steps};

/// Drift per period.
const DRIFT_RAD: f64 = 0.01;
/// Standard deviations by which the phasor must differ from nothing before the loop follows it.
const FRINGE_SIGMA: f64 = 4.0;
/// Square of the distance, in standard deviations, beyond which a measurement means that the phase has jumped.
const JUMP: f64 = 20.0;
/// Periods whose data may still be under way.
const HISTORY: usize = 256;

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    kept: f64,
    errors: f64,
}

#[derive(Clone, Debug)]
pub struct PhaseLoop {
    enabled: bool,
    dither_rad: f64,
    /// Whether other angles move the same error rate.
    shared: bool,
    slots: Slots,
    centre_rad: f64,
    phasor: Phasor,
    /// Centre that was commanded in each period.
    centres: VecDeque<(u64, f64)>,
    /// The period that data come in for, and the data of its halves.
    period: u64,
    halves: [Half; 2],
}

impl PhaseLoop {
    /// Dithered by `dither_rad` one way for `half_s` seconds and then the other way.
    pub fn new(
        enabled: bool,
        dither_rad: f64,
        half_s: f64,
        frame_ps: u64,
        latency_steps: u64,
        initial_rad: f64,
    ) -> Self {
        Self {
            enabled,
            dither_rad,
            shared: false,
            slots: Slots { steps: slot_steps(half_s, frame_ps), latency: latency_steps },
            centre_rad: initial_rad,
            phasor: Phasor::default(),
            centres: VecDeque::new(),
            period: 0,
            halves: [Half::default(); 2],
        }
    }

    /// For an angle whose error rate other angles move as well: a period whose halves differ by more than this angle
    /// can make of it is left out.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The angle to command at `step`; steps must not go back.
    pub fn setpoint(&mut self, step: u64) -> f64 {
        if !self.enabled {
            return self.centre_rad;
        }
        let slot = self.slots.commanded(step);
        let period = slot / 2;
        if self.centres.back().is_none_or(|(last, _)| *last < period) {
            self.centres.push_back((period, self.centre_rad));
            if self.centres.len() > HISTORY {
                self.centres.pop_front();
            }
        }
        let centre = self.centres.back().map_or(self.centre_rad, |(_, centre)| *centre);
        centre + if slot.is_multiple_of(2) { self.dither_rad } else { -self.dither_rad }
    }

    /// What was seen in the frame of `step`: bits that were compared and how many of them differ.
    pub fn observe(&mut self, step: u64, kept: u64, errors: u64) {
        self.observe_stretch(step, 1, kept, errors);
    }

    /// The same of one frame in each of some steps. What was seen on both sides of a change says nothing.
    pub fn observe_stretch(&mut self, first_step: u64, steps: u64, kept: u64, errors: u64) {
        let last = first_step.saturating_add(steps.saturating_sub(1));
        let slot = self.slots.active(first_step).filter(|slot| self.slots.active(last) == Some(*slot));
        let Some(slot) = slot.filter(|_| self.enabled) else { return };
        let period = slot / 2;
        if period > self.period {
            self.finish_period();
            self.period = period;
        }
        if period == self.period {
            let half = &mut self.halves[(slot % 2) as usize];
            half.kept += kept as f64;
            half.errors += errors.min(kept) as f64;
        }
    }

    fn finish_period(&mut self) {
        let halves = std::mem::take(&mut self.halves);
        while self.centres.front().is_some_and(|(period, _)| *period < self.period) {
            self.centres.pop_front();
        }
        let Some(&(period, centre_rad)) = self.centres.front() else { return };
        if period != self.period {
            return;
        }
        let fringe = Fringe::measured(halves, self.dither_rad);
        if let Some(fringe) = fringe.filter(|fringe| !self.shared || fringe.is_possible()) {
            self.phasor.update(&fringe, centre_rad);
            if let Some(angle_rad) = self.phasor.angle() {
                self.centre_rad = angle_rad;
            }
        }
    }
}

/// Components of the phasor as seen from the centre, with their variances.
struct Fringe {
    cosine: f64,
    sine: f64,
    cosine_variance: f64,
    sine_variance: f64,
}

impl Fringe {
    /// Whether its slope is one that a fringe can have, within what counts say.
    fn is_possible(&self) -> bool {
        self.sine.abs() <= 1.0 + FRINGE_SIGMA * libm::sqrt(self.sine_variance)
    }

    fn measured([plus, minus]: [Half; 2], dither_rad: f64) -> Option<Self> {
        let (sin_d, cos_d) = (libm::sin(dither_rad), libm::cos(dither_rad));
        if plus.kept < 1.0 || minus.kept < 1.0 || sin_d.abs() < 1e-6 {
            return None;
        }
        let (e_plus, e_minus) = (plus.errors / plus.kept, minus.errors / minus.kept);
        // Both halves' errors together: an uncertainty that went with each half's own would favour the luckier one.
        // Half a bit more each way, so that no errors do not mean no uncertainty.
        let rate = (plus.errors + minus.errors + 0.5) / (plus.kept + minus.kept + 1.0);
        let noise = rate * (1.0 - rate) * (1.0 / plus.kept + 1.0 / minus.kept);
        Some(Self {
            cosine: (1.0 - e_plus - e_minus) / cos_d,
            sine: (e_plus - e_minus) / sin_d,
            cosine_variance: noise / (cos_d * cos_d),
            sine_variance: noise / (sin_d * sin_d),
        })
    }
}

/// `V exp(i phi)`, where `phi` is the best set-point, with the covariance of its two components.
#[derive(Clone, Copy, Debug)]
struct Phasor {
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Default for Phasor {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, xx: 1.0, xy: 0.0, yy: 1.0 }
    }
}

impl Phasor {
    fn update(&mut self, fringe: &Fringe, centre_rad: f64) {
        let (sin_c, cos_c) = (libm::sin(centre_rad), libm::cos(centre_rad));
        // V exp(i phi) = V exp(-i theta) exp(i centre), theta being how far the centre is ahead of phi.
        let (zx, zy) = (fringe.cosine * cos_c + fringe.sine * sin_c, fringe.cosine * sin_c - fringe.sine * cos_c);
        let (vc, vs) = (fringe.cosine_variance, fringe.sine_variance);
        let noise = [
            vc * cos_c * cos_c + vs * sin_c * sin_c,
            (vc - vs) * sin_c * cos_c,
            vc * sin_c * sin_c + vs * cos_c * cos_c,
        ];
        let (dx, dy) = (zx - self.x, zy - self.y);
        if self.distance(noise, dx, dy) > JUMP {
            *self = Self { x: self.x, y: self.y, ..Self::default() };
        }
        let Some([ixx, ixy, iyy]) = inverse([self.xx + noise[0], self.xy + noise[1], self.yy + noise[2]]) else {
            return;
        };
        let gain = [
            [self.xx * ixx + self.xy * ixy, self.xx * ixy + self.xy * iyy],
            [self.xy * ixx + self.yy * ixy, self.xy * ixy + self.yy * iyy],
        ];
        self.x += gain[0][0] * dx + gain[0][1] * dy;
        self.y += gain[1][0] * dx + gain[1][1] * dy;
        let (xx, xy, yy) = (self.xx, self.xy, self.yy);
        self.xx = xx - gain[0][0] * xx - gain[0][1] * xy + DRIFT_RAD * DRIFT_RAD;
        self.xy = xy - gain[0][0] * xy - gain[0][1] * yy;
        self.yy = yy - gain[1][0] * xy - gain[1][1] * yy + DRIFT_RAD * DRIFT_RAD;
    }

    fn distance(&self, noise: [f64; 3], dx: f64, dy: f64) -> f64 {
        let spread = inverse([self.xx + noise[0], self.xy + noise[1], self.yy + noise[2]]);
        spread.map_or(0.0, |[ixx, ixy, iyy]| dx * dx * ixx + 2.0 * dx * dy * ixy + dy * dy * iyy)
    }

    /// None while the phasor cannot be told from nothing.
    fn angle(&self) -> Option<f64> {
        let square = self.x * self.x + self.y * self.y;
        let spread = self.xx * self.x * self.x + 2.0 * self.xy * self.x * self.y + self.yy * self.y * self.y;
        // Variance along the phasor is spread / square.
        (square * square > FRINGE_SIGMA * FRINGE_SIGMA * spread).then(|| libm::atan2(self.y, self.x))
    }
}

/// Inverse of a symmetric matrix.
fn inverse([xx, xy, yy]: [f64; 3]) -> Option<[f64; 3]> {
    let determinant = xx * yy - xy * xy;
    (determinant > 0.0).then(|| [yy / determinant, -xy / determinant, xx / determinant])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::{PI, TAU};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const LATENCY: u64 = 4;
    const FRAME_PS: u64 = 20_000_000_000;

    fn loop_of(enabled: bool, latency: u64, initial_rad: f64) -> PhaseLoop {
        PhaseLoop::new(enabled, 0.05, 0.5, FRAME_PS, latency, initial_rad)
    }

    /// Interferometers at `phase` with photon statistics; runs `seconds` and gives back the phase error of the loop's
    /// centre and the mean error rate over the last quarter.
    struct Plant {
        control: PhaseLoop,
        commanded: VecDeque<f64>,
        phase_rad: f64,
        rate_hz: f64,
        step: u64,
        random: StdRng,
    }

    impl Plant {
        fn new(phase_rad: f64, rate_hz: f64, enabled: bool, seed: u64) -> Self {
            Self {
                control: loop_of(enabled, LATENCY, 0.0),
                commanded: VecDeque::new(),
                phase_rad,
                rate_hz,
                step: 0,
                random: StdRng::seed_from_u64(seed),
            }
        }

        /// Mean error rate without the offset of accidentals: (1 - V cos) / 2.
        fn run(&mut self, seconds: u64) -> f64 {
            let steps = seconds * 50;
            let (mut sum, mut count) = (0.0, 0u64);
            for i in 0..steps {
                self.commanded.push_back(self.control.setpoint(self.step));
                let active = if self.commanded.len() as u64 > LATENCY { self.commanded.pop_front() } else { None };
                let error = active.unwrap_or(0.0) - self.phase_rad;
                let qber = 0.5 * (1.0 - 0.997 * libm::cos(error)) * 0.92 + 0.04;
                let kept = self.poisson(self.rate_hz * 0.02);
                let errors = (0..kept).filter(|_| self.random.random::<f64>() < qber).count() as u64;
                self.control.observe(self.step, kept, errors);
                if i >= steps * 3 / 4 {
                    sum += qber;
                    count += 1;
                }
                self.phase_rad += 1e-7 * 0.02;
                self.step += 1;
            }
            sum / count as f64
        }

        fn poisson(&mut self, mean: f64) -> u64 {
            let (mut left, mut count) = (mean, 0);
            loop {
                left += libm::log(1.0 - self.random.random::<f64>());
                if left < 0.0 {
                    return count;
                }
                count += 1;
            }
        }
    }

    /// Error rate at the minimum, and what the dither itself costs.
    fn floor_and_dither() -> (f64, f64) {
        let floor = 0.5 * (1.0 - 0.997) * 0.92 + 0.04;
        (floor, 0.5 * 0.997 * 0.92 * (1.0 - libm::cos(0.05)))
    }

    #[test]
    fn converges_from_any_phase() {
        let (floor, dither) = floor_and_dither();
        for i in 0..16u64 {
            let mut plant = Plant::new(TAU * i as f64 / 16.0, 15_000.0, true, 100 + i);
            plant.run(20);
            let excess = plant.run(40) - floor - dither;
            assert!(excess < 0.0005, "seed {}: {excess}", 100 + i);
        }
    }

    #[test]
    fn converges_on_little_light() {
        let (floor, dither) = floor_and_dither();
        for i in 0..8u64 {
            let mut plant = Plant::new(0.3 + TAU * i as f64 / 8.0, 400.0, true, 200 + i);
            plant.run(60);
            let excess = plant.run(240) - floor - dither;
            assert!(excess < 0.002, "seed {}: {excess}", 200 + i);
        }
    }

    #[test]
    fn recovers_from_steps_and_only_with_the_loop_on() {
        let (floor, dither) = floor_and_dither();
        for (enabled, seed) in [(true, 300), (false, 301)] {
            let mut plant = Plant::new(0.0, 15_000.0, enabled, seed);
            plant.run(60);
            for step_rad in [0.7, -2.0, PI] {
                plant.phase_rad += step_rad;
                plant.run(20);
                let excess = plant.run(20) - floor - dither;
                assert_eq!(excess < 0.0005, enabled, "seed {seed}, step {step_rad}: {excess}");
            }
        }
    }

    #[test]
    fn stays_where_it_is_without_light_or_without_a_fringe() {
        for rate_hz in [0.0, 100.0] {
            let mut control = loop_of(true, LATENCY, 1.0);
            let mut random = StdRng::seed_from_u64(7);
            for step in 0..5000 {
                let phase = control.setpoint(step);
                assert!((phase - 1.0).abs() < 0.0501, "step {step}: {phase}");
                let kept = rate_hz as u64;
                let errors = (0..kept).filter(|_| random.random::<bool>()).count() as u64;
                control.observe(step, kept, errors);
            }
        }
    }

    #[test]
    fn late_and_hostile_observations_do_no_harm() {
        let mut control = loop_of(true, u64::MAX, 0.0);
        control.observe(u64::MAX, u64::MAX, u64::MAX);
        control.observe_stretch(u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX);
        let mut control = loop_of(true, 0, 0.0);
        for step in (0..100_000).step_by(7) {
            assert!(control.setpoint(step).is_finite());
            control.observe(step.wrapping_mul(977) % 100_000, u64::MAX, 12);
        }
    }
}
