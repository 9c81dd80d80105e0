//! A twin-field link: two transmitters, and a station between them.

use distill::config::{Emission, TwinFieldUser};
use photonics::expect::math::{loss_db, transmission};
use photonics::expect::twin_field::{TwinFieldInputs, User, visibility};

use super::{post_processing, references};
use crate::plan::RunPlan;
use crate::plan::twin_field::PlannedTwinField;
use crate::resolve::TwinFieldLink;

pub(super) fn plan(kind: &TwinFieldLink<'_>, run: RunPlan) -> PlannedTwinField {
    let inputs = kind.inputs();
    PlannedTwinField {
        name: kind.link.name.to_string(),
        station: kind.source.site.to_string(),
        sites: kind.transmitters.map(|transmitter| transmitter.site.to_string()),
        loss_db: inputs.users.map(|user| loss_db(user.transmission)),
        fibre_loss_db: kind.transmitters.map(|transmitter| transmitter.fibre.loss_db()),
        references: references(kind.link),
        inputs,
        post_processing: post_processing(kind.link, kind.emission(), run),
    }
}

impl TwinFieldLink<'_> {
    /// What the proof takes for granted of the light.
    pub fn emission(&self) -> Emission {
        Emission::TwinField(self.users())
    }

    pub fn users(&self) -> [TwinFieldUser; 2] {
        self.transmitters.map(|transmitter| TwinFieldUser {
            signal: transmitter.signal,
            sending_probability: transmitter.sending.value(),
            decoys: [transmitter.weak_decoy.mean_photons, transmitter.strong_decoy.mean_photons],
        })
    }

    /// Time around a pulse in which a click counts: the gate, or all there is until the next pulse.
    pub fn window_s(&self) -> f64 {
        let period_s = 1.0 / self.source.repetition_rate.value();
        self.link.gate.map_or(period_s, |gate| (gate.value() * 1e-12).min(period_s))
    }

    /// Of a click without light in a window, of each detector.
    pub fn dark_probability(&self) -> f64 {
        -libm::expm1(-self.detector.dark_count_rate.value() * self.window_s())
    }

    fn inputs(&self) -> TwinFieldInputs {
        let interference = &self.source.interference;
        let efficiency = self.detector.efficiency.value();
        let users = self.transmitters.map(|transmitter| User {
            key_probability: transmitter.key_windows.value(),
            sending_probability: transmitter.sending.value(),
            signal: transmitter.signal,
            decoys: [transmitter.weak_decoy.mean_photons, transmitter.strong_decoy.mean_photons],
            decoy_probability: [
                transmitter.weak_decoy.probability.value(),
                transmitter.strong_decoy.probability.value(),
            ],
            transmission: transmission(transmitter.fibre.loss_db()) * efficiency,
        });
        TwinFieldInputs {
            window_rate_hz: self.source.repetition_rate.value(),
            users,
            dark_probability: self.dark_probability(),
            visibility: visibility(interference.error.value(), interference.residual_phase.value()),
            slice_rad: interference.slice.value(),
        }
    }
}
