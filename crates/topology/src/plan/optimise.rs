//! The intensities, their probabilities and the bias of the bases that give the longest key of a stated block.
//!
//! Pure and deterministic: four fixed starting points, a simplex search from each, and two more from the best. What is
//! searched are real numbers without limits: probabilities and ratios as logits, intensities as logarithms, so that
//! every point is a protocol in the right order. The maximum is flat: a signal that is 10 % too bright costs less than
//! 2 % of the key. Both ends first have one bias of the bases, which is the best where noise does not depend on it;
//! then each may have its own.

use distill::config::{Emission, Intensity, Security, SinglePhotons};
use photonics::expect::pulses::{PulseClass, PulsesInputs};
use photonics::expect::response::{CHECK, KEY};
use photonics::expect::single_photon::SinglePhotonInputs;

use super::prepared;

/// What a transmitter and its receiver may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub emission: Emission,
    /// Probability of the key basis, at the transmitter and at the receiver.
    pub key_basis_probability: [f64; 2],
}

/// The best choice that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimum {
    pub choice: Choice,
    /// Secret bits per pulse; not positive where no choice gives key.
    pub bits_per_pulse: f64,
    /// How often the bound was asked.
    pub evaluations: u32,
}

/// Intensities below are not tried: rounding would be taken for key.
const SIGNAL_MIN: f64 = 1e-3;
const SIGNAL_MAX: f64 = 3.0;
/// A decoy is at most this share of the intensity above it.
const RATIO_MAX: f64 = 0.8;
const PROBABILITY_MIN: f64 = 1e-4;
/// Where two biases gain less than this, one for both ends is as good.
const GAIN_MIN: f64 = 1e-3;

/// Evaluations of the first searches and of the two from the best.
const FIRST: u32 = 250;
const AGAIN: u32 = 400;
const FIRST_STEP: f64 = 0.4;
const AGAIN_STEP: f64 = 0.1;

/// Two decoys, of which the weaker has a given intensity: the extinction of the modulator, or 0. Both ends have one
/// bias. `rate` is the key of a block in bits per pulse, negative by how much it is missed.
pub fn two_decoys(vacuum: f64, rate: impl Fn(&Choice) -> f64) -> Optimum {
    // Bias, signal, ratio of the decoy to it, probability of the signal, share of the decoy in the rest.
    let starts = [
        [0.9, 0.45, 0.5, 0.5, 0.7],
        [0.7, 0.5, 0.4, 0.15, 0.6],
        [0.95, 0.4, 0.4, 0.75, 0.6],
        [0.5, 0.6, 0.3, 0.1, 0.5],
    ];
    let choose = |x: &[f64; 5]| {
        let [bias, signal, ratio, first, second] = *x;
        let (signal, first) = (libm::exp(signal), logistic(first));
        let decoy = vacuum + (RATIO_MAX * signal - vacuum).max(0.0) * logistic(ratio);
        let second = (1.0 - first) * logistic(second);
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        let emission = Emission::TwoDecoys([of(signal, first), of(decoy, second), of(vacuum, 1.0 - first - second)]);
        Choice { emission, key_basis_probability: [logistic(bias); 2] }
    };
    let start = |[bias, signal, ratio, first, second]: [f64; 5]| {
        [logit(bias), libm::log(signal), logit(ratio), logit(first), logit(second)]
    };
    search(starts.map(start), choose, rate)
}

/// One decoy, and one bias.
pub fn one_decoy(rate: impl Fn(&Choice) -> f64) -> Optimum {
    let starts = [[0.9, 0.4, 0.4, 0.7], [0.7, 0.35, 0.4, 0.4], [0.95, 0.4, 0.2, 0.85], [0.5, 0.5, 0.5, 0.3]];
    let choose = |x: &[f64; 4]| {
        let [bias, signal, ratio, first] = *x;
        let (signal, first) = (libm::exp(signal), logistic(first));
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        let decoy = RATIO_MAX * signal * logistic(ratio);
        let emission = Emission::OneDecoy([of(signal, first), of(decoy, 1.0 - first)]);
        Choice { emission, key_basis_probability: [logistic(bias); 2] }
    };
    let start = |[bias, signal, ratio, first]: [f64; 4]| [logit(bias), libm::log(signal), logit(ratio), logit(first)];
    search(starts.map(start), choose, rate)
}

/// The longest key of a block of `block_s`, with the instruments of a link and as many intensities as it has. The third
/// intensity stays as it is. Nothing, where the link has another number of them.
pub fn decoys(inputs: &PulsesInputs, security: &Security, block_s: f64, efficiency: f64) -> Option<Optimum> {
    let pulses = block_s * inputs.pulse_rate_hz;
    let rate = |choice: &Choice| {
        let inputs = with_choice(inputs, choice);
        let security = Security { emission: choice.emission, ..security.clone() };
        let bounds = prepared::pulses(&inputs, pulses, efficiency).bounds(&security);
        bounds.chosen(security.bound).bits / pulses
    };
    let best = match prepared::emission(inputs)? {
        Emission::TwoDecoys([_, _, vacuum]) => two_decoys(vacuum.mean_photons, rate),
        Emission::OneDecoy(_) => one_decoy(rate),
        Emission::Pairs | Emission::SinglePhotons(_) | Emission::TwinField(_) => return None,
    };
    let emission = best.choice.emission;
    Some(with_two_biases(best, |key_basis_probability| Choice { emission, key_basis_probability }, rate))
}

/// The same of single photons, of which the bias of the bases alone is a choice. Nothing, where the light is another
/// one.
pub fn single_photons(
    inputs: &SinglePhotonInputs,
    security: &Security,
    block_s: f64,
    efficiency: f64,
) -> Option<Optimum> {
    let Emission::SinglePhotons(source) = security.emission else { return None };
    let pulses = block_s * inputs.pulse_rate_hz;
    let choose = |key_basis_probability: [f64; 2]| Choice {
        emission: emission_at(&source, inputs, key_basis_probability),
        key_basis_probability,
    };
    let rate = |choice: &Choice| {
        let security = Security { emission: choice.emission, ..security.clone() };
        let block = prepared::single_photons(&with_bias(inputs, choice.key_basis_probability), pulses, efficiency);
        block.bounds(&security).chosen(security.bound).bits / pulses
    };
    let starts = [0.9, 0.7, 0.95, 0.5].map(|bias| [logit(bias)]);
    let best = search(starts, |x: &[f64; 1]| choose([logistic(x[0]); 2]), rate);
    Some(with_two_biases(best, choose, rate))
}

/// The best choice with a bias of its own for each end, where that gives more key. Noise of a passive receiver does not
/// follow its bias, so that there the two are worth different things.
fn with_two_biases(best: Optimum, choose: impl Fn([f64; 2]) -> Choice, rate: impl Fn(&Choice) -> f64) -> Optimum {
    let choose = |x: &[f64; 2]| choose(x.map(logistic));
    let start = best.choice.key_basis_probability.map(logit);
    let found = simplex(&start, FIRST_STEP, FIRST, |x| cost_of(&choose(x), &rate));
    let choice = choose(&found.at);
    let bits_per_pulse = rate(&choice);
    let evaluations = best.evaluations + found.evaluations;
    if bits_per_pulse > best.bits_per_pulse + GAIN_MIN * best.bits_per_pulse.abs() {
        Optimum { choice, bits_per_pulse, evaluations }
    } else {
        Optimum { evaluations, ..best }
    }
}

/// A link of single photons with other biases.
pub fn with_bias(inputs: &SinglePhotonInputs, key_basis_probability: [f64; 2]) -> SinglePhotonInputs {
    let mut inputs = inputs.clone();
    inputs.receiver.key_basis_probability = key_basis_probability;
    inputs
}

/// What a proof takes for granted then: at the receiver the share of the key basis in what is kept.
fn emission_at(source: &SinglePhotons, inputs: &SinglePhotonInputs, [sent, measured]: [f64; 2]) -> Emission {
    let counted = &inputs.receiver.counted;
    let [own, other] = [measured * counted[KEY].light, (1.0 - measured) * counted[CHECK].light];
    let kept = if own + other > 0.0 { own / (own + other) } else { measured };
    Emission::SinglePhotons(SinglePhotons { key_basis_probability: [sent, kept], ..*source })
}

/// The link with other intensities and bases.
pub fn with_choice(inputs: &PulsesInputs, choice: &Choice) -> PulsesInputs {
    let mut inputs = inputs.clone();
    let class = |k: &Intensity| PulseClass { mean_photons: k.mean_photons, probability: k.probability };
    inputs.classes = choice.emission.intensities().iter().map(class).collect();
    inputs.receiver.key_basis_probability = choice.key_basis_probability;
    inputs
}

fn search<const K: usize>(
    starts: [[f64; K]; 4],
    choose: impl Fn(&[f64; K]) -> Choice,
    rate: impl Fn(&Choice) -> f64,
) -> Optimum {
    let cost = |x: &[f64; K]| cost_of(&choose(x), &rate);
    let mut best = Found { at: starts[0], cost: f64::INFINITY, evaluations: 0 };
    let mut evaluations = 0;
    let mut keep = |found: Found<K>, best: &mut Found<K>| {
        evaluations += found.evaluations;
        if found.cost < best.cost {
            *best = found;
        }
    };
    for start in starts {
        keep(simplex(&start, FIRST_STEP, FIRST, cost), &mut best);
    }
    for _ in 0..2 {
        let start = best.at;
        keep(simplex(&start, AGAIN_STEP, AGAIN, cost), &mut best);
    }
    let choice = choose(&best.at);
    Optimum { choice, bits_per_pulse: rate(&choice), evaluations }
}

fn is_within_limits(choice: &Choice) -> bool {
    let intensities = choice.emission.intensities();
    intensities.iter().all(|k| k.probability >= PROBABILITY_MIN)
        && intensities.first().is_none_or(|signal| (SIGNAL_MIN..=SIGNAL_MAX).contains(&signal.mean_photons))
        && choice.key_basis_probability.iter().all(|bias| (PROBABILITY_MIN..=1.0 - PROBABILITY_MIN).contains(bias))
}

fn cost_of(choice: &Choice, rate: impl Fn(&Choice) -> f64) -> f64 {
    if is_within_limits(choice) { cost(rate(choice)) } else { f64::INFINITY }
}

/// Relative where there is key; beyond it grows with what is missing, so that a search finds its way back.
fn cost(rate: f64) -> f64 {
    const WITHOUT_KEY: f64 = 1e3;
    if rate > 0.0 {
        -libm::log(rate)
    } else if rate.is_nan() {
        f64::INFINITY
    } else {
        WITHOUT_KEY + libm::log1p(-rate * 1e15)
    }
}

struct Found<const K: usize> {
    at: [f64; K],
    cost: f64,
    evaluations: u32,
}

/// Nelder and Mead's method with its usual constants, until its evaluations are used up or the simplex is a point.
fn simplex<const K: usize>(start: &[f64; K], step: f64, evaluations: u32, cost: impl Fn(&[f64; K]) -> f64) -> Found<K> {
    const TOLERANCE: f64 = 1e-10;
    let mut used = 0;
    let mut evaluate = |at: [f64; K]| {
        used += 1;
        (at, cost(&at))
    };
    let mut points: Vec<([f64; K], f64)> = Vec::with_capacity(K + 1);
    points.push(evaluate(*start));
    for index in 0..K {
        let mut at = *start;
        at[index] += step;
        points.push(evaluate(at));
    }
    let mut left = evaluations.saturating_sub(K as u32 + 1);
    while left > 0 {
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (points[0].1, points[K].1);
        if worst - best < TOLERANCE {
            break;
        }
        let centre = centre_of(&points[..K]);
        let towards = |factor: f64| combine(&centre, &points[K].0, factor);
        let reflected = evaluate(towards(-1.0));
        left -= 1;
        if reflected.1 < best {
            let expanded = evaluate(towards(-2.0));
            left = left.saturating_sub(1);
            points[K] = if expanded.1 < reflected.1 { expanded } else { reflected };
        } else if reflected.1 < points[K - 1].1 {
            points[K] = reflected;
        } else {
            let contracted = evaluate(towards(if reflected.1 < worst { -0.5 } else { 0.5 }));
            left = left.saturating_sub(1);
            if contracted.1 < reflected.1.min(worst) {
                points[K] = contracted;
            } else {
                let first = points[0].0;
                for point in &mut points[1..] {
                    *point = evaluate(combine(&first, &point.0, 0.5));
                }
                left = left.saturating_sub(K as u32);
            }
        }
    }
    points.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (at, cost) = points[0];
    Found { at, cost, evaluations: used }
}

fn centre_of<const K: usize>(points: &[([f64; K], f64)]) -> [f64; K] {
    core::array::from_fn(|index| points.iter().map(|point| point.0[index]).sum::<f64>() / points.len() as f64)
}

/// `from + factor (to - from)`.
fn combine<const K: usize>(from: &[f64; K], to: &[f64; K], factor: f64) -> [f64; K] {
    core::array::from_fn(|index| from[index] + factor * (to[index] - from[index]))
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

fn logit(p: f64) -> f64 {
    libm::log(p / (1.0 - p))
}
