//! What of a prepared link's pulses reaches the receiver, against a simulation of every pulse.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use common::*;
use photonics::analyser::AnalyserState;
use photonics::config::{
    Basis, BasisChoice, Encoding, Light, PreparedAnalyser, QuantumDot, Step, TemporalFilter, Transmitter,
};
use photonics::nature::pulses::{BasisChoices, ChoiceKey};
use photonics::random::Draws;
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// Classes of choices, and of the receiver's basis where it has one.
const CLASSES: usize = 64;

/// Counts of pulses by choice, receiver's basis and number of photons (0, 1, 2 and more) at each of four ports.
type Patterns = Vec<u64>;

fn cell(choice: (usize, Basis, bool), measured: Basis, photons: [u32; 4]) -> usize {
    let (intensity, basis, bit) = choice;
    let class = ((intensity * 2 + basis as usize) * 2 + usize::from(bit)) * 2 + measured as usize;
    assert!(class < CLASSES);
    photons.iter().fold(class, |cell, &number| cell * 3 + number.min(2) as usize)
}

/// Every pulse on its own: photons drawn one by one, lost or not, sent to a port by the textbook.
fn brute_force(link: &Link, epochs: u64, port: impl Fn(&mut Draws, Basis, bool, Basis) -> u32) -> Patterns {
    let choices = link.choices();
    let active = link.analyser.basis_choice == BasisChoice::Active;
    let bases = BasisChoices::new(link.analyser.z_probability, ChoiceKey::new(&RECEIVER_KEY));
    let survival = link.detectors.efficiency() * 10f64.powf(-link.arm.loss_db / 10.0);
    let mut draws = subseed().stream("brute force").draws(0);
    let mut patterns = vec![0; CLASSES * 81];
    let pulses = (epochs as f64 * EPOCH_PS as f64 * 1e-12 * link.transmitter.repetition_rate_hz).round() as u64;
    for pulse in 0..pulses {
        let choice = choices.at(pulse);
        let measured = if active { bases.at(pulse) } else { Basis::Z };
        let emitted = match &link.transmitter.light {
            Light::Coherent(intensities) => draws.poisson(intensities[choice.intensity()].mean_photons),
            Light::QuantumDot(dot) => {
                let two = 0.5 * dot.g2 * dot.mean_photons * dot.mean_photons;
                let uniform = draws.uniform();
                if uniform < two { 2 } else { u64::from(uniform < dot.mean_photons - two) }
            }
        };
        let mut photons = [0; 4];
        for _ in 0..emitted {
            if draws.uniform() < survival {
                photons[port(&mut draws, choice.basis(), choice.bit(), measured) as usize] += 1;
            }
        }
        patterns[cell((choice.intensity(), choice.basis(), choice.bit()), measured, photons)] += 1;
    }
    patterns
}

/// What the thinned source gives, the pulses of which nothing arrives counted by their choices.
fn thinned(link: &Link, epochs: u64) -> Patterns {
    let choices = link.choices();
    let active = link.analyser.basis_choice == BasisChoice::Active;
    let bases = BasisChoices::new(link.analyser.z_probability, ChoiceKey::new(&RECEIVER_KEY));
    let mut seen: BTreeMap<u64, [u32; 4]> = BTreeMap::new();
    for (pulse, _, port) in link.photons(epochs) {
        seen.entry(pulse).or_default()[usize::from(port)] += 1;
    }
    let pulses = (epochs as f64 * EPOCH_PS as f64 * 1e-12 * link.transmitter.repetition_rate_hz).round() as u64;
    let mut patterns = vec![0; CLASSES * 81];
    for pulse in 0..pulses {
        let choice = choices.at(pulse);
        let measured = if active { bases.at(pulse) } else { Basis::Z };
        let photons = seen.get(&pulse).copied().unwrap_or_default();
        patterns[cell((choice.intensity(), choice.basis(), choice.bit()), measured, photons)] += 1;
    }
    patterns
}

/// A photon of linear polarisation behind a fibre that has turned it by half of `angle_rad`, at polarisers with errors.
fn polarised(
    transmitter: &Transmitter,
    analyser: &PreparedAnalyser,
    angle_rad: f64,
) -> impl Fn(&mut Draws, Basis, bool, Basis) -> u32 + use<> {
    let (prepared, error, z) = (transmitter.intrinsic_error, analyser.error, analyser.z_probability);
    let active = analyser.basis_choice == BasisChoice::Active;
    move |draws, basis, bit, measured| {
        let bit = bit ^ (draws.uniform() < prepared[basis as usize]);
        // Angles of the electric field, half of those on the sphere.
        let field_rad = [0.0, PI / 4.0][basis as usize] + if bit { PI / 2.0 } else { 0.0 } + angle_rad / 2.0;
        let passive = if draws.uniform() < z { Basis::Z } else { Basis::X };
        let measured = if active { measured } else { passive };
        let polariser_rad = [0.0, PI / 4.0][measured as usize];
        let through = draws.uniform() < (field_rad - polariser_rad).cos().powi(2);
        let wrong = draws.uniform() < error[measured as usize];
        2 * measured as u32 + u32::from(through == wrong)
    }
}

#[test]
fn thinned_pulses_have_the_joint_patterns_of_pulses_drawn_one_by_one() {
    for (basis_choice, angle_rad, loss_db, epochs) in [
        (BasisChoice::Passive, 0.0, 3.0, 20),
        (BasisChoice::Passive, 0.4, 1.0, 10),
        (BasisChoice::Active, -0.3, 6.0, 20),
    ] {
        let mut transmitter = transmitter(1e6, &[(0.8, 0.5), (0.3, 0.3), (0.02, 0.2)]);
        transmitter.z_probability = 0.7;
        transmitter.intrinsic_error = [0.02, 0.05];
        let mut link = Link::gated(transmitter, basis_choice, gated());
        link.analyser.z_probability = 0.6;
        link.analyser.error = [0.01, 0.0];
        link.arm.loss_db = loss_db;
        link.arm.polarisation.initial_rad = [angle_rad, 0.0];
        let port = polarised(&link.transmitter, &link.analyser, angle_rad);
        let what = format!("{basis_choice:?} at {angle_rad} rad, {loss_db} dB");
        assert_same_law(&thinned(&link, epochs), &brute_force(&link, epochs, port), &what);
    }
}

#[test]
fn a_thinned_dot_has_the_joint_patterns_of_a_dot_drawn_pulse_by_pulse() {
    let dot = QuantumDot { mean_photons: 0.5, g2: 0.3, lifetime_ps: 1000.0, temporal_filter: None };
    let mut transmitter = transmitter(1e6, &[]);
    transmitter.light = Light::QuantumDot(dot);
    transmitter.intrinsic_error = [0.0566, 0.0849];
    let mut link = Link::gated(transmitter, BasisChoice::Passive, gated());
    link.arm.loss_db = 2.0;
    let port = polarised(&link.transmitter, &link.analyser, 0.0);
    assert_same_law(&thinned(&link, 20), &brute_force(&link, 20, port), "dot");
}

/// Time-bin link of 5 ns periods and bins 1 ns apart.
fn time_bin(phase_rad: f64) -> Link {
    let mut transmitter = transmitter(2e8, &[(0.05, 1.0)]);
    transmitter.encoding = Encoding::TimeBin;
    transmitter.bin_separation_ps = 1000.0;
    transmitter.intrinsic_error = [0.03, 0.04];
    let mut link = Link::gated(transmitter, BasisChoice::Passive, gated());
    link.analyser.encoding = Encoding::TimeBin;
    link.analyser.bin_separation_ps = 1000.0;
    link.analyser.error = [0.0, 0.02];
    link.states[1] = AnalyserState { phase_rad, ..STILL };
    link
}

#[test]
fn time_bins_read_z_by_time_and_x_by_interference_in_the_middle_slot() {
    for phase_rad in [0.0, 0.7, PI] {
        let link = time_bin(phase_rad);
        let choices = link.choices();
        // By basis sent, bit sent, port and slot.
        let mut counts = [[[[0usize; 3]; 4]; 2]; 2];
        for (pulse, at_ps, port) in link.photons(3) {
            let choice = choices.at(pulse);
            let slot = ((at_ps - 2500.0) / 1000.0).round() as usize;
            counts[choice.basis() as usize][usize::from(choice.bit())][usize::from(port)][slot] += 1;
        }
        let visibility = (1.0 - 2.0 * 0.04) * (1.0 - 2.0 * 0.02) * phase_rad.cos();
        for bit in 0..2 {
            let [z, x] = [counts[0][bit], counts[1][bit]];
            let sum = |list: &[usize]| list.iter().sum::<usize>();
            assert_fraction(z[0][1 - bit], sum(&z[0]), 0.03, "wrong time bin");
            assert_fraction(sum(&z[0]), z.iter().map(|slots| sum(slots)).sum(), 0.5, "passive choice");
            assert_fraction(z[2][1] + z[3][1], sum(&z[2]) + sum(&z[3]), 0.5, "side peaks of Z in X");
            assert_fraction(x[2][1] + x[3][1], sum(&x[2]) + sum(&x[3]), 0.5, "side peaks of X");
            let wrong = 0.5 * (1.0 - visibility);
            assert_fraction(x[3 - bit][1], x[2][1] + x[3][1], wrong, &format!("X at {phase_rad}"));
            assert_fraction(x[2][0], x[2][0] + x[3][0], 0.5, "no interference in the side peaks");
            assert_fraction(x[0][0], sum(&x[0]), 0.5, "X states in Z");
            assert!(z[1] == [0; 3] && z[0][2] == 0, "one detector reads Z, in two slots");
        }
    }
}

#[test]
fn phase_encoding_turns_both_bases_by_the_sum_of_the_phases() {
    // So weak that double clicks, which are left out, do not matter.
    let mut link = Link::gated(transmitter(1e8, &[(0.002, 1.0)]), BasisChoice::Active, gated());
    link.transmitter.encoding = Encoding::Phase;
    link.analyser.encoding = Encoding::Phase;
    link.states = [0.5, -0.2].map(|phase_rad| AnalyserState { phase_rad, ..STILL });
    let mut wrong = [[0usize; 2]; 2];
    let (tally, pulses) = link.detections(100, |_, choice, detection| {
        if let Some((basis, bit)) = reading(&detection)
            && basis == choice.basis()
        {
            wrong[basis as usize][usize::from(bit != choice.bit())] += 1;
        }
    });
    for [right, wrong] in wrong {
        assert_fraction(wrong, right + wrong, 0.5 * (1.0 - 0.3f64.cos()), "errors");
    }
    assert!(tally.detections as f64 > 0.0019 * pulses && tally.dead == 0);
}

#[test]
fn measured_g2_of_a_dot_is_the_configured_one() {
    let filter = TemporalFilter { start_ps: 100.0, width_ps: 300.0 };
    let filtered = (-1.0 / 3.0f64).exp() - (-4.0 / 3.0f64).exp();
    for (g2, temporal_filter, share) in [(0.05, None, 1.0), (0.2, Some(filter), filtered)] {
        let mut transmitter = transmitter(75.947e6, &[]);
        // Hardly any photon is so late that it would count as one of the next pulse.
        transmitter.light =
            Light::QuantumDot(QuantumDot { mean_photons: 0.2, g2, lifetime_ps: 300.0, temporal_filter });
        let mut link = Link::gated(transmitter, BasisChoice::Passive, gated());
        link.arm.loss_db = 3.0;
        let photons = link.photons(40);
        let pulses = 0.8 * 75.947e6;
        let per_pulse = 0.2 * share * 10f64.powf(-0.3);
        assert_count(photons.len(), pulses * per_pulse, "brightness");
        // Both arms of a beam splitter, which the passive choice of basis is.
        let arms = [0, 1].map(|arm| photons.iter().filter(move |photon| photon.2 / 2 == arm).map(|photon| photon.0));
        let [z, x] = arms.map(|pulses| pulses.collect::<std::collections::HashSet<u64>>());
        let same = z.intersection(&x).count();
        let next = z.iter().filter(|&&pulse| x.contains(&(pulse + 1))).count();
        let measured = same as f64 / next as f64;
        let sigma = measured * (1.0 / same as f64 + 1.0 / next as f64).sqrt();
        println!("g2 {measured:.4} +- {sigma:.4}, configured {g2}");
        assert!((measured - g2).abs() < 3.0 * sigma, "{measured} +- {sigma} of {g2}");
    }
}

#[test]
fn photons_of_a_dot_come_with_its_lifetime_over_the_borders_of_epochs() {
    let mut transmitter = transmitter(75.947e6, &[]);
    let dot = QuantumDot { mean_photons: 0.1, g2: 0.0, lifetime_ps: 1018.0, temporal_filter: None };
    transmitter.light = Light::QuantumDot(dot);
    let link = Link::gated(transmitter, BasisChoice::Passive, gated());
    let photons = link.photons(10);
    let half_ps = 0.5e12 / 75.947e6;
    // Tails beyond half of a period belong to the pulse before.
    let delay_ps = |at_ps: f64| if at_ps < half_ps - 1.0 { at_ps + half_ps } else { at_ps - half_ps };
    for ratio in [0.2, 1.0, 3.0] {
        let later = photons.iter().filter(|photon| delay_ps(photon.1) > ratio * 1018.0).count();
        assert_fraction(later, photons.len(), f64::exp(-ratio), &format!("delay above {ratio} lifetimes"));
    }
    assert!(photons.is_sorted_by_key(|photon| photon.0));
}

#[test]
fn nothing_is_sent_without_a_session_and_extremes_do_no_harm() {
    let bright = |mean, p| transmitter(1e4, &[(mean, p), (0.1, 1.0 - p)]);
    for (transmitter, loss_db, share) in [
        (bright(0.0, 1.0), 0.0, 0.0),
        (bright(1e9, 1.0), 0.0, 1.0),
        (bright(0.5, 1.0), f64::INFINITY, 0.0),
        (bright(0.5, 1.0), 3000.0, 0.0),
        (bright(0.5, 0.0), 0.0, -(-0.1f64).exp_m1()),
        (bright(f64::NAN, 1.0), 0.0, 0.0),
        (transmitter(1e4, &[]), 0.0, 0.0),
    ] {
        let mut link = Link::gated(transmitter, BasisChoice::Passive, gated());
        link.arm.loss_db = loss_db;
        let mut pulses: Vec<u64> = link.photons(3).into_iter().map(|photon| photon.0).collect();
        pulses.dedup();
        assert_fraction(pulses.len(), 600, share, &format!("pulses seen at {loss_db} dB"));
    }
    // Fewer pulses than epochs.
    let link = Link::gated(transmitter(10.0, &[(20.0, 1.0)]), BasisChoice::Passive, gated());
    let mut pulses: Vec<u64> = link.photons(100).into_iter().map(|photon| photon.0).collect();
    pulses.dedup();
    assert_eq!(pulses, (0..20).collect::<Vec<_>>());
    let mut emitter = link.emitter();
    emitter.stop();
    assert_eq!(emitter.emit(0, [&STILL; 2]).count, 0);
    emitter.start(5, ChoiceKey::new(&TRANSMITTER_KEY), None);
    assert_eq!((1..5).map(|epoch| emitter.emit(epoch, [&STILL; 2]).count).sum::<u32>(), 0);
    let first = (5..10).map(|epoch| emitter.emit(epoch, [&STILL; 2]).count).position(|count| count > 0);
    assert_eq!(first, Some(2), "pulse 0 of the session is born in the middle of its period");
    assert_eq!((emitter.pulse_number(4), emitter.pulse_number(10)), (None, Some(1)));
}

#[test]
fn power_and_loss_act_from_the_epoch_on_that_they_are_set_for() {
    let mut transmitter = transmitter(1e8, &[(0.01, 1.0)]);
    transmitter.steps = vec![Step { at_s: 0.1, value: 0.5 }];
    let link = Link::gated(transmitter, BasisChoice::Passive, gated());
    let mut emitter = link.emitter();
    let mut counts = [0usize; 4];
    for epoch in 0..20 {
        if epoch == 10 {
            emitter.attenuate(3.0103);
        } else if epoch == 15 {
            emitter.attenuate(f64::INFINITY);
        }
        counts[epoch as usize / 5] += emitter.emit(epoch, [&STILL; 2]).count as usize;
    }
    for (count, share) in counts.into_iter().zip([1.0, 0.5, 0.25, 0.0]) {
        assert_count(count, 1e5 * share, "photons");
    }
}

#[test]
fn equal_seeds_and_keys_give_equal_light_and_other_keys_other_light() {
    let link = Link::gated(transmitter(1e8, &[(0.1, 0.5), (0.01, 0.5)]), BasisChoice::Active, gated());
    let photons = |key: [u8; 32]| {
        let mut emitter = link.emitter();
        emitter.start(0, ChoiceKey::new(&key), Some(ChoiceKey::new(&RECEIVER_KEY)));
        emitter.emit(0, [&STILL; 2])
    };
    assert_eq!(photons([1; 32]), photons([1; 32]));
    assert_ne!(photons([1; 32]), photons([2; 32]));
}
