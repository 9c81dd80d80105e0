//! The T12 link at 50 km (Lucamarini et al., Opt. Express 21, 24550, 2013), for the benches of photons, clicks and
//! sifting.

use photonics::config::{
    Arm, BasisChoice, Clock, Encoding, GatedAvalanche, Intensity, Light, PhaseDrift, Polarisation, PreparedAnalyser,
    PreparedDetectors, Transmitter,
};
use photonics::nature::pulses::{ChoiceKey, Emitter};
use photonics::random::Subseed;
use photonics::receiver::Instrument;

pub const EPOCH_PS: u64 = 20_000_000_000;
pub const RATE_HZ: f64 = 1e9;
/// A millisecond.
pub const PREAMBLE_PULSES: u64 = 1 << 20;
pub const TRANSMITTER_KEY: [u8; 32] = [3; 32];
pub const RECEIVER_KEY: [u8; 32] = [4; 32];
pub const EFFICIENCY: f64 = 0.205;

pub fn transmitter() -> Transmitter {
    let w = 1.0 / 256.0;
    let intensity = |(mean_photons, probability)| Intensity { mean_photons, probability };
    Transmitter {
        repetition_rate_hz: RATE_HZ,
        encoding: Encoding::Phase,
        light: Light::Coherent([(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)].map(intensity).to_vec()),
        z_probability: 15.0 / 16.0,
        intrinsic_error: [0.01277, 0.00616],
        pulse_fwhm_ps: 50.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses: PREAMBLE_PULSES,
        steps: vec![],
    }
}

pub fn arm() -> Arm {
    Arm {
        length_km: 50.0,
        loss_db: 12.84,
        delay_ps: 245e6,
        delay_drift_amplitude_ps: 1000.0,
        delay_drift_period_s: 86_400.0,
        dispersion_ps_per_nm: 0.0,
        polarisation: Polarisation {
            initial_rad: [0.0; 2],
            drift_amplitude_rad: 0.0,
            drift_period_s: 0.0,
            dependent_loss: 0.0,
            steps: vec![],
        },
    }
}

pub fn analyser() -> PreparedAnalyser {
    PreparedAnalyser {
        encoding: Encoding::Phase,
        basis_choice: BasisChoice::Active,
        z_probability: 15.0 / 16.0,
        error: [0.0; 2],
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
    }
}

pub fn detectors() -> PreparedDetectors {
    PreparedDetectors::GatedAvalanche(GatedAvalanche {
        efficiency: EFFICIENCY,
        jitter_fwhm_ps: 100.0,
        gate_width_ps: 400.0,
        dark_probability: 2.1e-5,
        afterpulse_probability: 0.0525,
        afterpulse_decay_gates: 20.0,
        hold_off_gates: 0,
        saturation_hz: 0.0,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0; 4],
    })
}

pub fn emitter() -> Emitter {
    let mut emitter = Emitter::new(&transmitter(), &arm(), &analyser(), EFFICIENCY, EPOCH_PS, &Subseed::new([1; 32]));
    emitter.start(0, ChoiceKey::new(&TRANSMITTER_KEY), Some(ChoiceKey::new(&RECEIVER_KEY)));
    emitter
}

pub fn instrument() -> Instrument {
    let clock = Clock {
        // Light begins with a frame of the receiver's.
        offset_ps: -245e6 - 1e4,
        frequency_error: 7e-12,
        frequency_walk_per_sqrt_s: 1e-13,
        phase_walk_ps_per_sqrt_s: 1.0,
    };
    let subseed = Subseed::new([2; 32]);
    let mut instrument = Instrument::pulsed(&detectors(), &clock, &analyser(), RATE_HZ, EPOCH_PS, EPOCH_PS, &subseed);
    instrument.choose_bases(0, Some(ChoiceKey::new(&RECEIVER_KEY)));
    instrument
}
