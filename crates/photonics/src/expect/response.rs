//! What the receiver of a prepared link makes of pulses, whatever they are of, by a few lumped figures: what papers print,
//! and what a search for intensities and bases varies. (`prepared` says the same of gated instruments as they are configured;
//! a test compares the two for one system.)
//!
//! Included: noise of each pulse, afterpulses as more of it (they follow the mean rate of clicks, not the pulse), a hold-off
//! after each click, double clicks within a basis (a random bit). Not included: double clicks of different bases, double
//! clicks of several photons of one pulse, hold-off that is not small against the time between changes of the rate.

/// Clicks whose basis is that of the key, or of the check.
pub const KEY: usize = 0;
pub const CHECK: usize = 1;

/// Path and receiver of a prepared link.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// From the transmitter's output to a click: path, optics and efficiency, without a passive choice of basis.
    pub transmission: f64,
    pub basis_choice: BasisChoice,
    /// Probability of the key basis at the transmitter and at the receiver.
    pub key_basis_probability: [f64; 2],
    /// Error rate of light alone, in the key basis and in the check basis.
    pub intrinsic_error: [f64; 2],
    /// Probability of a click without light per pulse, of the two detectors of one basis together.
    pub noise_probability: f64,
    /// Probability that a click is followed by another one without light.
    pub afterpulse_probability: f64,
    /// Pulses for which a detector is off after each of its clicks. What the others see meanwhile is dropped.
    pub hold_off_pulses: f64,
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
    /// Probability of a click while no detector is off, given that both ends chose this basis. (Behind a splitter: that the
    /// transmitter chose it and the click is of this basis.)
    pub gain: f64,
    pub qber: f64,
    /// Share of all pulses of the link that become sifted bits here: choices of both ends and what is dropped included.
    pub sifted: f64,
}

/// What a receiver makes of the pulses of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Noise of each basis, afterpulses included.
    pub noise_probability: [f64; 2],
    /// Probability that no detector is off.
    pub live_share: f64,
    /// Of each kind of pulse, by basis.
    pub kinds: Vec<[Rates; 2]>,
}

/// Steps of the fixed point at most: each is as much closer as the probability of afterpulses is small.
const FIXED_POINT_STEPS: usize = 100;

impl Receiver {
    /// `probabilities` of the kinds of pulses, and of each the probability that a photon of it fires a detector at a
    /// transmission.
    pub fn respond(&self, probabilities: &[f64], fires: impl Fn(usize, f64) -> f64) -> Response {
        let bases = [KEY, CHECK];
        let lights = bases.map(|basis| {
            let transmission = self.transmission * self.split(basis);
            (0..probabilities.len()).map(|kind| fires(kind, transmission)).collect::<Vec<f64>>()
        });
        let mean = |basis: usize, noise: f64| -> f64 {
            probabilities.iter().zip(&lights[basis]).map(|(p, light)| p * click(*light, noise)).sum()
        };
        let (mut noise, mut live_share) = ([self.noise_probability; 2], 1.0);
        for _ in 0..FIXED_POINT_STEPS {
            let clicks = bases.map(|basis| mean(basis, noise[basis]));
            live_share = self.live_share(clicks);
            let after = clicks.map(|clicks| self.afterpulse_probability * live_share * clicks);
            let next = after.map(|after| (self.noise_probability + after).min(1.0));
            let converged = bases.iter().all(|basis| libm::fabs(next[*basis] - noise[*basis]) <= 1e-15 * next[*basis]);
            noise = next;
            if converged {
                break;
            }
        }
        let rates = |kind: usize, basis: usize| {
            let (light, noise) = (lights[basis][kind], noise[basis]);
            let gain = click(light, noise);
            let wrong = self.intrinsic_error[basis] * light * (1.0 - noise / 2.0)
                + noise * light / 4.0
                + noise * (1.0 - light) / 2.0;
            let sifted = probabilities[kind] * self.chosen(basis) * gain * live_share;
            Rates { gain, qber: if gain > 0.0 { wrong / gain } else { 0.0 }, sifted }
        };
        let kinds = (0..probabilities.len()).map(|kind| bases.map(|basis| rates(kind, basis))).collect();
        Response { noise_probability: noise, live_share, kinds }
    }

    /// Share of the light that reaches the detectors of a basis.
    fn split(&self, basis: usize) -> f64 {
        if self.basis_choice == BasisChoice::Active { 1.0 } else { self.of_basis(1, basis) }
    }

    /// Probability that a pulse counts in a basis as far as it was chosen.
    fn chosen(&self, basis: usize) -> f64 {
        let receiver = if self.basis_choice == BasisChoice::Active { self.of_basis(1, basis) } else { 1.0 };
        self.of_basis(0, basis) * receiver
    }

    fn of_basis(&self, end: usize, basis: usize) -> f64 {
        let key = self.key_basis_probability[end];
        if basis == KEY { key } else { 1.0 - key }
    }

    /// Every detector is a renewal process with a dead time of its own, and all must be ready.
    fn live_share(&self, clicks: [f64; 2]) -> f64 {
        let ready = |clicks: f64| 1.0 / (1.0 + clicks / 2.0 * self.hold_off_pulses);
        let detectors = match self.basis_choice {
            BasisChoice::Active => {
                let all = clicks[KEY] * self.of_basis(1, KEY) + clicks[CHECK] * self.of_basis(1, CHECK);
                [ready(all), 1.0]
            }
            BasisChoice::Passive => clicks.map(ready),
        };
        let [first, second] = detectors;
        first * first * second * second
    }
}

/// A click of light or noise, without the rounding of `1 - (1 - a) (1 - b)`.
fn click(light: f64, noise: f64) -> f64 {
    light + noise - light * noise
}
