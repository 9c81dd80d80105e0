//! Acquisition: offset and frequency of the peer's clock from two click streams alone.
//!
//! A correlation by Fourier transform proposes one lag. Everything after it counts coincidences in integers: a
//! search over offset and frequency around that lag, whose significance decides, then finer bins that tell the
//! central peak from its side peaks, then a straight line through the central peak.

use super::PS_PER_UNIT;
use super::clock::Clock;
use super::correlate::{self, Search, Streams};
use crate::sifting::tracking::Filter;

/// Bin of the correlation, 10 ns; longer only where the search range would need too many.
const CORRELATION_BIN_UNITS: i64 = 2500;
const LAGS_MAX: i64 = 1 << 21;
/// Bin of the first search over offset and frequency, 0.5 ns; three neighbours hold all three peaks.
const COARSE_BIN_UNITS: i64 = 125;
/// Bin of the second, 16 ps.
const FINE_BIN_UNITS: i64 = 4;
/// Frequency steps: drift across the window between neighbours, 0.5 ns and 30 ps.
const COARSE_STEP_UNITS: f64 = 125.0;
const FINE_STEP_UNITS: f64 = 7.5;
/// With fewer clicks than this at either end there is nothing to find.
const CLICKS_MIN: usize = 64;
/// Coincidences must exceed the accidental ones by this many of their standard deviations, and by some more
/// where there are so few that they are not Gaussian.
const COARSE_SIGMA: f64 = 8.0;
const COARSE_EXCESS: f64 = 12.0;
const FINE_SIGMA: f64 = 6.0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Largest offset either way, and distance of the side peaks, in units.
    pub reach: i64,
    pub delay: i64,
    pub frequency: f64,
    pub correlator: bool,
}

pub(super) struct Acquired {
    pub clock: Clock,
    pub filter: Filter,
    pub significance: f64,
}

/// A coincidence candidate: peer's time from the middle of the window, and own minus peer's time.
#[derive(Clone, Copy)]
struct Pair {
    time: f64,
    lag: f64,
}

/// A straight line through the candidates: lag in the middle of the window, and its slope.
#[derive(Clone, Copy)]
struct Line {
    lag: f64,
    frequency: f64,
}

impl Line {
    fn residual(&self, pair: &Pair) -> f64 {
        pair.lag - self.lag - self.frequency * pair.time
    }
}

/// Tries to acquire from one stretch of both streams; `begin` is the moment that their times count from.
/// `hypotheses` frequencies, evenly spread, are tried in the correlation.
pub(super) fn acquire(streams: &Streams, begin: u64, limits: &Limits, hypotheses: u32) -> Option<Acquired> {
    if streams.own.len().min(streams.peer.len()) < CLICKS_MIN {
        return None;
    }
    let bin = CORRELATION_BIN_UNITS.max(2 * limits.reach / LAGS_MAX + 1);
    for hypothesis in 0..hypotheses {
        let position = (2 * hypothesis + 1) as f64 / f64::from(hypotheses) - 1.0;
        let frequency = limits.frequency * position;
        let lag = if limits.correlator {
            correlate::strongest_lag(streams, Search { reach: limits.reach, bin, frequency })?
        } else {
            0
        };
        let found = refine(streams, begin, limits, lag, bin);
        if found.is_some() || !limits.correlator {
            return found;
        }
    }
    None
}

fn refine(streams: &Streams, begin: u64, limits: &Limits, lag: i64, bin: i64) -> Option<Acquired> {
    let half = 3 * bin;
    let pairs = collect(streams, lag, half);
    let density = pairs.len() as f64 / (2 * half) as f64;
    let span = streams.span as f64;
    let coarse = coarse_line(&pairs, span, half, limits)?;
    let near: Vec<Pair> = pairs
        .into_iter()
        .filter(|p| coarse.residual(p).abs() <= (2 * COARSE_BIN_UNITS + 2 * limits.delay) as f64)
        .collect();
    let fine = fine_line(&near, span, coarse, limits);
    let (line, significance, filter) = straight(&near, span, fine, density, limits, begin + (streams.span / 2) as u64)?;
    let total = lag as f64 + line.lag;
    let whole = libm::floor(total);
    let clock = Clock {
        reference: begin + (streams.span / 2) as u64,
        offset: whole as i64,
        fraction: total - whole,
        frequency: line.frequency,
    };
    Some(Acquired { clock, filter, significance })
}

/// All pairs whose difference is within `half` of `lag`.
fn collect(streams: &Streams, lag: i64, half: i64) -> Vec<Pair> {
    let middle = streams.span / 2;
    let mut pairs = Vec::new();
    let mut low = 0;
    for peer in streams.peer {
        let from = peer + lag - half;
        while streams.own.get(low).is_some_and(|own| *own < from) {
            low += 1;
        }
        for own in streams.own[low..].iter().take_while(|own| **own <= from + 2 * half) {
            pairs.push(Pair { time: (peer - middle) as f64, lag: (own - peer - lag) as f64 });
        }
    }
    pairs
}

/// Counts for every frequency and offset; the largest count wins if it is significant.
fn coarse_line(pairs: &[Pair], span: f64, half: i64, limits: &Limits) -> Option<Line> {
    let step = COARSE_STEP_UNITS / span;
    let steps = libm::ceil(1.1 * limits.frequency / step) as i64;
    let width = COARSE_BIN_UNITS as f64;
    let bins = (2 * half / COARSE_BIN_UNITS) as usize + 1;
    let mut counts = vec![0u32; bins];
    let mut best: (u32, Option<Line>) = (0, None);
    for frequency in (-steps..=steps).map(|i| i as f64 * step) {
        counts.fill(0);
        for pair in pairs {
            let position = (pair.lag - frequency * pair.time + half as f64) / width;
            if position >= 0.0 && (position as usize) < bins {
                counts[position as usize] += 1;
            }
        }
        for (first, three) in counts.windows(3).enumerate() {
            let sum = three.iter().sum();
            if sum > best.0 {
                best = (sum, Some(Line { lag: (first as f64 + 1.5) * width - half as f64, frequency }));
            }
        }
    }
    let expected = pairs.len() as f64 * 3.0 * width / (2 * half) as f64;
    let excess = f64::from(best.0) - expected;
    if excess > COARSE_SIGMA * expected.sqrt() + COARSE_EXCESS { best.1 } else { None }
}

/// Finer bins and steps: the position that looks most like a peak with one of half its height on either side.
fn fine_line(pairs: &[Pair], span: f64, coarse: Line, limits: &Limits) -> Line {
    let step = FINE_STEP_UNITS / span;
    let steps = libm::ceil(1.2 * COARSE_STEP_UNITS / FINE_STEP_UNITS) as i64;
    let half = 2 * COARSE_BIN_UNITS + 2 * limits.delay;
    let width = FINE_BIN_UNITS as f64;
    let bins = (2 * half / FINE_BIN_UNITS) as usize + 1;
    let side = (limits.delay / FINE_BIN_UNITS) as usize;
    let smooth = (limits.delay / (8 * FINE_BIN_UNITS)).max(1) as usize;
    let mut sums = vec![0u32; bins + 1];
    let mut best = (0, coarse);
    for frequency in (-steps..=steps).map(|i| coarse.frequency + i as f64 * step) {
        sums.fill(0);
        let line = Line { frequency, ..coarse };
        for pair in pairs {
            let position = (line.residual(pair) + half as f64) / width;
            if position >= 0.0 && (position as usize) < bins {
                sums[position as usize + 1] += 1;
            }
        }
        for i in 0..bins {
            sums[i + 1] += sums[i];
        }
        let around = |centre: usize| sums[centre + smooth + 1] - sums[centre - smooth];
        for centre in side + smooth..bins - side - smooth {
            let score = 2 * around(centre) + around(centre - side) + around(centre + side);
            if score > best.0 {
                let lag = coarse.lag + (centre as f64 + 0.5) * width - half as f64;
                best = (score, Line { lag, frequency });
            }
        }
    }
    best.1
}

/// Least squares through what lies within half a delay of the line, repeated until it settles.
fn straight(
    pairs: &[Pair],
    span: f64,
    start: Line,
    density: f64,
    limits: &Limits,
    reference: u64,
) -> Option<(Line, f64, Filter)> {
    let half = limits.delay as f64 / 2.0;
    let mut line = start;
    let (mut count, mut variance) = (0.0, half * half);
    for _ in 0..12 {
        let (mut n, mut x, mut r, mut xx, mut xr, mut rr) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for pair in pairs {
            let residual = line.residual(pair);
            if residual.abs() > half {
                continue;
            }
            let time = pair.time / span;
            n += 1.0;
            x += time;
            r += residual;
            xx += time * time;
            xr += time * residual;
            rr += residual * residual;
        }
        let determinant = n * xx - x * x;
        if n < 8.0 || determinant <= 0.0 {
            return None;
        }
        line.lag += (xx * r - x * xr) / determinant;
        line.frequency += (n * xr - x * r) / determinant / span;
        (count, variance) = (n, rr / n);
    }
    let inside = pairs.iter().filter(|p| line.residual(p).abs() <= half / 2.0).count() as f64;
    let expected = density * half;
    let significance = (inside - expected) / expected.max(1.0).sqrt();
    let plausible = line.frequency.abs() <= 1.2 * limits.frequency && significance > FINE_SIGMA;
    let phase = variance / count * PS_PER_UNIT * PS_PER_UNIT;
    let seconds = span * PS_PER_UNIT * 1e-12;
    let filter = Filter::new(reference, phase, 12.0 * phase / (seconds * seconds));
    plausible.then_some((line, significance, filter))
}
