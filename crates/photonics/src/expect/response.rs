//! What the receiver of a prepared link makes of pulses, whatever they are of, by a few lumped figures: what papers
//! print, and what a search for intensities and bases varies. [`prepared`](super::prepared) reduces configured
//! instruments to these figures; there is no other formula.
//!
//! Exact for independent pulses: photons know nothing of each other, so the probability that none reaches a set of
//! detectors follows from the share of the light that goes there, and the patterns of clicks follow from these
//! probabilities. Both detectors of a basis give a random bit, detectors of both bases none.
//!
//! By their means alone: afterpulses, which are more noise (they follow the mean rate of clicks, not the pulse), and a
//! hold-off after each click. Left out: a detector that clicks before the moment that counts and is off there, a
//! hold-off that is not small against the time between changes of the rate.

/// Clicks whose basis is that of the key, or of the check.
pub const KEY: usize = 0;
pub const CHECK: usize = 1;

/// Path and receiver of a prepared link. Where there are two values they are of [`KEY`] and [`CHECK`].
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// From the transmitter's output to a click: path, optics and efficiency, without a passive choice of basis.
    pub transmission: f64,
    pub basis_choice: BasisChoice,
    /// Probability of the key basis at the transmitter and at the receiver.
    pub key_basis_probability: [f64; 2],
    /// Error rate of light alone.
    pub intrinsic_error: [f64; 2],
    /// Probability of a click without light per pulse, of all detectors of the basis together.
    pub noise_probability: [f64; 2],
    /// Probability that a click is followed by another one without light, after the detector's hold-off.
    pub afterpulse_probability: f64,
    /// Pulses for which a detector is off after each of its clicks. What the others see meanwhile is dropped.
    pub hold_off_pulses: f64,
    pub counted: [Counted; 2],
}

/// The shares that count of what reaches or fires the detectors of a basis: what comes outside of the moments at which
/// a receiver expects light is dropped. Behind an interferometer of time bins, half of the light comes in side peaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    pub light: f64,
    pub noise: f64,
}

impl Counted {
    pub const ALL: Self = Self { light: 1.0, noise: 1.0 };
}

/// How a receiver chooses its basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasisChoice {
    /// A modulator turns all light to two detectors that serve both bases.
    Active,
    /// A splitter leads the light to two detectors of either basis.
    Passive,
}

/// What pulses of one kind give in one basis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Probability of a click in this basis alone while no detector is off, given that both ends chose it. (Behind a
    /// splitter: that the transmitter chose it and the click is of this basis.)
    pub gain: f64,
    pub qber: f64,
    /// Share of all pulses of the link that become sifted bits here: choices of both ends and what is dropped included.
    pub sifted: f64,
}

/// What pulses of one kind give beside sifted bits, as shares of all pulses of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unsifted {
    /// Detected in the other basis than the transmitter's.
    pub mismatched: f64,
    /// Detected in both bases.
    pub crossed: f64,
    /// Detected by both detectors of one basis: part of the sifted or of the mismatched.
    pub doubles: f64,
}

/// What a receiver makes of the pulses of a link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Noise of each basis that counts, afterpulses included.
    pub noise_probability: [f64; 2],
    /// Probability that no detector is off.
    pub live_share: f64,
    /// Of each kind of pulse, by basis.
    pub kinds: Vec<[Rates; 2]>,
    /// Of each kind of pulse.
    pub unsifted: Vec<Unsifted>,
}

impl Response {
    /// Share of all pulses of the link that are of this kind and detected, whatever becomes of them.
    pub fn detected(&self, kind: usize) -> f64 {
        let Unsifted { mismatched, crossed, .. } = self.unsifted[kind];
        self.kinds[kind].iter().map(|rates| rates.sifted).sum::<f64>() + mismatched + crossed
    }
}

/// Steps of the fixed point at most: each is as much closer as the probability of afterpulses is small.
const FIXED_POINT_STEPS: usize = 100;

/// Clicks of one kind of pulse, the transmitter being in the basis that is looked at.
struct Clicks {
    /// Of the basis alone, of any of its detectors.
    alone: f64,
    /// Of the basis alone, of both of its detectors.
    both: f64,
    wrong: f64,
    /// Of both detectors of the basis alone, of light that was sent in the other one.
    both_of_other: f64,
    /// In both bases.
    crossed: f64,
}

impl Receiver {
    /// `probabilities` of the kinds of pulses, and of each the probability that a photon of it fires a detector at a
    /// transmission.
    pub fn respond(&self, probabilities: &[f64], fires: impl Fn(usize, f64) -> f64) -> Response {
        let kinds = 0..probabilities.len();
        let (noise, clicks) = self.noise(probabilities, &fires);
        let live_share = self.live_share(clicks);
        let of_kind = |kind: usize| {
            let clicks = [KEY, CHECK].map(|basis| self.clicks(basis, noise, |share| fires(kind, share)));
            let share = |basis: usize| probabilities[kind] * live_share * self.measured(basis);
            let rates = [KEY, CHECK].map(|basis| {
                let Clicks { alone, wrong, .. } = clicks[basis];
                let sifted = share(basis) * self.of_basis(0, basis) * alone;
                Rates { gain: alone, qber: if alone > 0.0 { wrong / alone } else { 0.0 }, sifted }
            });
            let mut unsifted =
                Unsifted { crossed: probabilities[kind] * live_share * clicks[KEY].crossed, ..Unsifted::default() };
            for (basis, clicks) in clicks.iter().enumerate() {
                let same = self.of_basis(0, basis);
                unsifted.mismatched += share(basis) * (1.0 - same) * clicks.alone;
                unsifted.doubles += share(basis) * (same * clicks.both + (1.0 - same) * clicks.both_of_other);
            }
            (rates, unsifted)
        };
        let (kinds, unsifted) = kinds.map(of_kind).unzip();
        Response { noise_probability: noise, live_share, kinds, unsifted }
    }

    /// Noise of each basis that counts, and the probability of a click of it, counted or not.
    fn noise(&self, probabilities: &[f64], fires: &impl Fn(usize, f64) -> f64) -> ([f64; 2], [f64; 2]) {
        let bases = [KEY, CHECK];
        let lights = bases.map(|basis| {
            let transmission = self.transmission * self.split(basis);
            (0..probabilities.len()).map(|kind| fires(kind, transmission)).collect::<Vec<f64>>()
        });
        let mean = |basis: usize, noise: f64| -> f64 {
            probabilities.iter().zip(&lights[basis]).map(|(p, light)| p * either(*light, noise)).sum()
        };
        let (mut noise, mut clicks) = (self.noise_probability, [0.0; 2]);
        for _ in 0..FIXED_POINT_STEPS {
            clicks = bases.map(|basis| mean(basis, noise[basis]));
            if self.basis_choice == BasisChoice::Active {
                // The same detectors, whatever is measured.
                clicks = [bases.map(|basis| clicks[basis] * self.of_basis(1, basis)).iter().sum(); 2];
            }
            let after = clicks.map(|clicks| self.afterpulse_probability * clicks);
            let next = bases.map(|basis| (self.noise_probability[basis] + after[basis]).min(1.0));
            let converged = bases.iter().all(|basis| libm::fabs(next[*basis] - noise[*basis]) <= 1e-15 * next[*basis]);
            noise = next;
            if converged {
                break;
            }
        }
        (bases.map(|basis| noise[basis] * self.counted[basis].noise), clicks)
    }

    /// `fires` is the probability that light fires a detector at a transmission.
    fn clicks(&self, basis: usize, noise: [f64; 2], fires: impl Fn(f64) -> f64) -> Clicks {
        let light = |basis: usize| self.transmission * self.split(basis) * self.counted[basis].light;
        let (own, error) = (light(basis), self.intrinsic_error[basis]);
        // Both detectors of a basis are equal: each has the noise that makes that of both.
        let one = -libm::expm1(0.5 * libm::log1p(-noise[basis]));
        let other =
            if self.basis_choice == BasisChoice::Active { (0.0, 0.0) } else { (light(1 - basis), noise[1 - basis]) };
        let (other_light, other_noise) = other;
        // A click of some detectors of the basis, or of the other basis.
        let any = |light: f64, noise: f64| either(fires(light + other_light), either(noise, other_noise));
        let of_other = any(0.0, 0.0);
        let all = any(own, noise[basis]);
        let alone = |light: f64| any(light, one) - of_other;
        let (right, wrong, half) = (alone(own * (1.0 - error)), alone(own * error), alone(own * 0.5));
        let of_basis = all - of_other;
        Clicks {
            alone: of_basis,
            both: (right + wrong - of_basis).max(0.0),
            // That of the wrong detector alone, and half of what both see.
            wrong: (0.5 * (of_basis + wrong - right)).max(0.0),
            both_of_other: (2.0 * half - of_basis).max(0.0),
            crossed: (either(fires(own), noise[basis]) + of_other - all).max(0.0)
                * if self.basis_choice == BasisChoice::Active { 0.0 } else { 1.0 },
        }
    }

    /// Share of the light that reaches the detectors of a basis.
    fn split(&self, basis: usize) -> f64 {
        if self.basis_choice == BasisChoice::Active { 1.0 } else { self.of_basis(1, basis) }
    }

    /// Probability that a basis is measured, as far as the receiver chooses.
    fn measured(&self, basis: usize) -> f64 {
        if self.basis_choice == BasisChoice::Active { self.of_basis(1, basis) } else { 1.0 }
    }

    fn of_basis(&self, end: usize, basis: usize) -> f64 {
        let key = self.key_basis_probability[end];
        if basis == KEY { key } else { 1.0 - key }
    }

    /// Every detector is a renewal process with a dead time of its own, and all must be ready. `clicks` are those of
    /// each basis; an active choice has the same detectors in both.
    fn live_share(&self, clicks: [f64; 2]) -> f64 {
        let ready = |clicks: f64| 1.0 / (1.0 + clicks / 2.0 * self.hold_off_pulses);
        let [first, second] = clicks.map(ready);
        let both = first * first;
        if self.basis_choice == BasisChoice::Active { both } else { both * second * second }
    }
}

/// Of two independent causes at least one, without the rounding of `1 - (1 - a) (1 - b)`.
fn either(first: f64, second: f64) -> f64 {
    first + second - first * second
}
