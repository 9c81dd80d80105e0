//! Clicks folded at the period of the pulses: how strongly they gather at one phase, and at which.

use core::f64::consts::TAU;
use core::fmt;

use super::clock::{PulseClock, whole};
use crate::sifting::entangled::announce::{self, UNIT_PS};
use crate::sifting::prepared::config::Encoding;

/// A harmonic that keeps less than this of its strength gives way to the next one.
const STRENGTH_MIN: f64 = 0.7;
/// Most frequencies that are tried either way.
const HYPOTHESES_MAX: f64 = 4096.0;
/// Clicks of the first search.
const CLICKS_MAX: usize = 512;
const CLICKS_MIN: usize = 32;
/// Exponent of the chance that clicks without pulses gather as much.
pub(super) const SIGNIFICANCE_MIN: f64 = 25.0;

/// One click with a detector.
#[derive(Clone, Copy)]
pub(super) struct Click {
    pub time_ps: u64,
    pub pattern: u8,
}

impl Click {
    /// The click that a tag stands for; without a detector it is none.
    #[inline]
    pub fn of(tag: u64) -> Self {
        Self { time_ps: announce::time_units(tag) * UNIT_PS, pattern: announce::detectors(tag) }
    }
}

/// Without the detector, which is a bit of the key.
impl fmt::Debug for Click {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Click").field("time_ps", &self.time_ps).finish_non_exhaustive()
    }
}

/// Folding at a harmonic of the repetition rate: at the second one where the moments of time bins, half a period apart,
/// cancel each other in the first.
#[derive(Debug)]
pub(super) struct Fold {
    pub harmonic: u32,
    turns: Turns,
    /// Of the detectors of Z and of X: middle of the moments at which they see light, after the pulse's first moment,
    /// and -1 where these moments make the harmonic negative.
    groups: [(f64, f64); 2],
}

/// Sines and cosines: a table, and what a click is off its nearest entry by to the second order.
struct Turns(Box<[[f64; 2]; TURNS]>);

/// Entries of the table: what is left out is below 5e-9.
const TURNS: usize = 1024;

impl Turns {
    fn new() -> Self {
        let angle = |entry: usize| TAU * entry as f64 / TURNS as f64;
        Self(Box::new(core::array::from_fn(|entry| [libm::cos(angle(entry)), libm::sin(angle(entry))])))
    }

    /// Cosine and sine of this many turns, either way.
    #[inline]
    fn of(&self, turns: f64) -> [f64; 2] {
        let place = turns * TURNS as f64;
        let entry = whole(place + 0.5);
        let rest = (place - entry as f64) * (TAU / TURNS as f64);
        let [cosine, sine] = self.0[entry as usize & (TURNS - 1)];
        let less = 1.0 - 0.5 * rest * rest;
        [cosine * less - sine * rest, sine * less + cosine * rest]
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

/// Clicks gathered at a phase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathered {
    re: f64,
    im: f64,
    clicks: f64,
}

impl Fold {
    pub fn new(encoding: Encoding, period_ps: f64) -> Self {
        let Encoding::TimeBin { separation_ps } = encoding else {
            return Self { harmonic: 1, turns: Turns::new(), groups: [(0.0, 1.0); 2] };
        };
        let at = |harmonic: u32| libm::cos(0.5 * TAU * f64::from(harmonic) * separation_ps / period_ps);
        // Two equal moments make `cos(a / 2)` of a harmonic, three of which the middle is twice the others
        // `cos^2(a / 2)`.
        let harmonic = if at(1).abs() >= STRENGTH_MIN || at(1).abs() >= at(2).abs() { 1 } else { 2 };
        let sign = if at(harmonic) < 0.0 { -1.0 } else { 1.0 };
        Self { harmonic, turns: Turns::new(), groups: [(0.5 * separation_ps, sign), (separation_ps, 1.0)] }
    }

    fn group(&self, pattern: u8) -> (f64, f64) {
        self.groups[usize::from(pattern & 0b0011 == 0)]
    }

    #[inline]
    pub fn add(&self, gathered: &mut Gathered, clock: &PulseClock, click: Click) {
        let (delay_ps, sign) = self.group(click.pattern);
        let (_, late_ps) = clock.place(click.time_ps, delay_ps);
        let [cosine, sine] = self.turns.of(f64::from(self.harmonic) * late_ps / clock.period_ps);
        gathered.re += sign * cosine;
        gathered.im += sign * sine;
        gathered.clicks += 1.0;
    }

    fn gather(&self, clock: &PulseClock, clicks: &[Click]) -> Gathered {
        let mut gathered = Gathered::default();
        clicks.iter().for_each(|click| self.add(&mut gathered, clock, *click));
        gathered
    }

    /// Picoseconds of one radian.
    fn scale_ps(&self, period_ps: f64) -> f64 {
        period_ps / (TAU * f64::from(self.harmonic))
    }

    /// How late the pulses are, and the variance of that.
    pub fn late_ps(&self, gathered: &Gathered, period_ps: f64) -> (f64, f64) {
        let (scale_ps, clicks) = (self.scale_ps(period_ps), gathered.clicks.max(1.0));
        let square = (gathered.re * gathered.re + gathered.im * gathered.im) / (clicks * clicks);
        let variance = (1.0 - square).max(0.0) / (clicks * square.max(1e-9));
        (libm::atan2(gathered.im, gathered.re) * scale_ps, variance * scale_ps * scale_ps + 1.0 / clicks)
    }
}

impl Gathered {
    /// Exponentially distributed with mean 1 where there are no pulses.
    pub fn significance(&self) -> f64 {
        (self.re * self.re + self.im * self.im) / self.clicks.max(1.0)
    }

    pub fn clicks(&self) -> f64 {
        self.clicks
    }
}

/// The clock of pulses whose numbers are not known yet.
#[derive(Debug)]
pub(super) struct Acquired {
    pub clock: PulseClock,
    /// Middle of the stretch that was used, and variances of phase and frequency there, ps^2 and (ps/s)^2.
    pub middle_ps: u64,
    pub variances: [f64; 2],
    pub significance: f64,
}

/// Finds phase and period of the pulses in clicks, of which the first is at `clicks[0]`: a search over frequencies in a
/// stretch that is short enough for it, then ever longer stretches up to all of them.
pub(super) fn acquire(fold: &Fold, clicks: &[Click], period_ps: f64, frequency_max: f64) -> Option<Acquired> {
    let (begin_ps, end_ps) = (clicks.first()?.time_ps, clicks.last()?.time_ps);
    let harmonic = f64::from(fold.harmonic);
    let reach_ps = HYPOTHESES_MAX * period_ps / (4.0 * harmonic * frequency_max.max(1e-15));
    let within = |span_ps: f64| clicks.partition_point(|click| ((click.time_ps - begin_ps) as f64) <= span_ps);
    let first = &clicks[..within(reach_ps).min(CLICKS_MAX)];
    if first.len() < CLICKS_MIN {
        return None;
    }
    let mut span_ps = (first.last()?.time_ps - begin_ps) as f64;
    let frequency = strongest(fold, first, period_ps, frequency_max, span_ps);
    let mut clock =
        PulseClock { reference_ps: begin_ps, phase_ps: 0.0, number: 0, period_ps: period_ps * (1.0 + frequency) };
    let all_ps = (end_ps - begin_ps) as f64;
    loop {
        let stretch = &clicks[..within(span_ps)];
        straighten(fold, &mut clock, stretch, begin_ps, span_ps);
        if span_ps >= all_ps {
            break;
        }
        span_ps = (2.0 * span_ps).max(period_ps).min(all_ps);
    }
    let gathered = fold.gather(&clock, clicks);
    let (late_ps, variance) = fold.late_ps(&gathered, period_ps);
    clock.phase_ps += late_ps;
    let span_s = all_ps * 1e-12;
    let plausible = clock.frequency(period_ps).abs() <= 1.2 * frequency_max + 1e-12;
    let significance = gathered.significance();
    (plausible && significance >= SIGNIFICANCE_MIN).then_some(Acquired {
        clock,
        middle_ps: begin_ps + (end_ps - begin_ps) / 2,
        variances: [variance, 12.0 * variance / (span_s * span_s)],
        significance,
    })
}

/// The frequency at which clicks gather most.
fn strongest(fold: &Fold, clicks: &[Click], period_ps: f64, frequency_max: f64, span_ps: f64) -> f64 {
    let step = period_ps / (4.0 * f64::from(fold.harmonic) * span_ps.max(period_ps));
    let count = libm::ceil(frequency_max / step);
    let begin_ps = clicks.first().map_or(0, |click| click.time_ps);
    // Each click as a vector that turns by the same angle from one frequency to the next.
    let mut vectors: Vec<[f64; 4]> = clicks
        .iter()
        .map(|click| {
            let (delay_ps, sign) = fold.group(click.pattern);
            let cycles = f64::from(fold.harmonic) * ((click.time_ps - begin_ps) as f64 - delay_ps) / period_ps;
            let start = cycles * (1.0 + count * step);
            let (angle, turn) = (TAU * (start - libm::floor(start)), -TAU * cycles * step);
            [sign * libm::cos(angle), sign * libm::sin(angle), libm::cos(turn), libm::sin(turn)]
        })
        .collect();
    let (mut best, mut frequency) = (-1.0, 0.0);
    for hypothesis in 0..=(2.0 * count) as u32 {
        let (mut re, mut im) = (0.0, 0.0);
        for [x, y, cosine, sine] in &mut vectors {
            re += *x;
            im += *y;
            (*x, *y) = (*x * *cosine - *y * *sine, *x * *sine + *y * *cosine);
        }
        let strength = re * re + im * im;
        if strength > best {
            (best, frequency) = (strength, (f64::from(hypothesis) - count) * step);
        }
    }
    frequency
}

/// Makes the two halves of a stretch agree about the phase.
fn straighten(fold: &Fold, clock: &mut PulseClock, clicks: &[Click], begin_ps: u64, span_ps: f64) {
    let half = clicks.partition_point(|click| ((click.time_ps - begin_ps) as f64) < 0.5 * span_ps);
    let (early, late) = clicks.split_at(half);
    let late_ps = |clicks: &[Click]| fold.late_ps(&fold.gather(clock, clicks), clock.period_ps).0;
    let cycle_ps = clock.period_ps / f64::from(fold.harmonic);
    let apart = late_ps(late) - late_ps(early);
    let apart = apart - cycle_ps * libm::floor(apart / cycle_ps + 0.5);
    clock.period_ps *= 1.0 + apart / (0.5 * span_ps).max(clock.period_ps);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_turns_is_as_good_as_what_it_is_made_of() {
        let turns = Turns::new();
        for part in -3000..=3000 {
            let of = f64::from(part) / 1999.0;
            let [cosine, sine] = turns.of(of);
            assert!((cosine - libm::cos(TAU * of)).abs() < 5e-9 && (sine - libm::sin(TAU * of)).abs() < 5e-9, "{of}");
        }
    }
}
