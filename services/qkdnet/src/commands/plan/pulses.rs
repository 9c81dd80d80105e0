//! The report on a link of pulses.

use serde::Serialize;
use topology::figure::Figures;
use topology::plan::checkpoints::Budget;
use topology::plan::expected::{PreparedParts, PreparedPrediction};
use topology::plan::passes::PassPrediction;
use topology::plan::{Plan, PlannedLink};

/// What is expected of a transmitter and its receiver.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PulsesReport {
    pub name: String,
    pub protocol: &'static str,
    pub sites: [String; 2],
    /// From the transmitter's output to the clicks.
    pub total_loss_db: f64,
    pub pulse_rate_hz: f64,
    /// The brightest first; a single one of single photons.
    pub intensities: Vec<IntensityReport>,
    pub sifted_key_hz: f64,
    pub sifted_check_hz: f64,
    pub qber_key: f64,
    pub qber_check: f64,
    /// Share of the time in which no detector is blind.
    pub live_share: f64,
    pub tags_hz: [f64; 2],
    pub record_bytes_per_s: f64,
    pub module_memory_bytes: [f64; 2],
    pub block_s: f64,
    pub pulses_per_block: f64,
    pub bound: &'static str,
    pub tolerated_qber: f64,
    pub reconciliation_efficiency: f64,
    /// Key rate by the bound that the topology chooses: 0 where a block gives none.
    pub skr_bps: f64,
    pub skr_asymptotic_bps: f64,
    pub skr_finite_bps: f64,
    /// How much more loss leaves key of blocks without end, and of blocks of this length; missing where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin_asymptotic_db: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin_finite_db: Option<f64>,
    /// Why there is no key by that bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_key: Option<String>,
    pub authentication_bits_per_block: f64,
    /// Share of the key by the bound that the topology chooses.
    pub authentication_fraction: f64,
    pub figures: Figures,
    /// Of a link to a satellite: what else is said of it is that of the mean of the first one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<PassPrediction>,
    /// Warnings about this link.
    pub notes: Vec<String>,
}

/// Pulses of one intensity.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct IntensityReport {
    pub name: &'static str,
    pub mean_photons: f64,
    pub probability: f64,
    /// Probability of a detection in the key basis, both ends having chosen it.
    pub gain: f64,
    pub qber: f64,
}

/// `None` where the plan lacks a service that it names, which `topology` never does.
pub(super) fn report(
    plan: &Plan,
    link: &PlannedLink,
    parts: &PreparedParts<'_>,
    efficiency: f64,
) -> Option<PulsesReport> {
    let prediction = parts.predict(efficiency);
    let load = plan.load(&link.name)?;
    let security = &parts.post_processing.security;
    let (block_s, pulse_rate_hz) = (prediction.block_s, prediction.inputs.pulse_rate_hz());
    let key_bits = prediction.chosen_bps() * block_s;
    let budget = Budget::of(parts.post_processing, key_bits);
    let authentication_bits = budget.tag_bits;
    let mut figures = prediction.figures();
    budget.tell(&mut figures);
    let [key, check] = [0, 1].map(|basis| (prediction.sifted_hz(basis), prediction.qber(basis)));
    Some(PulsesReport {
        name: link.name.clone(),
        protocol: link.protocol.name(),
        sites: link.ends.each_ref().map(|end| end.site.clone()),
        total_loss_db: link.total_loss_db() + parts.space.map_or(0.0, |space| space.mean.loss_db),
        pulse_rate_hz,
        intensities: intensities(parts, &prediction),
        sifted_key_hz: key.0,
        sifted_check_hz: check.0,
        qber_key: key.1,
        qber_check: check.1,
        live_share: prediction.response.live_share,
        tags_hz: load.tags_hz,
        record_bytes_per_s: load.record_bytes_hz,
        module_memory_bytes: load.module_bytes,
        block_s,
        pulses_per_block: block_s * pulse_rate_hz,
        bound: security.bound.name(),
        tolerated_qber: security.tolerated_qber,
        reconciliation_efficiency: efficiency,
        skr_bps: prediction.chosen_bps(),
        skr_asymptotic_bps: prediction.asymptotic_bps(),
        skr_finite_bps: prediction.finite_bps(),
        margin_asymptotic_db: parts.margin_db(efficiency, PreparedPrediction::asymptotic_bps),
        margin_finite_db: parts.margin_db(efficiency, PreparedPrediction::finite_bps),
        no_key: prediction.no_key(),
        authentication_bits_per_block: authentication_bits,
        authentication_fraction: budget.share(),
        figures,
        passes: plan.passes(link, efficiency),
        notes: notes(&prediction, key_bits, authentication_bits),
    })
}

fn intensities(parts: &PreparedParts<'_>, prediction: &PreparedPrediction) -> Vec<IntensityReport> {
    let light = &parts.pulses.transmitter.light;
    let names: &[&'static str] =
        if light.mean_photons().len() == 1 { &["single photons"] } else { &["signal", "decoy", "vacuum"] };
    let of_light = light.mean_photons().into_iter().zip(light.probabilities());
    let rows = names.iter().zip(of_light).zip(&prediction.response.kinds);
    rows.map(|((name, (mean_photons, probability)), [key, _])| IntensityReport {
        name,
        mean_photons,
        probability,
        gain: key.gain,
        qber: key.qber,
    })
    .collect()
}

/// What a person would want to know before starting this.
fn notes(prediction: &PreparedPrediction, key_bits: f64, authentication_bits: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = prediction.no_key() {
        notes.push(format!("no key by the bound that the topology chooses: {reason}"));
        if prediction.asymptotic_bps() > 0.0 {
            let block_s = prediction.block_s;
            notes.push(format!("long enough blocks would give key; those of {block_s} s do not"));
        }
    } else if authentication_bits > 0.01 * key_bits {
        let seconds = 100.0 * authentication_bits / key_bits * prediction.block_s;
        notes.push(format!("authentication takes more than 1 % of the key; rounds of {seconds:.0} s would not"));
    }
    notes
}
