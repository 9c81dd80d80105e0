//! The shipped parameters against the published figures, by the formulae alone.

#![allow(clippy::unwrap_used)]

use photonics::config::SpdcCw;
use photonics::expect::inputs::mean_cos_phase;
use photonics::expect::{from_config, optimum};
use topology::document::Measure;
use topology::plan::estimate::EntangledParts;
use topology::plan::key::KeyInputs;
use topology::plan::{Pairs, PlannedLink, RunOptions, plan};
use topology::{Topology, parse};

fn nice() -> Topology {
    let text = include_str!("../../../topologies/nice.yaml");
    parse("nice.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology
}

/// Where the pump loop settles: pump set-point, key rate, both error rates, width of the peak.
fn settled(pairs: &Pairs, link: &PlannedLink, parts: &EntangledParts<'_>, topology: &Topology) -> (f64, [f64; 4]) {
    let document = topology.spec.links.iter().find(|document| document.name.as_str() == link.name).unwrap();
    let mut inputs = from_config(
        &pairs.emitter,
        pairs.arms.each_ref(),
        pairs.analysers.each_ref(),
        pairs.detectors.each_ref(),
        document.window.unwrap().value(),
        1.0,
    );
    inputs.mean_cos_phase = mean_cos_phase(document.loops.phase.dither_rad(), 0.0);
    let point = optimum::at_qber_z(&inputs, document.loops.pump.target());
    let prediction = point.prediction;
    let key = KeyInputs { reconciliation_efficiency: 1.06, ..KeyInputs::of(parts.post_processing) };
    (point.pump, [key.rate(&prediction).asymptotic_bps, prediction.z.qber, prediction.x.qber, prediction.peak_fwhm_ps])
}

fn index(quantity: Measure) -> usize {
    match quantity {
        Measure::SecretKeyRate => 0,
        Measure::QberZ => 1,
        Measure::QberX => 2,
        Measure::PeakWidth => 3,
        gain => panic!("pairs have no {}", gain.name()),
    }
}

#[test]
fn one_set_of_parameters_gives_rate_error_rates_and_width_of_each_link() {
    let topology = nice();
    let plan = plan(&topology, &RunOptions::default());
    for link in &plan.links {
        let parts = plan.entangled(link).unwrap();
        let (pump, measured) = settled(parts.pairs, link, &parts, &topology);
        eprintln!("{}: pump {pump:.3}, {measured:?}", link.name);
        assert!((pump - 1.0).abs() < 0.05, "the pump settles near its nominal power: {pump}");
        for reference in &link.references {
            let predicted = measured[index(reference.quantity)];
            let close = reference.tolerance.accepts(reference.published, predicted);
            assert!(close, "{}: {} is {predicted}", link.name, reference.quantity.name());
        }
    }
}

#[test]
fn without_its_dispersion_the_100_km_link_would_make_500_bits_per_second() {
    let topology = nice();
    let plan = plan(&topology, &RunOptions::default());
    let link = plan.link("valrose-calern").unwrap();
    let parts = plan.entangled(link).unwrap();
    let mut pairs = parts.pairs.clone();
    for arm in &mut pairs.arms {
        arm.dispersion_ps_per_nm = 0.0;
    }
    // The pump that the 50 km link has: the error rate does not depend on the loss.
    pairs.emitter = SpdcCw { pair_rate_hz: 3.21e8, ..pairs.emitter };
    let (_, [key_rate_bps, ..]) = settled(&pairs, link, &parts, &topology);
    assert!((key_rate_bps / 500.0 - 1.0).abs() < 0.1, "{key_rate_bps}");
}
