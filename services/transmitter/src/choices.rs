//! The choices of a session, as the module asks for them.

use distill::sifting::{Choice, Choices};
use photonics::config::{Basis, Transmitter};
use photonics::nature::pulses::{self, ChoiceKey};
use zeroize::Zeroizing;

/// The transmitter's keyed stream. The key is wiped with it.
pub struct SessionChoices {
    stream: pulses::Choices,
    /// Place of each of the transmitter's intensities among them, the brightest first.
    places: Vec<u8>,
    /// Number that the stream has for the session's first pulse.
    first: u64,
}

impl SessionChoices {
    pub fn new(transmitter: &Transmitter, key: ChoiceKey) -> Self {
        let brightness = transmitter.light.mean_photons();
        let place = |mean: &f64| brightness.iter().filter(|other| *other > mean).count() as u8;
        let places = brightness.iter().map(place).collect();
        Self { stream: pulses::Choices::new(transmitter, key), places, first: 0 }
    }

    /// Those from a later pulse on, which is number 0 then.
    pub fn from(self, first: u64) -> Self {
        Self { first, ..self }
    }
}

impl Choices for SessionChoices {
    fn fill(&self, pulses: &[u64], choices: &mut [Choice]) {
        let nothing = pulses::Choice::new(0, Basis::Z, false);
        let mut chosen = Zeroizing::new(vec![nothing; pulses.len()]);
        if self.first == 0 {
            self.stream.fill(pulses, &mut chosen);
        } else {
            let pulses: Vec<u64> = pulses.iter().map(|pulse| pulse.saturating_add(self.first)).collect();
            self.stream.fill(&pulses, &mut chosen);
        }
        for (choice, chosen) in choices.iter_mut().zip(chosen.iter()) {
            let intensity = self.places.get(chosen.intensity()).copied().unwrap_or(u8::MAX);
            *choice = Choice { x: chosen.basis() == Basis::X, bit: chosen.bit(), intensity };
        }
    }
}

#[cfg(test)]
mod tests {
    use photonics::config::{Encoding, Intensity, Light, PhaseDrift};

    use super::*;

    fn transmitter(intensities: &[(f64, f64)]) -> Transmitter {
        let of = |&(mean_photons, probability): &(f64, f64)| Intensity { mean_photons, probability };
        Transmitter {
            repetition_rate_hz: 1e9,
            encoding: Encoding::Polarisation,
            light: Light::Coherent(intensities.iter().map(of).collect()),
            z_probability: 0.7,
            intrinsic_error: [0.0; 2],
            pulse_fwhm_ps: 0.0,
            bin_separation_ps: 0.0,
            phase: PhaseDrift::default(),
            preamble_pulses: 100,
            steps: vec![],
        }
    }

    #[test]
    fn the_module_sees_what_the_source_modulates_with_the_brightest_intensity_first() {
        let transmitter = transmitter(&[(0.1, 0.3), (0.0, 0.1), (0.5, 0.6)]);
        let key = || ChoiceKey::new(&[5; 32]);
        let (ours, sources) = (SessionChoices::new(&transmitter, key()), pulses::Choices::new(&transmitter, key()));
        let numbers: Vec<u64> = (0..1000).chain([1 << 40]).collect();
        let mut choices = vec![Choice { x: false, bit: false, intensity: 0 }; numbers.len()];
        ours.fill(&numbers, &mut choices);
        let mut counts = [0; 3];
        for (number, choice) in numbers.into_iter().zip(choices) {
            let sent = sources.at(number);
            assert_eq!((choice.x, choice.bit), (sent.basis() == Basis::X, sent.bit()));
            assert_eq!(usize::from(choice.intensity), [1, 2, 0][sent.intensity()]);
            counts[usize::from(choice.intensity)] += 1;
        }
        assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 0, "{counts:?}");
    }

    #[test]
    fn a_session_that_goes_on_with_a_stream_has_what_was_sent_then() {
        let transmitter = transmitter(&[(0.1, 0.3), (0.5, 0.7)]);
        let choices = |numbers: std::ops::Range<u64>, first| {
            let session = SessionChoices::new(&transmitter, ChoiceKey::new(&[5; 32])).from(first);
            let numbers: Vec<u64> = numbers.collect();
            let mut choices = vec![Choice { x: false, bit: false, intensity: 0 }; numbers.len()];
            session.fill(&numbers, &mut choices);
            choices
        };
        assert!(choices(2000..3000, 0) == choices(0..1000, 2000));
        assert!(choices(0..1000, 0) != choices(0..1000, 2000));
    }
}
