//! Gated detectors: what they see, what they add, how their counts scatter.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use common::*;
use photonics::config::{Basis, BasisChoice, Detector, GatedAvalanche, PreparedDetectors};
use photonics::nature::pulses::{BasisChoices, ChoiceKey};

const RATE_HZ: f64 = 1e9;

/// Pulses of one intensity that fire some detector with this probability.
fn light(click_probability: f64, detectors: GatedAvalanche) -> Link {
    let mean_photons = -(-click_probability).ln_1p();
    Link::gated(transmitter(RATE_HZ, &[(mean_photons, 1.0)]), BasisChoice::Passive, detectors)
}

/// Mean and variance over mean of counts in windows of `window_ps`.
fn fano(times_ps: impl Iterator<Item = i64>, window_ps: i64) -> (f64, f64, usize) {
    let mut counts = vec![];
    for at_ps in times_ps {
        let window = (at_ps / window_ps) as usize;
        counts.resize(counts.len().max(window + 1), 0.0);
        counts[window] += 1.0;
    }
    // The last one is not complete.
    let windows = counts.len() - 1;
    counts.truncate(windows);
    let n = windows as f64;
    let mean = counts.iter().sum::<f64>() / n;
    let variance = counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>() / (n - 1.0);
    (mean, variance / mean, windows)
}

#[track_caller]
fn assert_fano(measured: (f64, f64), expected: (f64, f64), samples: usize, what: &str) {
    let n = samples as f64;
    let sigma = ((expected.0 * expected.1 / n).sqrt(), expected.1 * (2.0 / n).sqrt());
    println!(
        "{what}: mean {:.2}, Fano factor {:.4}; expected {:.2}, {:.4}",
        measured.0, measured.1, expected.0, expected.1
    );
    assert!((measured.0 - expected.0).abs() < 3.0 * sigma.0, "{what}: mean {measured:?}, {expected:?} +- {sigma:?}");
    assert!((measured.1 - expected.1).abs() < 3.0 * sigma.1, "{what}: Fano {measured:?}, {expected:?} +- {sigma:?}");
}

#[test]
fn perfect_gates_see_all_light_once_and_add_nothing() {
    let link = light(0.01, gated());
    let photons = link.photons(3);
    let clicks = link.clicks(3);
    let mut seen: Vec<(u64, u8)> = photons.iter().map(|&(pulse, _, port)| (pulse, port)).collect();
    seen.dedup();
    let mut clicked: Vec<(u64, u8)> = clicks.iter().map(|&(at_ps, port)| ((at_ps / 1000) as u64, port)).collect();
    // Clicks of one pulse come in any order; those of the last one may be in a frame that is not complete.
    seen.truncate(clicked.len());
    seen.sort_unstable();
    clicked.sort_unstable();
    assert!(clicked.len() > 500_000);
    assert_eq!(seen, clicked);
}

#[test]
fn dark_counts_come_per_gate_and_detector_and_within_the_gate() {
    for (basis_choice, detectors) in [(BasisChoice::Passive, 4.0), (BasisChoice::Active, 2.0)] {
        let dark = GatedAvalanche { dark_probability: 2.1e-5, gate_width_ps: 300.0, ..gated() };
        let link = Link::gated(transmitter(RATE_HZ, &[(0.0, 1.0)]), basis_choice, dark);
        let clicks = link.clicks(50);
        let seconds = clicks.last().unwrap().0 as f64 * 1e-12;
        assert_count(clicks.len(), 2.1e-5 * detectors * RATE_HZ * seconds, "dark counts");
        let bases = BasisChoices::new(0.5, ChoiceKey::new(&RECEIVER_KEY));
        for port in 0..4 {
            let count = clicks.iter().filter(|click| click.1 == port).count();
            assert_fraction(count, clicks.len(), 0.25, &format!("port {port}"));
        }
        for &(at_ps, port) in &clicks {
            assert!((at_ps % 1000 - 500).abs() <= 154, "{at_ps}");
            if basis_choice == BasisChoice::Active {
                assert_eq!(u8::from(bases.at((at_ps / 1000) as u64) == Basis::X), port / 2, "the basis of the gate");
            }
        }
    }
}

#[test]
fn light_outside_of_the_gate_is_not_seen() {
    let mut link = light(0.01, GatedAvalanche { gate_width_ps: 100.0, ..gated() });
    link.transmitter.pulse_fwhm_ps = 200.0;
    let photons = link.photons(5);
    let inside = photons.iter().filter(|photon| (photon.1 - 500.0).abs() <= 50.5).count();
    let clicks = link.clicks(5).len();
    assert!(inside < photons.len() / 2 && inside > photons.len() / 3, "{inside} of {}", photons.len());
    // Two photons of a pulse at one detector make one click, and the last frame is not complete.
    assert!(clicks <= inside && clicks as f64 > 0.98 * inside as f64, "{clicks} of {inside}");
}

#[test]
fn gates_follow_the_delay_of_the_arm() {
    let mut link = light(0.01, GatedAvalanche { gate_width_ps: 60.0, ..gated() });
    link.arm.delay_ps = 245e6 + 0.4;
    link.arm.delay_drift_amplitude_ps = 1e5;
    link.arm.delay_drift_period_s = 1.0;
    let clicks = link.clicks(50);
    let seconds = (clicks.last().unwrap().0 - clicks[0].0) as f64 * 1e-12;
    let rate_hz = clicks.len() as f64 / seconds;
    assert!((rate_hz / (0.01 * RATE_HZ) - 1.0).abs() < 0.01, "{rate_hz}");
}

#[test]
fn hold_off_blinds_a_detector_for_its_gates_and_saturation_for_its_time() {
    // (hold-off, saturation, blind gates)
    for (hold_off_gates, saturation_hz, blind_gates) in [(20, 0.0, 20), (0, 4e7, 24), (20, 4e7, 24)] {
        let detectors = GatedAvalanche { hold_off_gates, saturation_hz, ..gated() };
        let link = light(0.04, detectors);
        let clicks = link.clicks(5);
        for port in 0..4 {
            let gates: Vec<i64> = clicks.iter().filter(|click| click.1 == port).map(|click| click.0 / 1000).collect();
            let shortest = gates.windows(2).map(|gates| gates[1] - gates[0]).min().unwrap();
            assert_eq!(shortest, blind_gates + 1, "{hold_off_gates} gates, {saturation_hz} Hz");
            // Each port is seen by a quarter of the light.
            let p = 1.0 - (1.0f64 - 0.04).powf(0.25);
            let live = 1.0 / (1.0 + p * blind_gates as f64);
            let mean = p * live * 1e8;
            let sigma = (mean * live * live).sqrt();
            let seen = gates.len() as f64 * 1e8 / gates.last().copied().unwrap() as f64;
            assert!((seen - mean).abs() < 4.0 * sigma, "{seen} of {mean} +- {sigma}");
        }
    }
}

#[test]
fn detections_while_any_detector_is_dead_are_dropped_of_key_and_check_alike() {
    let detectors = GatedAvalanche { hold_off_gates: 20, ..gated() };
    let link = light(0.02, detectors);
    let mut last = None;
    let mut bases = [0usize; 2];
    let (tally, gates) = link.detections(5, |pulse, _, detection| {
        assert!(last.is_none_or(|last| pulse - last > 20), "{pulse} after {last:?}");
        last = Some(pulse);
        if let Some((basis, _)) = reading(&detection) {
            bases[basis as usize] += 1;
        }
    });
    assert!(tally.dead > tally.detections / 5, "{tally:?}");
    // Double clicks are of two clicks, and hardly ever of three.
    let triples = tally.clicks - tally.dead - tally.detections - tally.doubles;
    assert!(triples < tally.doubles / 50, "{tally:?}");
    assert_fraction(bases[0], bases[0] + bases[1], 0.5, "bases");
    assert_count(tally.detections as usize, link.expected().detected(0) * gates, "detections");
    // Two photons of a pulse go to one port of its own basis with 1/4, to one of either port of the other with 1/8.
    let share = tally.doubles as f64 / tally.detections as f64;
    assert!((share / (0.625 * 0.5 * 0.0202) - 1.0).abs() < 0.1, "{share}");
}

#[test]
fn afterpulses_decay_over_gates_and_a_hold_off_ends_them() {
    let decay_gates = 30.0;
    let trapping = GatedAvalanche { afterpulse_probability: 0.05, afterpulse_decay_gates: decay_gates, ..gated() };
    let click_probability = 2e-6;
    for (hold_off_gates, epochs) in [(0, 1000), (60, 1000)] {
        let link = light(click_probability, GatedAvalanche { hold_off_gates, ..trapping.clone() });
        let clicks = link.clicks(epochs);
        let mut last = [i64::MIN / 2; 4];
        let mut gaps = vec![];
        for &(at_ps, port) in &clicks {
            let gate = at_ps / 1000;
            gaps.push(gate - std::mem::replace(&mut last[usize::from(port)], gate));
        }
        let near = gaps.iter().filter(|&&gap| gap < 500).count();
        // Of whole gates after the next one: the floor of an exponential is geometric.
        let survives = f64::exp(-(hold_off_gates as f64) / decay_gates);
        let chance = gaps.len() as f64 * 500.0 * click_probability / 4.0;
        let expected = gaps.len() as f64 * 0.05 * survives + chance;
        let sigma = expected.sqrt();
        assert!((near as f64 - expected).abs() < 3.0 * sigma, "{near} of {expected} at {hold_off_gates}");
        if hold_off_gates == 0 {
            let late = gaps.iter().filter(|&&gap| gap < 500 && gap > 30).count();
            assert_fraction(late, near, f64::exp(-1.0), "afterpulses later than one decay");
        }
    }
}

#[test]
fn counts_scatter_less_behind_a_dead_time_and_more_with_afterpulses() {
    // C3: behind a dead time the Fano factor is 1 / (1 + rate x dead time)^2 ...
    let window_ps = 1_000_000_000;
    let load: f64 = 0.12;
    let port_hz = 1e6;
    let dead_ps = load / port_hz * 1e12;
    let mean_photons = 4.0 * port_hz / RATE_HZ;
    // Half a period more, so that as many pulses are missed as gates are held off.
    let free = Detector { dead_time_ps: dead_ps + 500.0, ..detector() };
    let held = GatedAvalanche { hold_off_gates: (dead_ps / 1000.0) as u64, ..gated() };
    for (name, detectors) in
        [("free-running", PreparedDetectors::FreeRunning(free)), ("gated", PreparedDetectors::GatedAvalanche(held))]
    {
        let light = transmitter(RATE_HZ, &[(mean_photons, 1.0)]);
        let clicks = Link::new(light, prepared_analyser(BasisChoice::Passive), detectors).clicks(60);
        let each = [0, 1, 2, 3]
            .map(|port| fano(clicks.iter().filter(|click| click.1 == port).map(|click| click.0), window_ps));
        let windows = each.iter().map(|f| f.2).sum();
        let measured = (each.iter().map(|f| f.0).sum::<f64>() / 4.0, each.iter().map(|f| f.1).sum::<f64>() / 4.0);
        let expected = (port_hz * 1e-3 / (1.0 + load), 1.0 / (1.0 + load).powi(2));
        assert_fano(measured, expected, windows, name);
    }
    // ... and (1 + p) / (1 - p) where each click is followed by another one with probability p.
    let p: f64 = 0.05;
    let trapping = GatedAvalanche { afterpulse_probability: p, ..gated() };
    let free = Detector { afterpulse_probability: p, afterpulse_decay_ps: 20_000.0, ..detector() };
    let window_ps = 250_000_000;
    for (name, detectors) in
        [("free-running", PreparedDetectors::FreeRunning(free)), ("gated", PreparedDetectors::GatedAvalanche(trapping))]
    {
        let light = transmitter(RATE_HZ, &[(2e-4, 1.0)]);
        let clicks = Link::new(light, prepared_analyser(BasisChoice::Passive), detectors).clicks(100);
        let (mean, factor, windows) = fano(clicks.iter().map(|click| click.0), window_ps);
        let expected = (2e-4 * 250_000.0 / (1.0 - p), (1.0 + p) / (1.0 - p));
        assert_fano((mean, factor), expected, windows, name);
    }
}

#[test]
fn nanowires_behind_an_active_choice_share_their_dead_time_and_have_the_basis_of_the_pulse() {
    let nanowires = Detector { dead_time_ps: 30_000.0, dark_rate_hz: 1000.0, ..detector() };
    let light = transmitter(RATE_HZ, &[(0.01, 1.0)]);
    let link = Link::free_running(light, prepared_analyser(BasisChoice::Active), nanowires);
    let clicks = link.clicks(5);
    let bases = BasisChoices::new(0.5, ChoiceKey::new(&RECEIVER_KEY));
    for detector in 0..2 {
        let own: Vec<_> = clicks.iter().filter(|click| click.1 % 2 == detector).collect();
        assert!(own.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 29_996));
        // As many pulses are missed as begin within the dead time.
        let p = -(-0.005f64).exp_m1();
        let mean = p / (1.0 + 29.0 * p) * own.last().unwrap().0 as f64 / 1000.0;
        let sigma = mean.sqrt() / (1.0 + 29.0 * p);
        assert!((own.len() as f64 - mean).abs() < 4.0 * sigma, "{} of {mean} +- {sigma}", own.len());
    }
    // At the border of two pulses a tag's resolution decides which one it is of.
    for &(at_ps, port) in clicks.iter().filter(|click| (4..996).contains(&(click.0 % 1000))) {
        assert_eq!(port / 2, bases.at((at_ps / 1000) as u64) as u8);
    }
}

#[test]
fn nanowires_behind_an_active_choice_have_as_many_afterpulses_as_behind_a_splitter() {
    // A decay that is shorter than the dead time: none is lost in it.
    let nanowires = || Detector {
        dead_time_ps: 30_000.0,
        afterpulse_probability: 0.05,
        afterpulse_decay_ps: 20_000.0,
        ..detector()
    };
    let port_hz: f64 = 1e6;
    for (basis_choice, detectors) in [(BasisChoice::Passive, 4.0), (BasisChoice::Active, 2.0)] {
        let light = transmitter(RATE_HZ, &[(detectors * port_hz / RATE_HZ, 1.0)]);
        let link = Link::free_running(light, prepared_analyser(basis_choice), nanowires());
        let clicks = link.clicks(50);
        let seconds = clicks.last().unwrap().0 as f64 * 1e-12;
        // m = lambda (1 - m tau) + p m; half a pulse more or less is missed in a dead time.
        let live = 1.0 / (1.0 - 0.05 + port_hz * 30e-9);
        let expected = detectors * port_hz * seconds * live;
        let sigma = (expected * 1.05 / 0.95).sqrt() * live;
        let slack = 0.001 * expected;
        println!("{basis_choice:?}: {} of {expected} +- {sigma}", clicks.len());
        assert!((clicks.len() as f64 - expected).abs() < 3.0 * sigma + slack, "{} of {expected}", clicks.len());
        // The same by the figures of a prepared link, of which all detectors must be ready.
        let response = link.expected();
        let per_pulse = response.detected(0) / response.live_share;
        assert!((per_pulse * RATE_HZ / (detectors * port_hz / 0.95) - 1.0).abs() < 3e-3, "{per_pulse}");
    }
}

#[test]
fn one_instrument_gives_the_same_clicks_whenever_it_is_asked() {
    let noisy = GatedAvalanche { dark_probability: 1e-5, afterpulse_probability: 0.05, hold_off_gates: 3, ..gated() };
    let link = light(0.005, noisy);
    assert_eq!(link.clicks(3), link.clicks(3));
}

#[test]
fn extreme_detectors_do_no_harm() {
    let extremes = [
        GatedAvalanche { dark_probability: 1.0, ..gated() },
        GatedAvalanche { dark_probability: f64::NAN, gate_width_ps: f64::NAN, ..gated() },
        GatedAvalanche { afterpulse_probability: 1.0, afterpulse_decay_gates: f64::INFINITY, ..gated() },
        GatedAvalanche { hold_off_gates: u64::MAX, saturation_hz: 1e-300, ..gated() },
        GatedAvalanche { gate_width_ps: 0.0, efficiency: 0.0, ..gated() },
    ];
    for detectors in extremes {
        let mut link = Link::gated(transmitter(1e6, &[(0.5, 1.0)]), BasisChoice::Active, detectors.clone());
        link.arm.delay_ps = 1e9;
        let clicks = link.clicks(3);
        println!("{} clicks of {detectors:?}", clicks.len());
        assert!(clicks.len() <= 2 * 60_000);
    }
    // Every gate of both detectors.
    let link = Link::gated(
        transmitter(1e6, &[(0.0, 1.0)]),
        BasisChoice::Active,
        GatedAvalanche { dark_probability: 1.0, ..gated() },
    );
    let clicks = link.clicks(3);
    assert_eq!(clicks.len() as i64, 2 * (clicks.last().unwrap().0 / 1_000_000 + 1));
}
