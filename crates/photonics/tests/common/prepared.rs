//! Instruments of a prepared link without faults, for tests to spoil one thing at a time.

use super::guard::{Detection, Guard, Tally};
use super::{EPOCH_PS, FRAME_PS, STILL, arm, clock, subseed, tags, unpacked};
use photonics::analyser::AnalyserState;
use photonics::config::{
    Arm, Basis, BasisChoice, Detector, Encoding, GatedAvalanche, Intensity, Light, PhaseDrift, PreparedAnalyser,
    PreparedDetectors, QuantumDot, TemporalFilter, Transmitter,
};
use photonics::expect::prepared::{self, Inputs};
use photonics::expect::response::Response;
use photonics::nature::pulses::{Choice, ChoiceKey, Choices, Emitter};
use photonics::receiver::{Frame, Instrument};

pub const TRANSMITTER_KEY: [u8; 32] = [17; 32];
pub const RECEIVER_KEY: [u8; 32] = [23; 32];

/// Local time at true time zero.
const ORIGIN_PS: u64 = 1_000_000_000_000;

pub fn transmitter(rate_hz: f64, intensities: &[(f64, f64)]) -> Transmitter {
    let intensity = |&(mean_photons, probability): &(f64, f64)| Intensity { mean_photons, probability };
    Transmitter {
        repetition_rate_hz: rate_hz,
        encoding: Encoding::Polarisation,
        light: Light::Coherent(intensities.iter().map(intensity).collect()),
        z_probability: 0.5,
        intrinsic_error: [0.0; 2],
        pulse_fwhm_ps: 0.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses: 0,
        steps: vec![],
    }
}

pub fn prepared_analyser(basis_choice: BasisChoice) -> PreparedAnalyser {
    PreparedAnalyser {
        encoding: Encoding::Polarisation,
        basis_choice,
        z_probability: 0.5,
        error: [0.0; 2],
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
    }
}

pub fn gated() -> GatedAvalanche {
    GatedAvalanche {
        efficiency: 1.0,
        jitter_fwhm_ps: 0.0,
        gate_width_ps: 800.0,
        dark_probability: 0.0,
        afterpulse_probability: 0.0,
        afterpulse_decay_gates: 20.0,
        hold_off_gates: 0,
        saturation_hz: 0.0,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0; 4],
    }
}

/// Toshiba's T12 over 50 km by its published parameters, without hold-off; loss and error rates as derived from the
/// published counts.
pub fn t12() -> Link {
    let w = 1.0 / 256.0;
    let mut transmitter = transmitter(1e9, &[(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)]);
    transmitter.encoding = Encoding::Phase;
    transmitter.z_probability = 15.0 / 16.0;
    transmitter.intrinsic_error = [0.01277, 0.00616];
    transmitter.pulse_fwhm_ps = 50.0;
    let detectors = GatedAvalanche {
        efficiency: 0.205,
        jitter_fwhm_ps: 100.0,
        gate_width_ps: 400.0,
        dark_probability: 2.1e-5,
        afterpulse_probability: 0.0525,
        ..gated()
    };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors);
    link.analyser.encoding = Encoding::Phase;
    link.analyser.z_probability = 15.0 / 16.0;
    link.arm.loss_db = 10.0 + 2.84;
    link
}

/// A quantum dot behind 120 km by the parameters that stand for what is not published of it. Its time bins are
/// polarisations here, which makes no difference to the counts.
pub fn dot_at_120_km() -> Link {
    // No photon is so late that it would count as one of the next pulse.
    let filter = TemporalFilter { start_ps: 0.0, width_ps: 6000.0 };
    let mean_photons = 0.01223 / (1.0 - f64::exp(-6000.0 / 1018.0));
    let dot = QuantumDot { mean_photons, g2: 0.0085, lifetime_ps: 1018.0, temporal_filter: Some(filter) };
    let mut transmitter = transmitter(75.947e6, &[]);
    transmitter.light = Light::QuantumDot(dot);
    transmitter.z_probability = 0.84;
    transmitter.intrinsic_error = [0.0566, 0.0849];
    // 2e-7 of noise per pulse, of both detectors together.
    let detectors = GatedAvalanche { gate_width_ps: 13_000.0, dark_probability: 1e-7, ..gated() };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors);
    link.analyser.z_probability = 0.84;
    link.arm.loss_db = 23.47 - 10.0 * f64::log10(0.132);
    link
}

/// A prepared link with a perfect clock and an arm that delays nothing.
pub struct Link {
    pub transmitter: Transmitter,
    pub arm: Arm,
    pub analyser: PreparedAnalyser,
    pub detectors: PreparedDetectors,
    pub states: [AnalyserState; 2],
}

impl Link {
    pub fn new(transmitter: Transmitter, analyser: PreparedAnalyser, detectors: PreparedDetectors) -> Self {
        Self { transmitter, arm: arm(0.0), analyser, detectors, states: [STILL; 2] }
    }

    pub fn gated(transmitter: Transmitter, basis_choice: BasisChoice, detectors: GatedAvalanche) -> Self {
        Self::new(transmitter, prepared_analyser(basis_choice), PreparedDetectors::GatedAvalanche(detectors))
    }

    pub fn free_running(transmitter: Transmitter, analyser: PreparedAnalyser, detectors: Detector) -> Self {
        Self::new(transmitter, analyser, PreparedDetectors::FreeRunning(detectors))
    }

    /// What is expected of clicks within `gate_ps` around the moments at which light comes.
    pub fn inputs(&self, gate_ps: f64) -> Inputs {
        prepared::inputs(&self.transmitter, &self.arm, &self.analyser, &self.detectors, gate_ps)
    }

    /// The same of clicks anywhere.
    pub fn expected(&self) -> Response {
        self.inputs(1e12 / self.transmitter.repetition_rate_hz).predict()
    }

    fn is_active(&self) -> bool {
        self.analyser.basis_choice == BasisChoice::Active
    }

    pub fn emitter(&self) -> Emitter {
        let efficiency = self.detectors.efficiency();
        let subseed = subseed().derive("source");
        let mut emitter = Emitter::new(&self.transmitter, &self.arm, &self.analyser, efficiency, EPOCH_PS, &subseed);
        let receiver = self.is_active().then(|| ChoiceKey::new(&RECEIVER_KEY));
        emitter.start(0, ChoiceKey::new(&TRANSMITTER_KEY), receiver);
        emitter
    }

    pub fn instrument(&self) -> Instrument {
        let rate_hz = self.transmitter.repetition_rate_hz;
        let subseed = subseed().derive("receiver");
        let mut instrument =
            Instrument::pulsed(&self.detectors, &clock(), &self.analyser, rate_hz, EPOCH_PS, FRAME_PS, &subseed);
        instrument.choose_bases(0, self.is_active().then(|| ChoiceKey::new(&RECEIVER_KEY)));
        instrument
    }

    pub fn choices(&self) -> Choices {
        Choices::new(&self.transmitter, ChoiceKey::new(&TRANSMITTER_KEY))
    }

    /// Photons as (number of the pulse, time within its period, port).
    pub fn photons(&self, epochs: u64) -> Vec<(u64, f64, u8)> {
        let mut emitter = self.emitter();
        let period_ps = 1e12 / self.transmitter.repetition_rate_hz;
        let mut all = vec![];
        for epoch in 0..epochs {
            let photons = emitter.emit(epoch, [&self.states[0], &self.states[1]]);
            all.extend(unpacked(&photons, epoch, EPOCH_PS).into_iter().map(|(at_ps, port)| {
                let pulse = (at_ps as f64 / period_ps).floor();
                (pulse as u64, at_ps as f64 - pulse * period_ps, port)
            }));
        }
        all
    }

    /// Calls `each` with the frames of each epoch.
    pub fn run(&self, epochs: u64, mut each: impl FnMut(&[Frame])) {
        let (mut emitter, mut instrument) = (self.emitter(), self.instrument());
        let mut frames = vec![];
        instrument.start(0);
        for epoch in 0..epochs {
            let photons = emitter.emit(epoch, [&self.states[0], &self.states[1]]);
            instrument.detect(epoch, &photons.words, &mut frames).unwrap();
            each(&frames);
            frames.drain(..).for_each(|frame| instrument.recycle(frame));
        }
    }

    /// Clicks as time in ps and port.
    pub fn clicks(&self, epochs: u64) -> Vec<(i64, u8)> {
        let mut all = vec![];
        self.run(epochs, |frames| all.extend(frames.iter().cloned()));
        tags(&all).into_iter().map(|(at_ps, port)| (at_ps - ORIGIN_PS as i64, port)).collect()
    }

    /// Calls `each` with every detection, its pulse's number and what that pulse was. With what became of the clicks,
    /// the number of pulses that the frames cover.
    pub fn detections(&self, epochs: u64, mut each: impl FnMut(u64, Choice, Detection)) -> (Tally, f64) {
        let period_ps = 1e12 / self.transmitter.repetition_rate_hz;
        let dead_ps = self.detectors.dead_time_ps(self.transmitter.repetition_rate_hz);
        let mut guard = Guard::new(0.45 * period_ps, dead_ps);
        let choices = self.choices();
        let mut covered_ps = 0;
        let (mut detections, mut pulses, mut chosen) = (vec![], vec![], vec![]);
        self.run(epochs, |frames| {
            detections.clear();
            covered_ps += frames.len() as u64 * FRAME_PS;
            frames.iter().for_each(|frame| guard.take(&frame.tags, &mut detections));
            pulses.clear();
            let pulse = |detection: &Detection| ((detection.units * 4 - ORIGIN_PS) as f64 / period_ps) as u64;
            pulses.extend(detections.iter().map(pulse));
            chosen.resize(pulses.len(), Choice::new(0, Basis::Z, false));
            choices.fill(&pulses, &mut chosen);
            for ((pulse, choice), detection) in pulses.iter().zip(&chosen).zip(&detections) {
                each(*pulse, *choice, *detection);
            }
        });
        guard.finish(&mut detections);
        (guard.tally(), covered_ps as f64 / period_ps)
    }
}

/// Basis and bit of a detection of one port; `None` where it is a double click.
pub fn reading(detection: &Detection) -> Option<(Basis, bool)> {
    (!detection.is_double()).then(|| {
        let port = detection.pattern.trailing_zeros();
        (if port < 2 { Basis::Z } else { Basis::X }, port & 1 == 1)
    })
}

/// Chi-square of two samples of counts, and its degrees of freedom; cells with few counts are taken together.
pub fn chi_square(a: &[u64], b: &[u64]) -> (f64, f64) {
    let (sum_a, sum_b) = (a.iter().sum::<u64>() as f64, b.iter().sum::<u64>() as f64);
    let (mut chi, mut cells, mut rest) = (0.0, 0.0f64, (0.0, 0.0));
    let mut add = |(a, b): (f64, f64)| {
        let difference = a * (sum_b / sum_a).sqrt() - b * (sum_a / sum_b).sqrt();
        chi += difference * difference / (a + b);
        cells += 1.0;
    };
    for (&a, &b) in a.iter().zip(b) {
        let pair = (a as f64, b as f64);
        if a + b >= 20 { add(pair) } else { rest = (rest.0 + pair.0, rest.1 + pair.1) }
    }
    if rest.0 + rest.1 >= 20.0 {
        add(rest);
    }
    (chi, (cells - 1.0).max(1.0))
}

/// Fails where chi-square is further than 4 standard deviations above its mean.
#[track_caller]
pub fn assert_same_law(a: &[u64], b: &[u64], what: &str) {
    let (chi, degrees) = chi_square(a, b);
    println!("{what}: chi-square {chi:.1} of {degrees} degrees");
    assert!(chi < degrees + 4.0 * (2.0 * degrees).sqrt(), "{what}: {chi} of {degrees}");
}
