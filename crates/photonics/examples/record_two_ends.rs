//! Writes what both ends of a short entangled link record in some seconds, without a network around it:
//! `record_two_ends a.a1 b.a1 [seconds]`. The example `key_from_recordings` of `distill` makes key of the two files.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;

use photonics::config::{Arm, Clock, Detector, EnergyTimeAnalyser, Polarisation, SpdcCw};
use photonics::nature::pairs::Emitter;
use photonics::random::Subseed;
use photonics::receiver::{Controls, Instrument};
use photonics::tagfile::{Format, TagWriter};

const EPOCH_PS: u64 = 20_000_000_000;
const EPOCHS_PER_S: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, rest @ ..] = words.as_slice() else { return Err("give two files to write".into()) };
    let seconds: u64 = rest.first().map_or(Ok(10), |text| text.parse())?;

    // Nature knows both ends: what light meets at each decides the joint outcomes.
    let seed = |role: &str| Subseed::new([7; 32]).derive(role);
    let (arms, analyser, detector) = ([arm(8.0), arm(7.0)], analyser(), detector());
    let mut emitter = Emitter::new(
        &SpdcCw { pair_rate_hz: 2e7, visibility: 0.99, bandwidth_nm: 0.8, pump_max: 2.0, steps: Vec::new() },
        [&arms[0], &arms[1]],
        [&analyser, &analyser],
        [&detector, &detector],
        EPOCH_PS,
        &seed("source"),
    );
    // Each receiver has a clock of its own.
    let receiver =
        |clock: Clock, role: &str| Instrument::new(&detector, &clock, &analyser, EPOCH_PS, EPOCH_PS, &seed(role));
    let mut receivers = [receiver(clock(0.0, 4e-8), "first"), receiver(clock(2.1e9, -3e-8), "second")];
    receivers.iter_mut().for_each(|receiver| receiver.start(0));
    let format = "every format that is written";
    let file = |path: &str| -> Result<_, Box<dyn Error>> {
        Ok(TagWriter::new(BufWriter::new(File::create(path)?), Format::A1).ok_or(format)?)
    };
    let mut files = [file(first)?, file(second)?];

    let mut frames = Vec::new();
    for epoch in 0..seconds * EPOCHS_PER_S {
        let states = receivers.each_mut().map(|receiver| receiver.analyser_state(epoch, &Controls::default()));
        let photons = emitter.emit(epoch, 1.0, [&states[0], &states[1]]);
        for ((receiver, photons), file) in receivers.iter_mut().zip(&photons).zip(&mut files) {
            receiver.detect(epoch, &photons.words, &mut frames)?;
            for frame in frames.drain(..) {
                file.write(&frame)?;
            }
        }
    }
    for (file, path) in files.into_iter().zip([first, second]) {
        println!("{path}: {} bytes", file.bytes());
        file.finish()?;
    }
    Ok(())
}

fn arm(loss_db: f64) -> Arm {
    Arm {
        length_km: 10.0,
        loss_db,
        delay_ps: 49e6,
        delay_drift_amplitude_ps: 0.0,
        delay_drift_period_s: 36_000.0,
        dispersion_ps_per_nm: 0.0,
        polarisation: Polarisation {
            initial_rad: [0.0; 2],
            drift_amplitude_rad: 0.0,
            drift_period_s: 36_000.0,
            dependent_loss: 0.03,
            steps: Vec::new(),
        },
    }
}

fn analyser() -> EnergyTimeAnalyser {
    EnergyTimeAnalyser {
        delay_ps: 400.0,
        z_probability: 0.5,
        visibility: 0.997,
        crosstalk: 0.001,
        phase_initial_rad: 0.0,
        phase_drift_rad_per_s: 1e-7,
        phase_noise_rad_per_sqrt_s: 0.0,
        steps: Vec::new(),
    }
}

fn detector() -> Detector {
    Detector {
        efficiency: 0.8,
        jitter_fwhm_ps: 50.0,
        dark_rate_hz: 100.0,
        dead_time_ps: 30_000.0,
        afterpulse_probability: 0.001,
        afterpulse_decay_ps: 50_000.0,
        latch_probability: 0.0,
        latch_reset_ps: 0.0,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0; 4],
    }
}

fn clock(offset_ps: f64, frequency_error: f64) -> Clock {
    Clock { offset_ps, frequency_error, frequency_walk_per_sqrt_s: 1e-13, phase_walk_ps_per_sqrt_s: 0.5 }
}
