//! Light as counts against the same light click by click, over many short blocks: means, scatter, error rates.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use common::*;
use photonics::config::{BasisChoice, Detector, EnergyTimeAnalyser, GatedAvalanche, Light, QuantumDot};
use photonics::expect::{from_config, predict};
use photonics::nature::counts::{Emitter, Law, Statistics, Tally};
use photonics::receiver::{Frame, Instrument};

/// Blocks of either kind.
const BLOCKS: usize = 2000;
/// With this many counts of either kind 1 % is three standard deviations.
const COUNTS_TO_A_PERCENT: f64 = 2e5;

/// What one block gave, by the names of the figures.
type Block = Vec<f64>;

/// Means differ by less than 3 standard deviations, corrected for the number of comparisons, and variances by less than
/// 20 % where there are enough counts; error rates of the key have one distribution. With memory, means of enough
/// counts differ by less than 1 % as well.
fn assert_alike(what: &str, names: &[String], tags: &[Block], counts: &[Block], memory: bool) {
    let moments = |blocks: &[Block], figure: usize| {
        let n = blocks.len() as f64;
        let mean = blocks.iter().map(|block| block[figure]).sum::<f64>() / n;
        let variance = blocks.iter().map(|block| (block[figure] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance)
    };
    // Two-sided 0.27 % for all comparisons together.
    let sigmas = [3.0, 3.2, 3.3, 3.4, 3.5, 3.5, 3.6, 3.6, 3.6, 3.7][names.len().min(10) - 1];
    let mut failures = vec![];
    for (figure, name) in names.iter().enumerate() {
        let ((tag_mean, tag_variance), (mean, variance)) = (moments(tags, figure), moments(counts, figure));
        let sigma = (tag_variance / tags.len() as f64 + variance / counts.len() as f64).sqrt();
        let off = if sigma > 0.0 { (mean - tag_mean) / sigma } else { 0.0 };
        let ratio = variance / tag_variance;
        println!(
            "{what}, {name}: {tag_mean:.2} and {mean:.2} ({off:+.2} sigma), variances {tag_variance:.2} {variance:.2}"
        );
        if off.abs() > sigmas {
            failures.push(format!("mean of {name}: {off:.2} sigma"));
        }
        let relative = (mean / tag_mean - 1.0).abs();
        if memory && tag_mean * BLOCKS as f64 >= COUNTS_TO_A_PERCENT && relative > 0.01 {
            failures.push(format!("mean of {name}: {:.2} % off", 100.0 * relative));
        }
        if tag_mean >= 1.0 && (ratio - 1.0).abs() > 0.2 {
            failures.push(format!("variance of {name}: ratio {ratio:.3}"));
        }
    }
    // The first two figures are bits and errors of the key.
    let rates = |blocks: &[Block]| {
        let mut rates: Vec<f64> = blocks.iter().filter(|b| b[0] > 0.0).map(|b| b[1] / b[0]).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    let (a, b) = (rates(tags), rates(counts));
    let share = |of: &[f64], at: f64| of.partition_point(|rate| *rate <= at) as f64 / of.len() as f64;
    let distance = a.iter().chain(&b).map(|&at| (share(&a, at) - share(&b, at)).abs()).fold(0.0, f64::max);
    let limit = 1.628 * ((a.len() + b.len()) as f64 / (a.len() as f64 * b.len() as f64)).sqrt();
    println!("{what}: Kolmogorov-Smirnov distance of error rates {distance:.4}, limit {limit:.4}");
    if !memory && distance > limit {
        failures.push(format!("distribution of error rates: {distance}"));
    }
    assert!(failures.is_empty(), "{what}: {failures:?}");
}

/// Blocks of one slice each.
fn drawn(law: Law, block_ps: u64, figures: impl Fn(&Statistics) -> Block) -> Vec<Block> {
    let emitter = Emitter::new(law, block_ps, &subseed().derive("counts"));
    (0..BLOCKS as u64).map(|block| figures(&emitter.slice(block, 0, 1).statistics)).collect()
}

fn pair(tally: Tally) -> [f64; 2] {
    [tally.bits as f64, tally.errors as f64]
}

/// Figures of a prepared link: bits and errors of each basis by kind, then events that make no bit.
fn prepared_figures(statistics: &Statistics, kinds: usize) -> Block {
    let tallies =
        [statistics.key, statistics.check].into_iter().flat_map(|of| of.into_iter().take(kinds).flat_map(pair));
    let rest = [statistics.mismatched, statistics.crossed, statistics.doubles, statistics.clicks[1]];
    tallies.chain(rest.map(|count| count as f64)).collect()
}

fn prepared_names(kinds: usize) -> Vec<String> {
    let of = |basis: &'static str| {
        (0..kinds).flat_map(move |kind| ["bits", "errors"].map(|what| format!("{what} of {basis}, kind {kind}")))
    };
    of("key").chain(of("check")).chain(["mismatched", "crossed", "doubles", "clicks"].map(String::from)).collect()
}

/// The same by tags, in blocks of this many pulses.
fn prepared_blocks(link: &Link, kinds: usize, block_pulses: u64) -> Vec<Block> {
    let pulses_hz = link.transmitter.repetition_rate_hz;
    // The first block and the last one are not complete.
    let light_s = (BLOCKS + 2) as f64 * block_pulses as f64 / pulses_hz;
    let epochs = (light_s / (EPOCH_PS as f64 * 1e-12)).ceil() as u64 + 2;
    let mut blocks: Vec<Statistics> = vec![];
    // Where detectors jitter, the first frame is not complete.
    let mut first = None;
    link.detections(epochs, |pulse, choice, detection| {
        let first = *first.get_or_insert(pulse / block_pulses + 1);
        let Some(block) = (pulse / block_pulses).checked_sub(first) else { return };
        blocks.resize(blocks.len().max(block as usize + 1), Statistics::default());
        let block = &mut blocks[block as usize];
        let bases = [detection.pattern & 0b11, detection.pattern >> 2];
        let double = bases.contains(&0b11);
        block.clicks[1] += u64::from(detection.pattern.count_ones());
        if bases[0] != 0 && bases[1] != 0 {
            block.crossed += 1;
            return;
        }
        block.doubles += u64::from(double);
        let basis = usize::from(bases[1] != 0);
        if choice.basis() as usize != basis {
            block.mismatched += 1;
            return;
        }
        let tally = &mut [&mut block.key, &mut block.check][basis][choice.intensity()];
        tally.bits += 1;
        // Every second random bit is wrong.
        let wrong = if double { pulse & 1 == 1 } else { (bases[basis] == 0b10) != choice.bit() };
        tally.errors += u64::from(wrong);
    });
    assert!(blocks.len() > BLOCKS, "{} blocks", blocks.len());
    blocks[..BLOCKS].iter().map(|block| prepared_figures(block, kinds)).collect()
}

fn assert_prepared(what: &str, link: &Link, kinds: usize, block_pulses: u64, memory: bool) {
    let law = Law::prepared(&link.inputs(1e12 / link.transmitter.repetition_rate_hz)).unwrap();
    let block_ps = (block_pulses as f64 * 1e12 / link.transmitter.repetition_rate_hz).round() as u64;
    let counts = drawn(law, block_ps, |statistics| prepared_figures(statistics, kinds));
    assert_alike(what, &prepared_names(kinds), &prepared_blocks(link, kinds, block_pulses), &counts, memory);
}

fn decoys(detectors: GatedAvalanche) -> Link {
    let mut transmitter = transmitter(1e8, &[(0.425, 0.6), (0.1, 0.3), (0.001, 0.1)]);
    (transmitter.z_probability, transmitter.intrinsic_error) = (0.7, [0.02, 0.04]);
    let mut link = Link::gated(transmitter, BasisChoice::Passive, detectors);
    (link.analyser.z_probability, link.analyser.error) = (0.6, [0.01, 0.0]);
    link.arm.loss_db = 13.0;
    link
}

#[test]
fn counts_of_decoy_pulses_are_those_of_their_tags() {
    let link = decoys(GatedAvalanche { dark_probability: 4e-4, gate_width_ps: 5000.0, ..gated() });
    assert_prepared("decoys", &link, 3, 200_000, false);
}

#[test]
fn counts_of_decoy_pulses_remember_what_their_tags_remember() {
    let trapping = GatedAvalanche {
        dark_probability: 4e-4,
        gate_width_ps: 5000.0,
        hold_off_gates: 10,
        afterpulse_probability: 0.04,
        afterpulse_decay_gates: 20.0,
        ..gated()
    };
    assert_prepared("decoys with memory", &decoys(trapping), 3, 200_000, true);
}

#[test]
fn counts_of_single_photons_are_those_of_their_tags() {
    let mut transmitter = transmitter(1e8, &[]);
    let dot = QuantumDot { mean_photons: 0.3, g2: 0.2, lifetime_ps: 300.0, temporal_filter: None };
    (transmitter.light, transmitter.z_probability) = (Light::QuantumDot(dot), 0.8);
    transmitter.intrinsic_error = [0.05, 0.08];
    let detectors = GatedAvalanche { dark_probability: 2e-4, gate_width_ps: 9900.0, ..gated() };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors);
    link.analyser.z_probability = 0.8;
    link.arm.loss_db = 12.0;
    assert_prepared("single photons", &link, 1, 100_000, false);
}

#[test]
fn counts_of_the_t12_system_are_those_of_its_tags() {
    assert_prepared("t12", &t12(), 3, 1_000_000, true);
}

#[test]
fn counts_of_a_dot_at_120_km_are_those_of_its_tags() {
    assert_prepared("dot at 120 km", &dot_at_120_km(), 1, 10_000_000, false);
}

/// Differences of tags are multiples of 4 ps: those up to 60 ps are 31 steps, a window of 124 ps.
const LARGEST_DIFFERENCE_PS: i64 = 60;
const WINDOW_PS: f64 = 124.0;
const BLOCK_PS: u64 = 1_000_000_000;

/// Bits and errors of both bases and clicks of both ends, by tags and by counts.
fn pairs(detector: &Detector, memory: bool, what: &str) {
    let mut source = source(1e7);
    source.visibility = 0.98;
    let analyser = EnergyTimeAnalyser { crosstalk: 0.01, z_probability: 0.6, ..analyser() };
    let arms = [arm(5.0), arm(7.0)];
    let arm_pair = [&arms[0], &arms[1]];
    let mut emitter = common::emitter(&source, arm_pair, &analyser, detector, EPOCH_PS);
    let mut ends = ["a", "b"]
        .map(|end| Instrument::new(detector, &clock(), &analyser, EPOCH_PS, FRAME_PS, &subseed().derive(end)));
    ends.iter_mut().for_each(|end| end.start(0));
    let mut waiting: [Vec<Frame>; 2] = [vec![], vec![]];
    let mut blocks = vec![];
    for epoch in 0.. {
        let photons = emitter.emit(epoch, 1.0, [&STILL; 2]);
        for ((end, photons), waiting) in ends.iter_mut().zip(&photons).zip(&mut waiting) {
            end.detect(epoch, &photons.words, waiting).unwrap();
        }
        while !waiting[0].is_empty() && !waiting[1].is_empty() {
            let frames = [waiting[0].remove(0), waiting[1].remove(0)];
            let start_ps = frames[0].number * FRAME_PS;
            let [a, b] = frames.map(|frame| tags(&[frame]));
            for block in 0..FRAME_PS / BLOCK_PS {
                let from_ps = (start_ps + block * BLOCK_PS) as i64;
                let within = |clicks: &[(i64, u8)]| {
                    let place = |at_ps: i64| clicks.partition_point(|click| click.0 < at_ps);
                    place(from_ps)..place(from_ps + BLOCK_PS as i64)
                };
                let own = &a[within(&a)];
                let mut figures = vec![0.0; 6];
                for (_, pa, pb) in coincidences(own, &b, LARGEST_DIFFERENCE_PS) {
                    if pa / 2 == pb / 2 {
                        figures[2 * usize::from(pa / 2)] += 1.0;
                        figures[2 * usize::from(pa / 2) + 1] += f64::from(u8::from(pa != pb));
                    }
                }
                (figures[4], figures[5]) = (own.len() as f64, within(&b).len() as f64);
                blocks.push(figures);
            }
        }
        if blocks.len() >= BLOCKS {
            break;
        }
    }
    let inputs = from_config(&source, arm_pair, [&analyser; 2], [detector; 2], WINDOW_PS, 1.0);
    let law = Law::pairs(&predict(&inputs)).unwrap();
    let figures = |of: &Statistics| {
        let bits = [pair(of.key[0]), pair(of.check[0])].concat();
        bits.into_iter().chain(of.clicks.map(|clicks| clicks as f64)).collect()
    };
    let counts = drawn(law, BLOCK_PS, figures);
    let names =
        ["bits of Z", "errors of Z", "bits of X", "errors of X", "clicks of A", "clicks of B"].map(String::from);
    assert_alike(what, &names, &blocks[..BLOCKS], &counts, memory);
    // Clicks of both ends have the kept pairs in common.
    let covariance = |blocks: &[Block]| {
        let n = blocks.len() as f64;
        let mean = |figure: usize| blocks.iter().map(|block| block[figure]).sum::<f64>() / n;
        let (a, b) = (mean(4), mean(5));
        blocks.iter().map(|block| (block[4] - a) * (block[5] - b)).sum::<f64>() / n
    };
    println!("{what}: covariances {:.0} and {:.0}", covariance(&blocks[..BLOCKS]), covariance(&counts));
    assert!(covariance(&counts) > 0.0);
}

#[test]
fn counts_of_pairs_are_those_of_their_tags() {
    let detector = Detector { efficiency: 0.85, jitter_fwhm_ps: 50.0, dark_rate_hz: 1e4, ..detector() };
    pairs(&detector, false, "pairs");
}

#[test]
fn counts_of_pairs_remember_what_their_tags_remember() {
    let detector = Detector {
        efficiency: 0.85,
        jitter_fwhm_ps: 50.0,
        dark_rate_hz: 1e4,
        dead_time_ps: 50_000.0,
        afterpulse_probability: 0.02,
        afterpulse_decay_ps: 20_000.0,
        ..detector()
    };
    pairs(&detector, true, "pairs with memory");
}
