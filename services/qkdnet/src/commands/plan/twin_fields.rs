//! The report on a twin-field link.

use distill::bounds::Evidence;
use photonics::expect::math::{plob_bits_per_use, transmission};
use serde::Serialize;
use topology::document::Protocol;
use topology::figure::Figures;
use topology::plan::PlannedReference;
use topology::plan::twin_field::{PlannedTwinField, TwinFieldPrediction};

/// What is expected of two transmitters and the station between them.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TwinFieldReport {
    pub name: String,
    pub protocol: &'static str,
    /// Whether `up` runs it.
    pub plan_only: bool,
    pub station: String,
    pub sites: [String; 2],
    /// From each transmitter to a click.
    pub arm_loss_db: [f64; 2],
    pub total_loss_db: f64,
    pub window_rate_hz: f64,
    pub dark_probability: f64,
    pub visibility: f64,
    /// Heralded windows for key before they are paired.
    pub unpaired_hz: f64,
    pub unpaired_qber: f64,
    /// What pairing leaves of them.
    pub sifted_key_hz: f64,
    pub qber_key: f64,
    /// Heralds of weak decoys of both ends with phases in a slice.
    pub interfering_hz: f64,
    pub qber_check: f64,
    pub block_s: f64,
    pub windows_per_block: f64,
    pub bound: &'static str,
    pub tolerated_qber: f64,
    pub reconciliation_efficiency: f64,
    /// Key rate by the bound that the topology chooses: 0 where a block gives none.
    pub skr_bps: f64,
    pub skr_asymptotic_bps: f64,
    /// By a simplified composition of finite statistics, which is no proof.
    pub skr_finite_bps: f64,
    /// Why there is no key by that bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_key: Option<String>,
    /// What a fibre of the same loss could carry at most without a station, at as many pulses per second.
    pub repeaterless_bps: f64,
    pub figures: Figures,
    pub references: Vec<ReferenceReport>,
    /// Warnings about this link.
    pub notes: Vec<String>,
}

/// A published figure beside what is expected.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ReferenceReport {
    pub quantity: &'static str,
    pub unit: &'static str,
    pub published: f64,
    pub expected: f64,
    pub verdict: &'static str,
    pub source: String,
}

pub(super) fn report(link: &PlannedTwinField, efficiency: f64) -> TwinFieldReport {
    let prediction = link.predict(efficiency);
    let (inputs, security) = (&link.inputs, &link.post_processing.security);
    let (unpaired_hz, unpaired_qber) = prediction.unpaired();
    let total_loss_db = link.loss_db.iter().sum();
    TwinFieldReport {
        name: link.name.clone(),
        protocol: Protocol::SnsTwinField.name(),
        plan_only: true,
        station: link.station.clone(),
        sites: link.sites.clone(),
        arm_loss_db: link.loss_db,
        total_loss_db,
        window_rate_hz: inputs.window_rate_hz,
        dark_probability: inputs.dark_probability,
        visibility: inputs.visibility,
        unpaired_hz,
        unpaired_qber,
        sifted_key_hz: prediction.sifted_hz(),
        qber_key: prediction.pairing.qber,
        interfering_hz: interfering_hz(&prediction),
        qber_check: prediction.rates.interference_error(),
        block_s: prediction.block_s,
        windows_per_block: prediction.block_s * inputs.window_rate_hz,
        bound: security.bound.name(),
        tolerated_qber: security.tolerated_qber,
        reconciliation_efficiency: efficiency,
        skr_bps: prediction.chosen_bps(),
        skr_asymptotic_bps: prediction.asymptotic_bps(),
        skr_finite_bps: prediction.finite_bps(),
        no_key: prediction.no_key(),
        repeaterless_bps: inputs.window_rate_hz * plob_bits_per_use(transmission(fibre_loss_db(link))),
        references: link.references.iter().map(|reference| compared(reference, &prediction)).collect(),
        figures: prediction.figures(),
        notes: notes(&prediction),
    }
}

/// Both ways to the station, without its detectors.
fn fibre_loss_db(link: &PlannedTwinField) -> f64 {
    link.fibre_loss_db.iter().sum()
}

fn interfering_hz(prediction: &TwinFieldPrediction) -> f64 {
    match &prediction.evidence {
        Evidence::TwinField(heralds) => heralds.interfering.heralded / prediction.block_s,
        _ => 0.0,
    }
}

/// What `verify` would compare of a run.
fn compared(reference: &PlannedReference, prediction: &TwinFieldPrediction) -> ReferenceReport {
    let expected = prediction.figures().value(reference.quantity.figure()).unwrap_or_default();
    let expected = reference.compared(expected);
    let verdict = match reference.tolerance.accepts(reference.published, expected) {
        _ if reference.is_fitted() => "fitted, no verdict",
        true => "agrees",
        false => "does not agree",
    };
    let scale = reference.quantity.scale();
    ReferenceReport {
        quantity: reference.quantity.name(),
        unit: reference.quantity.unit(),
        published: reference.published * scale,
        expected: expected * scale,
        verdict,
        source: reference.source.clone(),
    }
}

/// What a person would want to know before building this.
fn notes(prediction: &TwinFieldPrediction) -> Vec<String> {
    let mut notes = vec!["plan only: this release does not run twin-field links".to_owned()];
    if let Some(reason) = prediction.no_key() {
        notes.push(format!("no key by the bound that the topology chooses: {reason}"));
    }
    if prediction.asymptotic_bps() > 0.0 && prediction.finite_bps() == 0.0 {
        let block_s = prediction.block_s;
        notes.push(format!("long enough blocks would give key; those of {block_s} s do not"));
    }
    notes
}
