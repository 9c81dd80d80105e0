//! Light for tests: what a receiver with a clock of its own sees of a transmitter's pulses.

use std::f64::consts::TAU;

use distill::config::{Emission, Intensity, SinglePhotons};
use distill::sifting::prepared::config::{Basis, Encoding, Loops, Part, Prepared, Search, Sync};
use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::{ChaCha8Rng, ChaCha12Rng};

/// 2 ms.
pub const FRAME_PS: u64 = 2_000_000_000;

/// What a transmitter sends: keyed, and a preamble that everybody knows.
#[derive(Clone)]
pub struct Chosen {
    pub key: [u8; 32],
    pub preamble: u64,
    pub preamble_key: [u8; 32],
    pub z_probability: f64,
    /// Of all intensities but the last.
    pub probabilities: Vec<f64>,
}

/// Basis (1 for X), bit, intensity.
pub type State = (usize, usize, usize);

impl Chosen {
    pub fn at(&self, pulse: u64) -> State {
        let word = |key: [u8; 32]| {
            let mut stream = ChaCha12Rng::from_seed(key);
            stream.set_word_pos(2 * u128::from(pulse));
            stream.next_u64()
        };
        if pulse < self.preamble {
            let word = word(self.preamble_key);
            let intensity = if word >> 2 & 1 == 0 { 0 } else { self.probabilities.len() };
            return ((word >> 1 & 1) as usize, (word & 1) as usize, intensity);
        }
        let word = word(self.key);
        let basis = usize::from((word >> 1 & 0xffff_ffff) as f64 / 4_294_967_296.0 >= self.z_probability);
        let share = (word >> 33) as f64 / (1u64 << 31) as f64;
        let mut sum = 0.0;
        let below = |probability: &&f64| {
            sum += **probability;
            share >= sum
        };
        (basis, (word & 1) as usize, self.probabilities.iter().take_while(below).count())
    }
}

/// The path and the receiver.
#[derive(Clone)]
pub struct Light {
    pub config: Prepared,
    pub emission: Emission,
    pub chosen: Chosen,
    /// Of a photon, detector included.
    pub transmittance: f64,
    pub error: f64,
    pub z_probability: f64,
    pub dark_rate_hz: f64,
    pub jitter_ps: f64,
    /// Of each detector, after a click of its own.
    pub dead_time_ps: f64,
    /// When pulse 0 comes after the first frame's start.
    pub offset_ps: f64,
    /// The receiver's clock against the transmitter's: relative frequency, and its change per second.
    pub frequency: f64,
    pub drift_per_s: f64,
    pub first_frame: u64,
    /// Frames without light.
    pub dark_frames: std::ops::Range<u64>,
    pub seed: u64,
}

/// Weak pulses and decoys at 1 GHz, as in a city.
pub fn decoy(part: Part) -> Prepared {
    Prepared {
        part,
        period_ps: 1000.0,
        encoding: Encoding::Detectors,
        key_basis: Basis::Z,
        gate_ps: 400.0,
        dead_time_ps: 0.0,
        preamble_pulses: 1 << 20,
        sync: Sync::Photons(Search { reach_ps: 200_000_000, frequency: 2e-7 }),
        tracking_interval_ps: 4_000_000_000,
        loops: Loops::OFF,
    }
}

/// A quantum dot of 76 MHz at high loss.
pub fn single_photons() -> Prepared {
    Prepared {
        period_ps: 13_158.0,
        gate_ps: 3000.0,
        preamble_pulses: 1 << 21,
        sync: Sync::Photons(Search { reach_ps: 200_000_000, frequency: 2e-7 }),
        tracking_interval_ps: 100_000_000_000,
        ..decoy(Part::Receiver)
    }
}

impl Light {
    /// With decoys.
    pub fn new(config: Prepared, seed: u64) -> Self {
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        Self::of(Emission::TwoDecoys([of(0.425, 0.7), of(0.044, 0.2), of(0.001, 0.1)]), config, seed)
    }

    /// With one decoy.
    pub fn one_decoy(config: Prepared, seed: u64) -> Self {
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        Self::of(Emission::OneDecoy([of(0.5, 0.7), of(0.15, 0.3)]), config, seed)
    }

    /// With single photons.
    pub fn single_photons(config: Prepared, seed: u64) -> Self {
        let source = SinglePhotons { mean_photons: 0.02, g2: 0.01, key_basis_probability: [0.8; 2] };
        Self::of(Emission::SinglePhotons(source), config, seed)
    }

    fn of(emission: Emission, config: Prepared, seed: u64) -> Self {
        eprintln!("seed {seed}");
        let probabilities = emission.intensities().iter().map(|k| k.probability);
        Self {
            chosen: Chosen {
                key: [seed as u8; 32],
                preamble: config.preamble_pulses,
                preamble_key: [0; 32],
                z_probability: 0.8,
                probabilities: probabilities.take(emission.mean_photons().len() - 1).collect(),
            },
            emission,
            config,
            transmittance: 0.02,
            error: 0.02,
            z_probability: 0.8,
            dark_rate_hz: 2000.0,
            jitter_ps: 40.0,
            dead_time_ps: 0.0,
            offset_ps: 70_000_123.0,
            frequency: 8e-8,
            drift_per_s: 1e-9,
            first_frame: 0,
            dark_frames: 0..0,
            seed,
        }
    }

    /// Local time of the middle of pulse `number`.
    fn local_ps(&self, number: u64) -> f64 {
        let t_ps = (number as f64 + 0.5) * self.config.period_ps;
        let t_s = t_ps * 1e-12;
        let start_ps = (self.first_frame * FRAME_PS) as f64 + self.offset_ps;
        start_ps + t_ps * (1.0 + self.frequency + 0.5 * self.drift_per_s * t_s)
    }

    /// Tags of `frames` frames, and the number of the pulse that each tag is of (none for dark counts).
    pub fn tags(&self, frames: u64) -> Vec<Vec<(u64, Option<u64>)>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (start, span_ps) = (self.first_frame * FRAME_PS, (frames * FRAME_PS) as f64);
        let mut clicks: Vec<(f64, u64, Option<u64>)> = Vec::new();
        let means = self.emission.mean_photons();
        let brightest = means[0] * self.transmittance;
        let largest = -(-brightest).exp_m1();
        let mut pulse = 0;
        loop {
            pulse += 1 + (uniform(&mut rng).ln() / (1.0 - largest).ln()) as u64;
            let number = pulse - 1;
            let local_ps = self.local_ps(number);
            if local_ps >= start as f64 + span_ps {
                break;
            }
            let state = self.chosen.at(number);
            let mean = means[state.2] * self.transmittance;
            if uniform(&mut rng) * largest > -(-mean).exp_m1() {
                continue;
            }
            let several = 1 + usize::from(uniform(&mut rng) < 0.5 * mean);
            for _ in 0..several {
                let (delay_ps, port) = self.outcome(state, &mut rng);
                clicks.push((local_ps + delay_ps + self.jitter_ps * gaussian(&mut rng), port, Some(number)));
            }
        }
        let dark_ps = 1e12 / self.dark_rate_hz;
        let mut at_ps = start as f64;
        loop {
            at_ps -= dark_ps * uniform(&mut rng).ln();
            if at_ps >= start as f64 + span_ps {
                break;
            }
            let port = if self.config.encoding == Encoding::Detectors {
                rng.next_u32() % 4
            } else {
                [0, 2, 3][rng.next_u32() as usize % 3]
            };
            clicks.push((at_ps, u64::from(port), None));
        }
        self.cut(frames, clicks)
    }

    fn cut(&self, frames: u64, mut clicks: Vec<(f64, u64, Option<u64>)>) -> Vec<Vec<(u64, Option<u64>)>> {
        clicks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut tags = vec![Vec::new(); frames as usize];
        let mut dead_until_ps = [f64::MIN; 4];
        for (local_ps, port, number) in clicks {
            if local_ps < 0.0 || local_ps < dead_until_ps[port as usize] {
                continue;
            }
            dead_until_ps[port as usize] = local_ps + self.dead_time_ps;
            let units = local_ps as u64 / 4;
            let frame = (4 * units / FRAME_PS).wrapping_sub(self.first_frame);
            let dark = number.is_some() && self.dark_frames.contains(&frame);
            if let Some(tags) = tags.get_mut(frame as usize).filter(|_| !dark) {
                tags.push((units << 10 | 1 << port, number));
            }
        }
        tags
    }

    /// Delay and detector of a photon.
    fn outcome(&self, (basis, bit, _): State, rng: &mut ChaCha8Rng) -> (f64, u64) {
        let measured = usize::from(uniform(rng) >= self.z_probability);
        let wrong = uniform(rng) < if measured == basis { self.error } else { 0.5 };
        let seen = (bit ^ usize::from(wrong)) as u64;
        match (self.config.encoding, measured) {
            (Encoding::Detectors, _) => (0.0, 2 * measured as u64 + seen),
            (Encoding::TimeBin { separation_ps }, 0) => (seen as f64 * separation_ps, 0),
            (Encoding::TimeBin { separation_ps }, _) => {
                let early = if basis == 0 { bit == 0 } else { uniform(rng) < 0.5 };
                let side = if early { 0.0 } else { 2.0 };
                (if uniform(rng) < 0.5 { side } else { 1.0 } * separation_ps, 2 + seen)
            }
        }
    }
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0
}

fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
    (-2.0 * uniform(rng).ln()).sqrt() * (TAU * uniform(rng)).cos()
}
