//! Transmitter, receiver and protocol of a prepared link, as plain numbers.

use distill::config as protocol;
use distill::sifting::prepared::config as sifting;
use photonics::config as instrument;

use super::instruments::{self, PS_PER_S};
use crate::document::{
    BasisChoice, Disturbance, Encoding, GatedAvalanche, Intensities, Intensity, KeyBasis, QuantumDot, Sync,
};
use crate::quantity::Duration;
use crate::resolve::{PreparedLink, PreparedSource, PulseDetector};

/// A distributed clock is set to be so much behind the light: the first frame begins before the light that it numbers.
const CLOCK_BEHIND_PS: f64 = 1e6;

/// Sifting's gate is so much wider than a detector's own: a tag is up to half a unit of 4 ps beside its click, and the
/// clock by which it is judged some more, so that clicks at the edges of an equal gate (dark counts, afterpulses) would
/// be lost.
const GATE_ROOM_PS: f64 = 32.0;

impl PreparedLink<'_> {
    /// What the proof takes for granted of the light.
    pub fn emission(&self) -> protocol::Emission {
        match self.transmitter {
            PreparedSource::Coherent(source) => intensities(&source.intensities),
            PreparedSource::Dot(source) => protocol::Emission::SinglePhotons(protocol::SinglePhotons {
                mean_photons: dot(source).mean_photons_sent(),
                g2: source.g2,
                key_basis_probability: self.key_basis_probability(),
            }),
        }
    }

    /// Of transmitter and receiver. At a receiver of time bins half of basis X says nothing, so that what is kept is
    /// more often of basis Z than light is measured in it; the shares of what is kept bound both from above.
    pub fn key_basis_probability(&self) -> [f64; 2] {
        let measured_z = self.analyser.z_probability.value();
        let kept_x = match self.analyser.encoding {
            Encoding::TimeBin => 0.5 * (1.0 - measured_z),
            Encoding::Polarisation | Encoding::Phase => 1.0 - measured_z,
        };
        let z = [self.transmitter.encoder().z_probability.value(), measured_z / (measured_z + kept_x)];
        match self.key_basis() {
            KeyBasis::Z => z,
            KeyBasis::X => z.map(|z| 1.0 - z),
        }
    }

    fn key_basis(&self) -> KeyBasis {
        self.link.key_basis.unwrap_or_default()
    }

    pub fn period_ps(&self) -> f64 {
        PS_PER_S / self.transmitter.repetition_rate().value()
    }

    /// How far the receiver looks for the first pulse.
    pub fn reach_ps(&self, epoch_ps: u64) -> u64 {
        match &self.link.sync {
            Some(Sync::Photons(sync)) => sync.reach.map_or(epoch_ps, |reach| reach.rounded()),
            _ => epoch_ps,
        }
    }

    /// Pulses of the preamble: one more than its time has, so that a preamble as long as the reach covers it.
    fn preamble_pulses(&self) -> u64 {
        match &self.link.sync {
            Some(Sync::Photons(sync)) => (sync.preamble.value() / self.period_ps()).ceil() as u64 + 1,
            _ => 0,
        }
    }

    /// Clicks further than half of this from a moment of light do not count. A gated detector has its own gate, and room
    /// for tags of its edges, unless moments are closer to each other than that.
    fn gate_ps(&self) -> f64 {
        let own_ps = match self.detector {
            PulseDetector::FreeRunning(_) => 0.0,
            PulseDetector::Gated(detector) => detector.gate_width.value() + GATE_ROOM_PS,
        };
        let moments_ps = match self.bin_separation_ps() {
            separation_ps if separation_ps > 0.0 => separation_ps.min(self.period_ps() - separation_ps),
            _ => self.period_ps(),
        };
        self.link.gate.map_or(own_ps.min(moments_ps), |gate| gate.value())
    }

    fn bin_separation_ps(&self) -> f64 {
        let encoder = self.transmitter.encoder();
        let separation = encoder.bin_separation.filter(|_| encoder.encoding == Encoding::TimeBin);
        separation.map_or(0.0, |separation| separation.value())
    }

    pub fn sifting(&self, part: sifting::Part, epoch_ps: u64) -> sifting::Prepared {
        let encoding = match self.transmitter.encoder().encoding {
            Encoding::Polarisation | Encoding::Phase => sifting::Encoding::Detectors,
            Encoding::TimeBin => sifting::Encoding::TimeBin { separation_ps: self.bin_separation_ps() },
        };
        let sync = match &self.link.sync {
            Some(Sync::Photons(sync)) => sifting::Sync::Photons(sifting::Search {
                reach_ps: self.reach_ps(epoch_ps),
                frequency: sync.frequency_search.value(),
            }),
            _ => sifting::Sync::Distributed { delay_ps: -CLOCK_BEHIND_PS },
        };
        sifting::Prepared {
            part,
            period_ps: self.period_ps(),
            encoding,
            key_basis: match self.key_basis() {
                KeyBasis::Z => sifting::Basis::Z,
                KeyBasis::X => sifting::Basis::X,
            },
            gate_ps: self.gate_ps(),
            dead_time_ps: self.detectors_config().dead_time_ps(self.transmitter.repetition_rate().value()),
            preamble_pulses: self.preamble_pulses(),
            sync,
            tracking_interval_ps: self.link.tracking.interval.rounded(),
            loops: sifting::Loops {
                polarisation: self.link.loops.polarisation.enabled,
                phase: self.link.loops.phase.enabled,
                phase_dither_rad: self.link.loops.phase.dither_rad(),
            },
        }
    }

    pub fn transmitter_config(&self, epoch_ps: u64) -> instrument::Transmitter {
        let encoder = self.transmitter.encoder();
        let powers = self.link.disturbances.iter().filter_map(|disturbance| match disturbance {
            Disturbance::Power(step) => Some((step.at, step.factor)),
            _ => None,
        });
        instrument::Transmitter {
            repetition_rate_hz: self.transmitter.repetition_rate().value(),
            encoding: carrier(encoder.encoding),
            light: match self.transmitter {
                PreparedSource::Coherent(source) => instrument::Light::Coherent(
                    source.intensities.by_name().map(|(_, intensity)| of_light(intensity)).collect(),
                ),
                PreparedSource::Dot(source) => instrument::Light::QuantumDot(dot(source)),
            },
            z_probability: encoder.z_probability.value(),
            intrinsic_error: encoder.error.values(),
            pulse_fwhm_ps: self.transmitter.pulse_width().value(),
            bin_separation_ps: self.bin_separation_ps(),
            phase: instruments::phase(self.link, self.transmitter.site().as_str(), &encoder.phase, epoch_ps),
            preamble_pulses: self.preamble_pulses(),
            steps: instruments::levels(powers, epoch_ps, 1.0, |level, factor| level * factor),
        }
    }

    pub fn analyser_config(&self, epoch_ps: u64) -> instrument::PreparedAnalyser {
        let analyser = self.analyser;
        instrument::PreparedAnalyser {
            encoding: carrier(analyser.encoding),
            basis_choice: match analyser.basis_choice {
                BasisChoice::Passive => instrument::BasisChoice::Passive,
                BasisChoice::Active => instrument::BasisChoice::Active,
            },
            z_probability: analyser.z_probability.value(),
            error: analyser.error.values(),
            bin_separation_ps: self.bin_separation_ps(),
            phase: instruments::phase(self.link, self.arm.site.as_str(), &analyser.phase, epoch_ps),
        }
    }

    pub fn detectors_config(&self) -> instrument::PreparedDetectors {
        let clock_jitter_ps = match &self.link.sync {
            Some(Sync::Distributed(sync)) => sync.jitter.value(),
            _ => 0.0,
        };
        match self.detector {
            PulseDetector::FreeRunning(detector) => {
                let mut detector = instruments::snspd(detector);
                detector.jitter_fwhm_ps = detector.jitter_fwhm_ps.hypot(clock_jitter_ps);
                instrument::PreparedDetectors::FreeRunning(detector)
            }
            PulseDetector::Gated(detector) => {
                instrument::PreparedDetectors::GatedAvalanche(self.gated(detector, clock_jitter_ps))
            }
        }
    }

    fn gated(&self, detector: &GatedAvalanche, clock_jitter_ps: f64) -> instrument::GatedAvalanche {
        let gates = |duration: Duration| duration.value() / self.period_ps();
        instrument::GatedAvalanche {
            efficiency: detector.efficiency.value(),
            jitter_fwhm_ps: detector.jitter.value().hypot(clock_jitter_ps),
            gate_width_ps: detector.gate_width.value(),
            dark_probability: detector.dark_probability.value(),
            afterpulse_probability: detector.afterpulse.probability.value(),
            afterpulse_decay_gates: gates(detector.afterpulse.decay),
            hold_off_gates: gates(detector.hold_off).ceil() as u64,
            saturation_hz: detector.saturation.map_or(0.0, |rate| rate.value()),
            tdc_resolution_ps: detector.tdc.resolution.value(),
            skew_ps: detector.skew.map(|skew| skew.value()),
        }
    }

    /// The clock that stamps the clicks. One that is distributed is the transmitter's, later by the fibre.
    pub fn clock_config(&self) -> instrument::Clock {
        match &self.link.sync {
            Some(Sync::Distributed(_)) => instrument::Clock {
                offset_ps: -(self.delay_ps() + CLOCK_BEHIND_PS),
                frequency_error: 0.0,
                frequency_walk_per_sqrt_s: 0.0,
                phase_walk_ps_per_sqrt_s: 0.0,
            },
            _ => instruments::clock(self.clock),
        }
    }
}

fn carrier(encoding: Encoding) -> instrument::Encoding {
    match encoding {
        Encoding::Polarisation => instrument::Encoding::Polarisation,
        Encoding::TimeBin => instrument::Encoding::TimeBin,
        Encoding::Phase => instrument::Encoding::Phase,
    }
}

fn intensities(intensities: &Intensities) -> protocol::Emission {
    let of = |intensity: &Intensity| protocol::Intensity {
        mean_photons: intensity.mean_photons,
        probability: intensity.probability.value(),
    };
    let (signal, decoy) = (of(&intensities.signal), of(&intensities.decoy));
    match &intensities.vacuum {
        Some(vacuum) => protocol::Emission::TwoDecoys([signal, decoy, of(vacuum)]),
        None => protocol::Emission::OneDecoy([signal, decoy]),
    }
}

fn of_light(intensity: &Intensity) -> instrument::Intensity {
    instrument::Intensity { mean_photons: intensity.mean_photons, probability: intensity.probability.value() }
}

fn dot(source: &QuantumDot) -> instrument::QuantumDot {
    instrument::QuantumDot {
        mean_photons: source.brightness,
        g2: source.g2,
        lifetime_ps: source.lifetime.value(),
        temporal_filter: source.temporal_filter.as_ref().map(|filter| instrument::TemporalFilter {
            start_ps: filter.start.value(),
            width_ps: filter.width.value(),
        }),
    }
}
