//! A block of a prepared link as the formulae expect it, as evidence for the bounds that a measured block is judged by.

use distill::bounds::{Bounds, Detections, Evidence, Reconciled, Tally, binary_entropy, bounds};
use distill::config::{Emission, INTENSITIES, Intensity, Security};
use photonics::expect::prepared::Inputs;
use photonics::expect::pulses::{self, PulsesInputs};
use photonics::expect::response::{KEY, Response};
use photonics::expect::single_photon::{self, SinglePhotonInputs};

/// What both ends would know after reconciliation.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedBlock {
    pub pulses: f64,
    pub evidence: Evidence<f64>,
    pub reconciled: Reconciled<f64>,
}

impl ExpectedBlock {
    pub fn bounds(&self, security: &Security) -> Bounds {
        bounds(security, &self.evidence, &self.reconciled)
    }
}

/// What a proof may take for granted of these pulses, if it knows that many intensities.
pub fn emission(inputs: &PulsesInputs) -> Option<Emission> {
    let of =
        |class: &pulses::PulseClass| Intensity { mean_photons: class.mean_photons, probability: class.probability };
    match inputs.classes.as_slice() {
        [signal, decoy] => Some(Emission::OneDecoy([of(signal), of(decoy)])),
        [signal, decoy, vacuum] => Some(Emission::TwoDecoys([of(signal), of(decoy), of(vacuum)])),
        _ => None,
    }
}

/// Pulses sent, whatever they are of; reconciliation discloses `efficiency` times the Shannon limit.
pub fn block(inputs: &Inputs, count: f64, efficiency: f64) -> ExpectedBlock {
    match inputs {
        Inputs::Pulses(inputs) => pulses(inputs, count, efficiency),
        Inputs::SinglePhotons(inputs) => single_photons(inputs, count, efficiency),
    }
}

/// Pulses sent of decoy BB84; reconciliation discloses `efficiency` times the Shannon limit.
pub fn pulses(inputs: &PulsesInputs, pulses: f64, efficiency: f64) -> ExpectedBlock {
    decoy_block(&pulses::predict(inputs), pulses, efficiency)
}

/// The same of what a receiver is known to make of each intensity.
pub fn decoy_block(response: &Response, pulses: f64, efficiency: f64) -> ExpectedBlock {
    let mut rows = [Detections::default(); INTENSITIES];
    for (row, [key, check]) in rows.iter_mut().zip(&response.kinds) {
        let errors = pulses * key.sifted * key.qber;
        let bits = pulses * check.sifted;
        *row = Detections {
            key: pulses * key.sifted,
            key_errors: Some(errors),
            check: Tally { bits, errors: bits * check.qber },
        };
    }
    let reconciled = reconciled(rows.iter().map(|row| row.key).sum(), sifted_errors(response, pulses), efficiency);
    ExpectedBlock { pulses, evidence: Evidence::Decoy(rows), reconciled }
}

/// Pulses sent of single photons.
pub fn single_photons(inputs: &SinglePhotonInputs, pulses: f64, efficiency: f64) -> ExpectedBlock {
    let response = single_photon::predict(inputs);
    let [key, check] = response.kinds[0];
    let bits = pulses * check.sifted;
    let evidence =
        Evidence::SinglePhoton { pulses, key: pulses * key.sifted, check: Tally { bits, errors: bits * check.qber } };
    let reconciled = reconciled(pulses * key.sifted, sifted_errors(&response, pulses), efficiency);
    ExpectedBlock { pulses, evidence, reconciled }
}

fn sifted_errors(response: &Response, pulses: f64) -> f64 {
    response.kinds.iter().map(|kind| pulses * kind[KEY].sifted * kind[KEY].qber).sum()
}

fn reconciled(key_bits: f64, key_errors: f64, efficiency: f64) -> Reconciled<f64> {
    let qber = if key_bits > 0.0 { key_errors / key_bits } else { 0.0 };
    let leaked_bits = efficiency * key_bits * binary_entropy(qber);
    Reconciled { key_bits, key_errors, leaked_bits, verification_bits: 0.0 }
}
