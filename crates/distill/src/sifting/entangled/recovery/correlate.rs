//! Cross-correlation of two click streams over all offsets of the search range, by uniformly partitioned
//! overlap-save: both streams are cut so that no transform is longer than 2^20 and memory stays small.

use std::collections::VecDeque;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// Longest partition of lags, half a transform.
const PARTITION_MAX: usize = 1 << 19;
const PARTITION_MIN: usize = 1 << 12;

type Spectrum = Vec<Complex<f32>>;

/// Two streams of times, both in units after the same moment and sorted.
pub(super) struct Streams<'a> {
    pub own: &'a [i64],
    pub peer: &'a [i64],
    /// Length of the peer's stream.
    pub span: i64,
}

/// The search: lags up to `reach` either way in bins of `bin` units.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub reach: i64,
    pub bin: i64,
    /// Relative frequency that the peer's times are corrected by.
    pub frequency: f64,
}

/// Lag in units (own minus peer) at which most coincidences are: the largest of all bins and of all sums of two
/// neighbouring bins, the latter weighted by the root of two that their noise is larger by.
pub(super) fn strongest_lag(streams: &Streams, search: Search) -> Option<i64> {
    let (first, last) = (*streams.own.first()?, *streams.own.last()?);
    if streams.peer.is_empty() || last <= first {
        return None;
    }
    let half_lags = search.reach.div_euclid(search.bin) + 1;
    let lags = 2 * half_lags as usize + 1;
    let partition = lags.next_power_of_two().clamp(PARTITION_MIN, PARTITION_MAX);
    let mut planner = RealFftPlanner::<f32>::new();
    let forward = planner.plan_fft_forward(2 * partition);
    let mut transform = Transform::new(forward, partition);
    let parts = lags.div_ceil(partition);
    let blocks = (streams.span.div_euclid(search.bin) as usize + 1).div_ceil(partition);

    let own_mean = streams.own.len() as f32 / ((last - first).div_euclid(search.bin) + 1) as f32;
    let own_cover = first.div_euclid(search.bin)..last.div_euclid(search.bin) + 1;
    let peer_mean = streams.peer.len() as f32 / (streams.span.div_euclid(search.bin) + 1) as f32;
    let peer_cover = 0..streams.span.div_euclid(search.bin) + 1;
    let middle = streams.span / 2;
    let shifted = |t: i64| t + (search.frequency * (t - middle) as f64) as i64;

    let mut own_spectra: VecDeque<Spectrum> = VecDeque::new();
    let mut sums = vec![vec![Complex::default(); partition + 1]; parts];
    for block in 0..blocks {
        while own_spectra.len() < parts {
            let segment = (block + own_spectra.len()) as i64;
            let begin = segment * partition as i64 - half_lags;
            let bins = Bins { begin, len: 2 * partition, bin: search.bin, mean: own_mean, cover: own_cover.clone() };
            own_spectra.push_back(transform.of(&bins, streams.own, |t| t));
        }
        let begin = (block * partition) as i64;
        let bins = Bins { begin, len: partition, bin: search.bin, mean: peer_mean, cover: peer_cover.clone() };
        let peer = transform.of(&bins, streams.peer, shifted);
        for (sum, own) in sums.iter_mut().zip(&own_spectra) {
            for ((sum, own), peer) in sum.iter_mut().zip(own).zip(&peer) {
                *sum += own * peer.conj();
            }
        }
        own_spectra.pop_front();
    }
    drop(own_spectra);
    largest(planner, sums, partition, lags, half_lags, search.bin)
}

/// Transforms the summed spectra back, part by part, and finds the largest lag.
fn largest(
    mut planner: RealFftPlanner<f32>,
    sums: Vec<Spectrum>,
    partition: usize,
    lags: usize,
    half_lags: i64,
    bin: i64,
) -> Option<i64> {
    let inverse = planner.plan_fft_inverse(2 * partition);
    let mut output = inverse.make_output_vec();
    let mut scratch = inverse.make_scratch_vec();
    let mut best = (f32::NEG_INFINITY, 0i64);
    let mut before = 0.0f32;
    for (part, mut sum) in sums.into_iter().enumerate() {
        // The first and the last bin of a real signal's spectrum are real by definition.
        sum[0].im = 0.0;
        sum[partition].im = 0.0;
        inverse.process_with_scratch(&mut sum, &mut output, &mut scratch).ok()?;
        let valid = partition.min(lags - part * partition);
        for (k, value) in output[..valid].iter().enumerate() {
            // Twice the lag in bins: sums of two lie between bins.
            let lag2 = 2 * ((part * partition + k) as i64 - half_lags);
            let (single, pair) = (value * std::f32::consts::SQRT_2, value + before);
            if single > best.0 {
                best = (single, lag2);
            }
            if pair > best.0 {
                best = (pair, lag2 - 1);
            }
            before = *value;
        }
    }
    Some(best.1 * bin / 2)
}

/// A stretch of bins with the mean taken off where the stream has data.
struct Bins {
    begin: i64,
    len: usize,
    bin: i64,
    mean: f32,
    cover: std::ops::Range<i64>,
}

struct Transform {
    plan: std::sync::Arc<dyn RealToComplex<f32>>,
    input: Vec<f32>,
    scratch: Spectrum,
    partition: usize,
}

impl Transform {
    fn new(plan: std::sync::Arc<dyn RealToComplex<f32>>, partition: usize) -> Self {
        let (input, scratch) = (plan.make_input_vec(), plan.make_scratch_vec());
        Self { plan, input, scratch, partition }
    }

    fn of(&mut self, bins: &Bins, times: &[i64], shift: impl Fn(i64) -> i64) -> Spectrum {
        self.input.fill(0.0);
        let end = bins.begin + bins.len as i64;
        let covered = bins.cover.start.clamp(bins.begin, end)..bins.cover.end.clamp(bins.begin, end);
        self.input[(covered.start - bins.begin) as usize..(covered.end - bins.begin) as usize].fill(-bins.mean);
        let from = times.partition_point(|t| shift(*t).div_euclid(bins.bin) < bins.begin);
        let inverse = 1.0 / bins.bin as f64;
        let origin = bins.begin * bins.bin;
        for time in &times[from..] {
            let index = ((shift(*time) - origin) as f64 * inverse) as usize;
            if index >= bins.len {
                break;
            }
            self.input[index] += 1.0;
        }
        let mut output = vec![Complex::default(); self.partition + 1];
        // Lengths are the plan's own, so that this cannot fail.
        let done = self.plan.process_with_scratch(&mut self.input, &mut output, &mut self.scratch);
        debug_assert!(done.is_ok());
        output
    }
}
