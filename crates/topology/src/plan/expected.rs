//! What the formulae say of a planned link of pulses.

use distill::bounds::{Bounds, Length};
use distill::config::{PostProcessing, Security};
use distill::sifting::prepared::config as sifting;
use photonics::config::PreparedDetectors;
use photonics::expect::load::{BYTES_PER_SIFTED_BIT, Load};
use photonics::expect::prepared::{self as lumped, Inputs};
use photonics::expect::response::{CHECK, KEY, Rates, Receiver, Response};

use super::estimate::RECONCILIATION_EFFICIENCY;
use super::prepared::{self, ExpectedBlock};
use super::{
    Counts, ModuleConfig, Nature, Plan, PlannedLink, PreparedReceiver, Pulses, Receiver as Receiving, ServiceConfig,
    SpaceLink,
};
use crate::figure::{Figure, Figures, Measured};

/// The parts of a prepared link that the formulae take.
#[derive(Clone, Copy, Debug)]
pub struct PreparedParts<'a> {
    pub pulses: &'a Pulses,
    pub receiver: &'a PreparedReceiver,
    pub sifting: &'a sifting::Prepared,
    pub post_processing: &'a PostProcessing,
    /// Of a link to a satellite: what is expected is that of the mean of a pass.
    pub space: Option<&'a SpaceLink>,
}

/// What is expected of such a link, and of one of its blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedPrediction {
    /// Of the key basis first, whichever it is.
    pub inputs: Inputs,
    pub response: Response,
    pub block: ExpectedBlock,
    pub bounds: Bounds,
    pub block_s: f64,
    key_is_z: bool,
    security: Security,
}

impl Plan {
    /// The parts of a link of pulses; nothing of another kind of link.
    pub fn prepared(&self, link: &PlannedLink) -> Option<PreparedParts<'_>> {
        let ServiceConfig::Source(source) = &self.service(&link.source.service)?.config else { return None };
        let ServiceConfig::Detector(detector) = &self.service(&link.ends[1].module)?.config else { return None };
        let Receiving::Prepared(receiver) = &detector.receiver else { return None };
        let ModuleConfig { protocol, .. } = &detector.module;
        let (pulses, sifting, space) = match &source.nature {
            Nature::Pulses(pulses) => (&**pulses, protocol.sifting.prepared()?, None),
            Nature::Counts(Counts::Pulses(counted)) => (&counted.light, &counted.sifting, counted.space.as_deref()),
            Nature::Pairs(_) | Nature::Counts(Counts::Pairs(_)) => return None,
        };
        Some(PreparedParts { pulses, receiver, sifting, post_processing: &protocol.post_processing, space })
    }
}

/// What lumped figures the instruments of a prepared link come to; of the key basis first, whichever it is.
pub fn inputs(pulses: &Pulses, detectors: &PreparedDetectors, sifting: &sifting::Prepared) -> Inputs {
    let Pulses { transmitter, arm, analyser, .. } = pulses;
    let inputs = lumped::inputs(transmitter, arm, analyser, detectors, sifting.gate_ps);
    match sifting.key_basis {
        sifting::Basis::Z => inputs,
        sifting::Basis::X => exchanged(inputs),
    }
}

impl PreparedParts<'_> {
    pub fn inputs(&self) -> Inputs {
        let Some(space) = self.space else { return inputs(self.pulses, &self.receiver.detectors, self.sifting) };
        let mut pulses = self.pulses.clone();
        pulses.arm.loss_db += space.mean.loss_db;
        let detectors = space.mean.lit(&self.receiver.detectors, pulses.transmitter.repetition_rate_hz);
        inputs(&pulses, &detectors, self.sifting)
    }

    pub fn key_is_z(&self) -> bool {
        self.sifting.key_basis == sifting::Basis::Z
    }

    pub fn block_s(&self) -> f64 {
        self.post_processing.framing.round_s()
    }

    /// Reconciliation discloses `efficiency` times the Shannon limit.
    pub fn predict(&self, efficiency: f64) -> PreparedPrediction {
        self.predict_block(self.block_s(), efficiency)
    }

    /// The same of a block of another length.
    pub(super) fn predict_block(&self, block_s: f64, efficiency: f64) -> PreparedPrediction {
        let inputs = self.inputs();
        let security = self.post_processing.security.clone();
        let response = inputs.predict();
        let block = prepared::block(&inputs, block_s * inputs.pulse_rate_hz(), efficiency);
        let bounds = block.bounds(&security);
        PreparedPrediction { inputs, response, block, bounds, block_s, key_is_z: self.key_is_z(), security }
    }

    /// How much more loss leaves key of a kind, which `bps` says of a prediction; nothing where there is none today.
    pub fn margin_db(&self, efficiency: f64, bps: impl Fn(&PreparedPrediction) -> f64) -> Option<f64> {
        const MARGIN_DB_MAX: f64 = 100.0;
        const HALVINGS: u32 = 24;
        let has_key = |more_db: f64| {
            let mut pulses = self.pulses.clone();
            pulses.arm.loss_db += more_db;
            bps(&PreparedParts { pulses: &pulses, ..*self }.predict(efficiency)) > 0.0
        };
        if !has_key(0.0) {
            return None;
        }
        let (mut low, mut high) = (0.0, MARGIN_DB_MAX);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if has_key(middle) { low = middle } else { high = middle }
        }
        Some(low)
    }

    /// What the link asks of the machine.
    pub(super) fn load(&self) -> Load {
        const BASE_BYTES: f64 = 12e6;
        /// A click that waits.
        const BYTES_PER_CLICK: f64 = 24.0;
        const FRAMES_WAITING: f64 = 10.0;
        let prediction = self.predict(RECONCILIATION_EFFICIENCY);
        let click_rate_hz = prediction.click_rate_hz();
        let waiting_s = FRAMES_WAITING * self.post_processing.framing.frame_s()
            + self.sifting.preamble_pulses as f64 * self.sifting.period_ps * 1e-12;
        let sifted = (prediction.sifted_hz(KEY) + prediction.sifted_hz(CHECK)) * self.block_s();
        let module = BASE_BYTES + sifted * BYTES_PER_SIFTED_BIT;
        Load {
            tags_hz: [0.0, click_rate_hz],
            total_tags_hz: click_rate_hz,
            record_bytes_hz: 8.0 * click_rate_hz,
            module_bytes: [module, module + click_rate_hz * waiting_s * BYTES_PER_CLICK],
        }
    }
}

/// The two bases in each other's place.
fn exchanged(mut inputs: Inputs) -> Inputs {
    let receiver = match &mut inputs {
        Inputs::Pulses(inputs) => &mut inputs.receiver,
        Inputs::SinglePhotons(inputs) => &mut inputs.receiver,
    };
    let Receiver { key_basis_probability, intrinsic_error, noise_probability, counted, .. } = receiver;
    key_basis_probability.iter_mut().for_each(|key| *key = 1.0 - *key);
    intrinsic_error.reverse();
    noise_probability.reverse();
    counted.reverse();
    inputs
}

impl PreparedPrediction {
    /// Detections per second, whatever becomes of them.
    pub fn click_rate_hz(&self) -> f64 {
        let detected = (0..self.response.kinds.len()).map(|kind| self.response.detected(kind)).sum::<f64>();
        detected * self.inputs.pulse_rate_hz()
    }

    fn of_basis(&self, basis: usize) -> impl Iterator<Item = &Rates> {
        self.response.kinds.iter().map(move |kind| &kind[basis])
    }

    /// Bits per second of the key basis or of the check basis that both ends keep.
    pub fn sifted_hz(&self, basis: usize) -> f64 {
        self.of_basis(basis).map(|rates| rates.sifted).sum::<f64>() * self.inputs.pulse_rate_hz()
    }

    /// Error rate of all bits of a basis: in the key basis what reconciliation meets.
    pub fn qber(&self, basis: usize) -> f64 {
        let sifted: f64 = self.of_basis(basis).map(|rates| rates.sifted).sum();
        let wrong: f64 = self.of_basis(basis).map(|rates| rates.sifted * rates.qber).sum();
        if sifted > 0.0 { wrong / sifted } else { 0.0 }
    }

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
        self.rate_bps(self.bounds.chosen(self.security.bound))
    }

    /// Why a block gives no key by that bound: what is wrong, or the term that took the most.
    pub fn no_key(&self) -> Option<String> {
        let length = self.bounds.chosen(self.security.bound);
        match self.bounds.abort {
            Some(reason) => Some(reason.to_string()),
            None if length.bits <= 0.0 => Some(length.most.to_string()),
            None => None,
        }
    }

    pub fn figures(&self) -> Figures {
        let [z, x] = if self.key_is_z { [KEY, CHECK] } else { [CHECK, KEY] };
        let mut figures = Figures::of([
            (Figure::SecretKeyRate, self.chosen_bps()),
            (Figure::SecretKeyRateFinite, self.finite_bps()),
            (Figure::QberZ, self.qber(z)),
            (Figure::QberX, self.qber(x)),
            (Figure::SiftedRateZ, self.sifted_hz(z)),
            (Figure::SiftedRateX, self.sifted_hz(x)),
            (Figure::ClickRate, self.click_rate_hz()),
        ]);
        for (kind, figure) in Figure::GAINS.into_iter().enumerate().take(self.response.kinds.len()) {
            figures.set(figure, Measured::Value(self.gain(kind)));
        }
        figures
    }

    /// Detections per pulse of a kind, the brightest first: in whatever basis, but not in both.
    pub fn gain(&self, kind: usize) -> f64 {
        let detected = self.response.detected(kind) - self.response.unsifted[kind].crossed;
        detected / self.inputs.probabilities()[kind]
    }
}
