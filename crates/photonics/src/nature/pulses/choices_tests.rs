use super::*;
use crate::config::{Encoding, Intensity, Light, PhaseDrift};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

fn transmitter(intensities: &[(f64, f64)], preamble_pulses: u64) -> Transmitter {
    let intensity = |&(mean_photons, probability): &(f64, f64)| Intensity { mean_photons, probability };
    Transmitter {
        repetition_rate_hz: 1e9,
        encoding: Encoding::Polarisation,
        light: Light::Coherent(intensities.iter().map(intensity).collect()),
        z_probability: 0.9,
        intrinsic_error: [0.0; 2],
        pulse_fwhm_ps: 0.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses,
        steps: vec![],
    }
}

fn choices(key: [u8; 32], preamble_pulses: u64) -> Choices {
    Choices::new(&transmitter(&[(0.4, 0.7), (0.1, 0.2), (0.0, 0.1)], preamble_pulses), ChoiceKey::new(&key))
}

/// All that is in a choice.
fn parts(choice: Choice) -> (usize, Basis, bool) {
    (choice.intensity(), choice.basis(), choice.bit())
}

proptest! {
    #[test]
    fn choices_are_equal_however_one_seeks(
        key: [u8; 32],
        pulses in prop::collection::vec(prop_oneof![0u64..3000, any::<u64>()], 1..600),
    ) {
        let choices = choices(key, 1000);
        let mut together = vec![Choice::new(0, Basis::Z, false); pulses.len()];
        choices.fill(&pulses, &mut together);
        for (&pulse, &choice) in pulses.iter().zip(&together).rev() {
            prop_assert_eq!(parts(choices.at(pulse)), parts(choice));
        }
    }

    #[test]
    fn the_stream_is_that_of_the_published_generator(key: [u8; 32], pulse in 0u64..1 << 40) {
        let mut generator = ChaCha12Rng::from_seed(key);
        generator.set_word_pos(u128::from(pulse) * 2);
        let (low, high) = (generator.next_u32(), generator.next_u32());
        let choice = choices(key, 0).at(pulse);
        prop_assert_eq!(choice.bit(), low & 1 == 1);
        prop_assert_eq!(choice.basis() == Basis::Z, f64::from(low >> 1) < 0.9 * f64::from(1u32 << 31));
        let share = f64::from(high) / 4_294_967_296.0;
        prop_assert_eq!(choice.intensity(), usize::from(share >= 0.7) + usize::from(share >= 0.9));
    }
}

#[test]
fn choices_have_their_probabilities() {
    let choices = choices([9; 32], 0);
    let pulses: Vec<u64> = (0..400_000).map(|i| i * 173).collect();
    let mut all = vec![Choice::new(0, Basis::Z, false); pulses.len()];
    choices.fill(&pulses, &mut all);
    let check = |what: &str, p: f64, is: &dyn Fn(&Choice) -> bool| {
        let (n, count) = (all.len() as f64, all.iter().filter(|choice| is(choice)).count() as f64);
        assert!((count - n * p).abs() < 4.0 * (n * p * (1.0 - p)).sqrt(), "{what}: {count} of {n}");
    };
    check("bit", 0.5, &|choice| choice.bit());
    check("basis", 0.1, &|choice| choice.basis() == Basis::X);
    for (intensity, p) in [0.7, 0.2, 0.1].into_iter().enumerate() {
        check("intensity", p, &|choice| choice.intensity() == intensity);
        check("all", p * 0.9 * 0.5, &|choice| parts(*choice) == (intensity, Basis::Z, true));
    }
    let bases = BasisChoices::new(0.9, ChoiceKey::new(&[9; 32]));
    let x = pulses.iter().filter(|&&pulse| bases.at(pulse) == Basis::X).count() as f64;
    assert!((x - 40_000.0).abs() < 4.0 * 190.0, "{x}");
}

#[test]
fn a_preamble_is_public_and_ends_where_the_key_begins() {
    let (one, other) = (choices([1; 32], 5000), choices([2; 32], 5000));
    assert_eq!(one.preamble(), 5000);
    let equal = |range: std::ops::Range<u64>| {
        range.clone().filter(|&pulse| parts(one.at(pulse)) == parts(other.at(pulse))).count() as u64
            == range.end - range.start
    };
    assert!(equal(0..5000) && !equal(5000..5100));
    let bright = (0..5000).filter(|&pulse| one.at(pulse).intensity() == 0).count();
    assert!((2300..2700).contains(&bright), "{bright}");
    assert!((0..5000).all(|pulse| one.at(pulse).intensity() != 1), "brightest and dimmest alone");
    // The key of a session is not used for what is public.
    assert_eq!(parts(one.at(5000)), parts(choices([1; 32], 0).at(5000)));
}

#[test]
fn nothing_of_a_choice_is_printed() {
    let choices = choices([0xAB; 32], 0);
    let bases = BasisChoices::new(0.5, ChoiceKey::new(&[0xAB; 32]));
    let printed = format!("{choices:?} {:?} {:?} {bases:?}", choices.at(3), ChoiceKey::new(&[0xAB; 32]));
    assert_eq!(printed, "Choices Choice ChoiceKey BasisChoices");
}

#[test]
fn one_intensity_and_none_are_allowed() {
    for intensities in [&[][..], &[(0.5, 1.0)], &[(0.5, 0.0), (0.1, 1.0)]] {
        let choices = Choices::new(&transmitter(intensities, 10), ChoiceKey::new(&[7; 32]));
        let wanted = intensities.iter().position(|intensity| intensity.1 == 1.0).unwrap_or(0);
        assert!((10..2000).all(|pulse| choices.at(pulse).intensity() == wanted));
    }
}
