//! What a link could choose better: the optimum for blocks of a stated length, what today's values lose, and the lines
//! of a document that would change it.

use distill::config::{Bound, Emission, Security};
use photonics::expect::optimum::optimum;
use photonics::expect::prepared::Inputs;
use serde::Serialize;

use super::expected::PreparedParts;
use super::key::KeyInputs;
use super::optimise::{Choice, decoys, single_photons, with_bias, with_choice};
use super::{Plan, PlannedLink, prepared};

/// A better choice for one link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proposal {
    pub link: String,
    pub block_s: f64,
    /// The bound by which keys are compared.
    pub bound: &'static str,
    pub today_bps: f64,
    /// With the values of the snippet, which are rounded.
    pub best_bps: f64,
    pub values: Vec<Changed>,
    /// Lines of the link's entry in a document; empty where nothing gives key.
    pub snippet: String,
}

/// One value, by its path in the link's entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    pub path: &'static str,
    pub today: f64,
    pub best: f64,
}

impl Proposal {
    /// Share of the best key that today's values lose.
    pub fn lost(&self) -> f64 {
        if self.best_bps > 0.0 { (1.0 - self.today_bps / self.best_bps).max(0.0) } else { 0.0 }
    }
}

/// The longest key of blocks of `block_s`, one per second of its length. The bound is the one of the topology; where
/// that is the limit of long keys, which puts no price on rare pulses, it is the finite one for the light.
pub fn propose(plan: &Plan, link: &PlannedLink, block_s: f64, efficiency: f64) -> Option<Proposal> {
    match plan.prepared(link) {
        Some(parts) => pulses(link, &parts, block_s, efficiency),
        None => pairs(plan, link, block_s, efficiency),
    }
}

fn finite(security: &Security) -> Security {
    let bound = if security.bound == Bound::Asymptotic { Bound::Finite } else { security.bound };
    Security { bound, ..security.clone() }
}

fn pulses(link: &PlannedLink, parts: &PreparedParts<'_>, block_s: f64, efficiency: f64) -> Option<Proposal> {
    let security = finite(&parts.post_processing.security);
    let inputs = parts.inputs();
    let rate = |inputs: &Inputs, emission: Emission| {
        let security = Security { emission, ..security.clone() };
        let bounds = prepared::block(inputs, block_s * inputs.pulse_rate_hz(), efficiency).bounds(&security);
        if bounds.abort.is_some() { 0.0 } else { bounds.chosen(security.bound).bits.max(0.0) / block_s }
    };
    let today_bps = rate(&inputs, security.emission);
    let best = match &inputs {
        Inputs::Pulses(pulses) => rounded(&decoys(pulses, &security, block_s, efficiency)?.choice),
        Inputs::SinglePhotons(dot) => rounded(&single_photons(dot, &security, block_s, efficiency)?.choice),
    };
    let improved = match &inputs {
        Inputs::Pulses(pulses) => Inputs::Pulses(with_choice(pulses, &best)),
        Inputs::SinglePhotons(dot) => Inputs::SinglePhotons(with_bias(dot, best.key_basis_probability)),
    };
    let best_bps = rate(&improved, best.emission);
    let key_is_z = parts.key_is_z();
    let bias = |key: f64| if key_is_z { key } else { 1.0 - key };
    let mut values = Vec::new();
    const PATHS: [[&str; 2]; 3] = [
        ["source.intensities.signal.meanPhotons", "source.intensities.signal.probability"],
        ["source.intensities.decoy.meanPhotons", "source.intensities.decoy.probability"],
        ["source.intensities.vacuum.meanPhotons", "source.intensities.vacuum.probability"],
    ];
    for ((paths, today), best) in PATHS.iter().zip(security.emission.intensities()).zip(best.emission.intensities()) {
        values.push(Changed { path: paths[0], today: today.mean_photons, best: best.mean_photons });
        values.push(Changed { path: paths[1], today: today.probability, best: best.probability });
    }
    let [sent, measured] = inputs.receiver().key_basis_probability.map(bias);
    let z = best.key_basis_probability.map(bias);
    values.push(Changed { path: "source.encoder.zProbability", today: sent, best: z[0] });
    values.push(Changed { path: "arms[0].analyser.zProbability", today: measured, best: z[1] });
    let snippet = if best_bps > 0.0 { snippet(&best, z) } else { String::new() };
    let (link, bound) = (link.name.clone(), security.bound.name());
    Some(Proposal { link, block_s, bound, today_bps, best_bps, values, snippet })
}

/// Values that a person would write: four digits, and probabilities that still sum to 1.
fn rounded(choice: &Choice) -> Choice {
    let digits = |value: f64| -> f64 { format!("{value:.3e}").parse().unwrap_or(value) };
    let share = |value: f64| (value * 1e4).round().clamp(1.0, 9_999.0) / 1e4;
    let mut choice = *choice;
    choice.key_basis_probability = choice.key_basis_probability.map(share);
    let intensities: &mut [_] = match &mut choice.emission {
        Emission::OneDecoy(intensities) => intensities,
        Emission::TwoDecoys(intensities) => intensities,
        Emission::Pairs | Emission::SinglePhotons(_) | Emission::TwinField(_) => &mut [],
    };
    for intensity in intensities.iter_mut() {
        intensity.mean_photons = digits(intensity.mean_photons);
        intensity.probability = share(intensity.probability);
    }
    if let Some((signal, rest)) = intensities.split_first_mut() {
        let rest: f64 = rest.iter().map(|intensity| intensity.probability).sum();
        signal.probability = ((1.0 - rest) * 1e4).round() / 1e4;
    }
    choice
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

fn snippet(choice: &Choice, z: [f64; 2]) -> String {
    let mut text = "source:\n".to_owned();
    let intensities = choice.emission.intensities();
    if !intensities.is_empty() {
        text += "  intensities:\n";
    }
    for (name, intensity) in ["signal", "decoy", "vacuum"].iter().zip(intensities) {
        let probability = percent(intensity.probability);
        text += &format!("    {name}: {{meanPhotons: {}, probability: {probability}}}\n", intensity.mean_photons);
    }
    let [sent, measured] = z.map(percent);
    text + &format!("  encoder: {{zProbability: {sent}}}\narms:\n  - analyser: {{zProbability: {measured}}}\n")
}

fn pairs(plan: &Plan, link: &PlannedLink, block_s: f64, efficiency: f64) -> Option<Proposal> {
    let parts = plan.entangled(link)?;
    let inputs = parts.inputs();
    let security = finite(&parts.post_processing.security);
    let bound = security.bound;
    let key = KeyInputs { reconciliation_efficiency: efficiency, block_s, security };
    let today = parts.operating_point(&inputs);
    let best = optimum(&inputs, |expected| key.rate(expected).by(bound));
    let [today_bps, best_bps] = [&today, &best].map(|point| key.rate(&point.prediction).by(bound));
    let mut values = vec![Changed { path: "source.pumpInitial", today: today.pump, best: best.pump }];
    let held = Some(&parts.sifting.loops).filter(|loops| loops.pump);
    let mut snippet = String::new();
    if best_bps > 0.0 {
        let pump = (best.pump * 1e3).round() / 1e3;
        snippet = format!("source: {{pumpInitial: {pump}");
        if best.pump > parts.pairs.emitter.pump_max {
            snippet += &format!(", pumpMax: {}", (best.pump * 1.05 * 1e3).ceil() / 1e3);
        }
        snippet += "}\n";
        if let Some(loops) = held {
            let target = best.prediction.z.qber;
            values.push(Changed { path: "loops.pump.targetQber", today: loops.target_qber_z, best: target });
            snippet += &format!("loops: {{pump: {{targetQber: {}}}}}\n", percent((target * 1e5).round() / 1e5));
        }
    }
    Some(Proposal { link: link.name.clone(), block_s, bound: bound.name(), today_bps, best_bps, values, snippet })
}
