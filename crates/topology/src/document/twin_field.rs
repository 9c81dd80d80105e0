//! Station and transmitters of a twin-field link.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Detector, Fibre, Intensity, Name, Provenance, default_wavelength, provenance_map};
use crate::quantity::*;

/// Two transmitters of weak laser pulses, and the station between them where the pulses interfere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TwinField {
    /// Site of the station. It announces its clicks, makes no key and is not trusted.
    pub site: Name,
    /// Pulses per second of each transmitter, those for phase references left out.
    pub repetition_rate: Rate,
    /// The two detectors of the station.
    pub detector: Detector,
    /// How well light of both transmitters interferes there.
    pub interference: Interference,
    /// The transmitters, one at each end of the link.
    #[schemars(length(min = 2, max = 2))]
    pub transmitters: Vec<TwinFieldTransmitter>,
    /// Wavelength of the pulses.
    #[serde(default = "default_wavelength")]
    pub wavelength: Wavelength,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// How well light of two transmitters interferes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interference {
    /// Probability that light goes to the wrong detector though its phases are equal: modes, polarisations and frequencies
    /// that do not overlap.
    pub error: Fraction,
    /// Standard deviation of the difference of the phases that compensation leaves.
    #[serde(default = "no_angle")]
    pub residual_phase: Angle,
    /// Full width of a phase slice: windows count for the check if their phases differ by less than half of it, or by
    /// half a turn.
    pub slice: Angle,
}

fn no_angle() -> Angle {
    Angle::preset("0 rad")
}

/// A transmitter at one end of a twin-field link, and its way to the station. Each of its windows is for key, with a
/// signal pulse or without one, or a decoy, or dark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TwinFieldTransmitter {
    /// Site that holds the transmitter: an end of the link.
    pub site: Name,
    /// The way to the station, with the losses there.
    pub fibre: Fibre,
    /// Probability that a window is for key.
    pub key_windows: Fraction,
    /// Probability that a signal pulse is sent in a window for key.
    pub sending: Fraction,
    /// Mean photons of a signal pulse where it leaves the transmitter.
    #[schemars(range(min = 0, max = 10))]
    pub signal: f64,
    /// The weaker decoy, of all windows. Where both ends send it, phases show how much an eavesdropper knows.
    pub weak_decoy: Intensity,
    /// The stronger decoy, of all windows.
    pub strong_decoy: Intensity,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

impl TwinFieldTransmitter {
    /// What is left of the windows is dark.
    pub fn dark_windows(&self) -> f64 {
        1.0 - self.key_windows.value() - self.weak_decoy.probability.value() - self.strong_decoy.probability.value()
    }
}
