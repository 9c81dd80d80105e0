//! The receiver's control loops: phase of its interferometer and polarisation, by what it learns of errors and by its
//! clicks.

use super::config::{Basis, Encoding, Prepared};
use crate::config::Framing;
use crate::loops::{PhaseLoop, PolarisationLoop, Setpoints};

/// Half of a period of the dither, where errors are known frame by frame.
const FAST_S: f64 = 0.5;

/// What a polarisation controller is led by.
enum Polarisation {
    /// The states are polarisations: each of the two angles is where errors are fewest. The first turns the plane of
    /// polarisation, which both bases show; the second one takes Z towards circular, which X does not see.
    Errors([PhaseLoop; 2]),
    /// Something in the receiver passes one polarisation best.
    Light(PolarisationLoop),
}

/// See the module.
pub struct Steering {
    /// Errors of this basis are known frame by frame, those of the other one as rounds are reconciled.
    check_basis: Basis,
    phase: PhaseLoop,
    polarisation: Polarisation,
}

impl Steering {
    pub fn new(framing: Framing, config: &Prepared, latency_steps: u64, start: &Setpoints) -> Self {
        let loops = &config.loops;
        let check_basis = if config.key_basis == Basis::Z { Basis::X } else { Basis::Z };
        // Two rounds, so that a whole one lies within each half of a period wherever rounds begin.
        let slow_s = (2.0 * framing.round_s()).max(FAST_S);
        let on = |enabled: bool, half_s: f64, initial_rad: f64| {
            PhaseLoop::new(enabled, loops.phase_dither_rad, half_s, framing.frame_ps, latency_steps, initial_rad)
        };
        let by_errors = config.encoding == Encoding::Detectors && !loops.phase;
        let [first_rad, second_rad] = start.polarisation_rad;
        let polarisation = if by_errors {
            let angles = [(FAST_S, first_rad), (slow_s, second_rad)];
            Polarisation::Errors(angles.map(|(half_s, initial)| on(loops.polarisation, half_s, initial).shared()))
        } else {
            let angles_rad = start.polarisation_rad;
            Polarisation::Light(PolarisationLoop::new(loops.polarisation, framing.frame_ps, latency_steps, angles_rad))
        };
        Self { check_basis, phase: on(loops.phase, FAST_S, start.phase_rad), polarisation }
    }

    /// All clicks of the frame that came in `step`.
    pub fn clicks(&mut self, step: u64, clicks: u64) {
        if let Polarisation::Light(light) = &mut self.polarisation {
            light.observe(step, clicks);
        }
    }

    /// Bits of the check basis of that frame, and how many of them are wrong.
    pub fn check(&mut self, step: u64, bits: u64, errors: u64) {
        self.phase.observe(step, bits, errors);
        if let Polarisation::Errors([first, second]) = &mut self.polarisation {
            first.observe(step, bits, errors);
            if self.check_basis == Basis::Z {
                second.observe(step, bits, errors);
            }
        }
    }

    /// The same of the key of a round, whose frames came one in each step from `first_step` on.
    pub fn key(&mut self, first_step: u64, frames: u64, bits: u64, errors: u64) {
        if let Polarisation::Errors([_, second]) = &mut self.polarisation
            && self.check_basis == Basis::X
        {
            second.observe_stretch(first_step, frames, bits, errors);
        }
    }

    /// Where to go at `step`; steps must not go back.
    pub fn setpoints(&mut self, step: u64) -> Setpoints {
        let polarisation_rad = match &mut self.polarisation {
            Polarisation::Errors(angles) => angles.each_mut().map(|angle| angle.setpoint(step)),
            Polarisation::Light(light) => light.setpoint(step),
        };
        // The transmitter's end alone has the light in its hands.
        Setpoints { phase_rad: self.phase.setpoint(step), polarisation_rad, pump: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::super::config::{Loops, Part, Sync};
    use super::*;

    const LATENCY: u64 = 25;
    const ROUND_FRAMES: u64 = 50;

    /// A receiver whose errors follow from where its instruments stand.
    struct Plant {
        steering: Steering,
        encoding: Encoding,
        commanded: VecDeque<Setpoints>,
        /// Where they should stand.
        right: Setpoints,
        check_hz: f64,
        /// Bits and errors of the key, round by round, until they are reconciled.
        rounds: VecDeque<(u64, u64, u64)>,
        step: u64,
        random: StdRng,
    }

    fn config(encoding: Encoding, key_basis: Basis, loops: Loops) -> Prepared {
        Prepared {
            part: Part::Receiver,
            period_ps: 1000.0,
            encoding,
            key_basis,
            gate_ps: 400.0,
            dead_time_ps: 0.0,
            preamble_pulses: 0,
            sync: Sync::Distributed { delay_ps: 0.0 },
            tracking_interval_ps: 1,
            loops,
        }
    }

    impl Plant {
        fn new(config: &Prepared, seed: u64) -> Self {
            println!("seed {seed}");
            let framing = Framing { frame_ps: 20_000_000_000, round_frames: ROUND_FRAMES };
            Self {
                steering: Steering::new(framing, config, LATENCY, &Setpoints::default()),
                encoding: config.encoding,
                commanded: VecDeque::new(),
                right: Setpoints::default(),
                check_hz: 4000.0,
                rounds: VecDeque::new(),
                step: 0,
                random: StdRng::seed_from_u64(seed),
            }
        }

        /// Error rates of Z and X.
        fn errors(&self, active: &Setpoints) -> [f64; 2] {
            let rate = |cosine: f64| 0.5 * (1.0 - 0.97 * cosine);
            let phase = libm::cos(active.phase_rad - self.right.phase_rad);
            let [first, second] =
                [0, 1].map(|i| libm::cos(active.polarisation_rad[i] - self.right.polarisation_rad[i]));
            match self.encoding {
                Encoding::Detectors => [rate(phase * first * second), rate(phase * first)],
                Encoding::TimeBin { .. } => [rate(1.0), rate(phase)],
            }
        }

        fn wrong(&mut self, bits: u64, rate: f64) -> u64 {
            (0..bits).filter(|_| self.random.random::<f64>() < rate).count() as u64
        }

        /// Mean error rates of Z and X over the last third of `seconds`.
        fn run(&mut self, seconds: u64) -> [f64; 2] {
            let (steps, mut sums) = (seconds * 50, [0.0; 2]);
            for i in 0..steps {
                self.commanded.push_back(self.steering.setpoints(self.step));
                let active = if self.commanded.len() as u64 > LATENCY { self.commanded.pop_front() } else { None };
                let rates = self.errors(&active.unwrap_or_default());
                let bits = (self.check_hz * 0.02) as u64;
                let [z, x] = rates.map(|rate| self.wrong(bits, rate));
                self.steering.clicks(self.step, 100 * bits);
                let key_is_z = self.steering.check_basis == Basis::X;
                self.steering.check(self.step, bits, if key_is_z { x } else { z });
                self.key(bits, if key_is_z { z } else { x });
                if i >= steps * 2 / 3 {
                    sums.iter_mut().zip(rates).for_each(|(sum, rate)| *sum += rate / (steps / 3) as f64);
                }
                self.step += 1;
            }
            sums
        }

        /// A round is reconciled a second after its last frame, and not at all where too much is wrong.
        fn key(&mut self, bits: u64, wrong: u64) {
            if self.step.is_multiple_of(ROUND_FRAMES) {
                self.rounds.push_back((self.step, 0, 0));
            }
            let open = self.rounds.back_mut();
            open.into_iter().for_each(|round| *round = (round.0, round.1 + bits, round.2 + wrong));
            if self.rounds.len() > 2
                && let Some((first, bits, wrong)) = self.rounds.pop_front()
            {
                let verified = if (wrong as f64) < 0.2 * bits as f64 { bits } else { 0 };
                self.steering.key(first, ROUND_FRAMES, verified, wrong.min(verified));
            }
        }
    }

    fn loops(polarisation: bool, phase: bool) -> Loops {
        Loops { polarisation, phase, phase_dither_rad: 0.05 }
    }

    const TIME_BIN: Encoding = Encoding::TimeBin { separation_ps: 400.0 };
    /// Errors of an instrument that stands where it should, and what the dither of two angles may cost.
    const FLOOR: f64 = 0.015;
    const EXCESS: f64 = 0.004;

    #[test]
    fn the_phase_converges_from_anywhere_and_recovers_from_steps_and_only_with_the_loop_on() {
        for (encoding, enabled, seed) in
            [(TIME_BIN, true, 1), (TIME_BIN, false, 2), (Encoding::Detectors, true, 3), (Encoding::Detectors, false, 4)]
        {
            let mut plant = Plant::new(&config(encoding, Basis::Z, loops(false, enabled)), seed);
            plant.right.phase_rad = 2.5;
            for step_rad in [0.0, 0.8, -1.7] {
                plant.right.phase_rad += step_rad;
                let [z, x] = plant.run(40);
                assert_eq!(x < FLOOR + EXCESS, enabled, "{encoding:?}, step {step_rad}: {x}");
                let turns = encoding == Encoding::Detectors;
                assert!(!turns || (z - x).abs() < 1e-9, "{z} {x}");
            }
        }
    }

    #[test]
    fn polarisation_converges_and_recovers_from_steps_and_only_with_the_loop_on() {
        // Where X makes the key, Z alone shows errors at once, and both angles half a turn away are as good to it.
        let (far, near) = ([[1.2, 0.6], [-2.0, 0.0], [0.3, -0.7]], [[0.6, 0.4], [-0.8, 0.0], [-0.3, -0.6]]);
        for (key_basis, steps_rad, enabled, seed) in
            [(Basis::Z, far, true, 5), (Basis::X, near, true, 6), (Basis::Z, far, false, 7), (Basis::X, near, false, 8)]
        {
            let mut plant = Plant::new(&config(Encoding::Detectors, key_basis, loops(enabled, false)), seed);
            for step_rad in steps_rad {
                plant.right.polarisation_rad[0] += step_rad[0];
                plant.right.polarisation_rad[1] += step_rad[1];
                let [z, x] = plant.run(90);
                assert_eq!(z < FLOOR + EXCESS, enabled, "{key_basis:?}, step {step_rad:?}: Z {z}");
                assert_eq!(x < FLOOR + EXCESS, enabled, "{key_basis:?}, step {step_rad:?}: X {x}");
            }
        }
    }

    #[test]
    fn without_light_the_instruments_stay_where_they_are() {
        let mut plant = Plant::new(&config(Encoding::Detectors, Basis::Z, loops(true, false)), 9);
        plant.check_hz = 0.0;
        plant.right.polarisation_rad = [1.0, 1.0];
        plant.run(60);
        let last = plant.steering.setpoints(plant.step).polarisation_rad;
        assert!(last.iter().all(|angle| angle.abs() <= 0.051), "{last:?}");
    }
}
