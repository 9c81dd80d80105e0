//! Efficiency, failures, round trips and speed of Cascade over the error rate.
//!
//! `cargo run --release -p distill --example cascade_efficiency [frame bits] [frames per batch] [batches] [seed]`

use std::time::{Duration, Instant};

use distill::bits::Bits;
use distill::cascade::{CascadeError, Corrector, Parameters, Reference};

#[path = "../benches/common/core_time.rs"]
mod core_time;
use core_time::core_time;

/// xorshift64* (Vigna 2016): errors and frames of the trial.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn frame(&mut self, len: usize) -> Bits {
        Bits::from_words((0..len.div_ceil(64)).map(|_| self.next()).collect(), len)
    }

    /// The frame with each bit turned over with probability `qber`, and how many were.
    fn with_errors(&mut self, frame: &Bits, qber: f64) -> (Bits, usize) {
        let mut noisy = frame.clone();
        let mut errors = 0;
        for i in 0..frame.len() {
            if self.unit() < qber {
                noisy.set(i, !noisy.get(i));
                errors += 1;
            }
        }
        (noisy, errors)
    }
}

#[derive(Default)]
struct Totals {
    frames: usize,
    failures: usize,
    leaked: f64,
    ideal: f64,
    round_trips: Vec<usize>,
    /// Both machines, by the time on a core (read once a batch) and by the wall's; and the reference alone by the
    /// wall's.
    core: Duration,
    both: Duration,
    reference: Duration,
    bytes: usize,
}

fn entropy(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 { 0.0 } else { -p * p.log2() - (1.0 - p) * (1.0 - p).log2() }
}

fn batch(random: &mut Random, len: usize, count: usize, qber: f64, totals: &mut Totals) -> Result<(), CascadeError> {
    let truth: Vec<Bits> = (0..count).map(|_| random.frame(len)).collect();
    let (noisy, errors): (Vec<Bits>, Vec<usize>) = truth.iter().map(|frame| random.with_errors(frame, qber)).unzip();
    let parameters = Parameters { qber, seed: random.next() };
    let theirs = truth.clone();

    let start = Instant::now();
    let begin = core_time(start);
    let mut reference = Reference::new(theirs, &parameters);
    totals.reference += start.elapsed();
    let mut corrector = Corrector::new(noisy, &parameters);
    let mut query = Some(corrector.start());
    let mut round_trips = 0;
    while let Some(question) = query {
        round_trips += 1;
        totals.bytes += question.as_bytes().len();
        let asked = Instant::now();
        let answer = reference.answer(&question)?;
        totals.reference += asked.elapsed();
        query = corrector.next(&answer)?;
    }
    totals.both += start.elapsed();
    totals.core += core_time(start) - begin;
    let frames = corrector.finish();

    assert_eq!(reference.leaked_bits(), frames.iter().map(|frame| frame.leaked_bits).collect::<Vec<_>>());
    totals.round_trips.push(round_trips);
    for ((frame, truth), errors) in frames.iter().zip(&truth).zip(errors) {
        totals.frames += 1;
        totals.failures += usize::from(!frame.bits.ct_eq(truth));
        totals.leaked += frame.leaked_bits as f64;
        totals.ideal += len as f64 * entropy(errors as f64 / len as f64);
    }
    Ok(())
}

fn main() -> Result<(), CascadeError> {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let argument = |i: usize, default: u64| arguments.get(i).copied().unwrap_or(default);
    let (len, count, batches) = (argument(0, 1 << 16) as usize, argument(1, 64) as usize, argument(2, 4) as usize);
    println!("{len} bits a frame, {count} frames a batch, {batches} batches");
    println!("   QBER       f  failed/frames  round trips mean max  query/frame bits  reference  corrector   Mbit/s");
    for qber in [0.005, 0.01, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.08, 0.11] {
        let mut random = Random(argument(3, 1) * 0x9e37_79b9_7f4a_7c15 + (qber * 1e6) as u64);
        let mut totals = Totals::default();
        for _ in 0..batches {
            batch(&mut random, len, count, qber, &mut totals)?;
        }
        let bits = (totals.frames * len) as f64;
        let trips = &totals.round_trips;
        let both = totals.core.as_secs_f64() * 1e9 / bits;
        let share = totals.reference.as_secs_f64() / totals.both.as_secs_f64();
        let (reference, corrector) = (both * share, both * (1.0 - share));
        println!(
            "{:6.2}%  {:.4}  {:6}/{:6}  {:16.1} {:3}  {:16.2}  {:6.2} ns  {:6.2} ns  {:7.1}",
            qber * 100.0,
            totals.leaked / totals.ideal,
            totals.failures,
            totals.frames,
            trips.iter().sum::<usize>() as f64 / trips.len() as f64,
            trips.iter().max().copied().unwrap_or(0),
            8.0 * totals.bytes as f64 / bits,
            reference,
            corrector,
            1e3 / (reference + corrector)
        );
    }
    Ok(())
}
