//! Twin-field links: what the formulae say of them. No services are planned for them yet.

use distill::bounds::{Bounds, Evidence, Heralds, Length, Reconciled, Windows, binary_entropy, bounds};
use distill::config::PostProcessing;
use photonics::expect::twin_field::{Pairing, TwinField, TwinFieldInputs};
use serde::Serialize;

use super::PlannedReference;
use crate::document::{Protocol, Topology};
use crate::figure::{Figure, Figures};

/// A twin-field link, as far as it is planned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedTwinField {
    pub name: String,
    /// Where light of both ends interferes.
    pub station: String,
    pub sites: [String; 2],
    /// From each transmitter to a click, the detectors' efficiency included.
    pub loss_db: [f64; 2],
    /// The same without the detectors.
    pub fibre_loss_db: [f64; 2],
    pub references: Vec<PlannedReference>,
    #[serde(skip)]
    pub inputs: TwinFieldInputs,
    #[serde(skip)]
    pub post_processing: PostProcessing,
}

/// What is expected of such a link, and of one of its blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinFieldPrediction {
    pub rates: TwinField,
    pub pairing: Pairing,
    pub evidence: Evidence<f64>,
    pub reconciled: Reconciled<f64>,
    pub bounds: Bounds,
    pub block_s: f64,
    key_windows_hz: f64,
    chosen: Length,
}

/// Why a network cannot be run, though it can be planned.
pub fn cannot_run(topology: &Topology) -> Option<String> {
    let twin_fields = topology.spec.links.iter().filter(|link| link.protocol == Protocol::SnsTwinField);
    let names: Vec<&str> = twin_fields.map(|link| link.name.as_str()).collect();
    let links = match names.as_slice() {
        [] => return None,
        [one] => format!("the link {one} is"),
        more => format!("the links {} are", more.join(", ")),
    };
    let protocol = Protocol::SnsTwinField.name();
    Some(format!("{links} plan only: this release validates and plans {protocol}, and does not run it"))
}

impl PlannedTwinField {
    /// Reconciliation discloses `efficiency` times the Shannon limit.
    pub fn predict(&self, efficiency: f64) -> TwinFieldPrediction {
        let rates = self.inputs.predict();
        let pairing = rates.pairing();
        let block_s = self.post_processing.framing.round_s();
        let windows = block_s * self.inputs.window_rate_hz;
        let key_windows = windows * rates.key_share;
        let of = |(share, herald): (f64, f64)| Windows { sent: windows * share, heralded: windows * share * herald };
        let (share, met) = (rates.interfering_share, rates.bright + rates.dark);
        let evidence = Evidence::TwinField(Heralds {
            key_windows,
            ones: key_windows * pairing.ones,
            zeros: key_windows * pairing.zeros,
            odd_pairs: key_windows * pairing.odd_pairs,
            vacuum: of((rates.vacuum_share, rates.vacuum)),
            alone: rates.alone.map(|of_end| of_end.map(of)),
            interfering: of((share, met)),
            wrong: windows * share * rates.dark,
        });
        let key_bits = key_windows * pairing.odd_pairs;
        let reconciled = Reconciled {
            key_bits,
            key_errors: key_bits * pairing.qber,
            leaked_bits: efficiency * key_bits * binary_entropy(pairing.qber),
            verification_bits: 0.0,
        };
        let security = &self.post_processing.security;
        let bounds = bounds(security, &evidence, &reconciled);
        let chosen = *bounds.chosen(security.bound);
        let key_windows_hz = self.inputs.window_rate_hz * rates.key_share;
        TwinFieldPrediction { rates, pairing, evidence, reconciled, bounds, block_s, key_windows_hz, chosen }
    }
}

impl TwinFieldPrediction {
    /// Key per second by a length: 0 where a block gives none.
    fn rate_bps(&self, length: &Length) -> f64 {
        if self.bounds.abort.is_some() { 0.0 } else { length.bits.max(0.0) / self.block_s }
    }

    pub fn asymptotic_bps(&self) -> f64 {
        self.rate_bps(&self.bounds.asymptotic)
    }

    pub fn finite_bps(&self) -> f64 {
        self.rate_bps(&self.bounds.finite)
    }

    /// By the bound that the topology chooses.
    pub fn chosen_bps(&self) -> f64 {
        self.rate_bps(&self.chosen)
    }

    /// Why a block gives no key by that bound: what is wrong, or the term that took the most.
    pub fn no_key(&self) -> Option<String> {
        match self.bounds.abort {
            Some(reason) => Some(reason.to_string()),
            None => (self.chosen.bits <= 0.0).then(|| self.chosen.most.to_string()),
        }
    }

    /// Bits per second that windows for key give before they are paired, and how many of them differ.
    pub fn unpaired(&self) -> (f64, f64) {
        let (bits, wrong) = self.rates.unpaired();
        (bits * self.key_windows_hz, if bits > 0.0 { wrong / bits } else { 0.0 })
    }

    /// Bits per second that pairing leaves.
    pub fn sifted_hz(&self) -> f64 {
        self.pairing.odd_pairs * self.key_windows_hz
    }

    /// Of windows for key the rate after pairing; of interfering decoys what lies in slices.
    pub fn figures(&self) -> Figures {
        Figures::of([
            (Figure::SecretKeyRate, self.chosen_bps()),
            (Figure::SecretKeyRateFinite, self.finite_bps()),
            (Figure::QberZ, self.pairing.qber),
            (Figure::QberX, self.rates.interference_error()),
            (Figure::SiftedRateZ, self.sifted_hz()),
        ])
    }
}
