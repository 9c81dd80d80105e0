//! How many events of each kind a stretch of light gives.

use crate::expect::bbm92::{BasisPrediction, Prediction};
use crate::expect::prepared::Inputs;
use crate::expect::response::{CHECK, KEY};
use crate::random::Draws;

/// Most kinds of pulses: a kind takes two bits.
pub const KINDS_MAX: usize = 4;

/// Why a link cannot be run at this fidelity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LawError {
    #[error("{kinds} intensities are more than the {KINDS_MAX} that counts are kept of")]
    Kinds { kinds: usize },
    #[error("expected rates are not all numbers, or more than one event per pulse")]
    Rates,
}

/// Bits of one kind of pulses in one basis, and how many of them are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub bits: u64,
    pub errors: u64,
}

/// What a stretch of light gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pulses that were sent; 0 where pairs are.
    pub pulses: u64,
    /// Sifted bits by kind of pulse. Pairs have one kind.
    pub key: [Tally; KINDS_MAX],
    pub check: [Tally; KINDS_MAX],
    /// Events in different bases; those in both bases at one end; those that both detectors of one basis saw, which are part
    /// of the sifted or of the mismatched.
    pub mismatched: u64,
    pub crossed: u64,
    pub doubles: u64,
    /// Clicks of each end. The sum over the events of a prepared link; a pair that is kept is one at either end of many that
    /// are not.
    pub clicks: [u64; 2],
}

/// What an event may be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Sifted { basis: usize, kind: usize, wrong: bool },
    Mismatched,
    Crossed,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Events {
    /// Of each pulse with this probability.
    PerPulse { rate_hz: f64, probability: f64 },
    /// At this rate.
    PerSecond { rate_hz: f64 },
}

/// The law of the counts of a link whose set-points stand still.
///
/// **Memory.** Behind a dead time the variance of a number of clicks is its mean times the square of the live share; where
/// each click is followed by another one with probability `p`, it is `(1 + p) / (1 - p)` times the mean. So the number of
/// events is drawn with that scatter: binomial where it is smaller than that of independent events, negative binomial where
/// it is larger. What an event is, is drawn for each by itself: that a bright pulse blinds the next one, and that an
/// afterpulse has the detector of its parent, is in the means alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Law {
    events: Events,
    /// Variance over mean of the number of events, relative to that of independent ones.
    fano: f64,
    /// Kinds of events and their shares, which sum to 1.
    cells: Vec<(Cell, f64)>,
    /// Share of sifted and mismatched events that both detectors of a basis saw.
    doubles: f64,
    kinds: usize,
    /// Rate of clicks beside the events, and their variance over mean, of each end.
    singles: [(f64, f64); 2],
}

impl Law {
    /// Of pairs: what is expected of a BBM92 link.
    pub fn pairs(prediction: &Prediction) -> Result<Self, LawError> {
        let kept = |of: &BasisPrediction, basis: usize| {
            let wrong_hz = of.sifted_hz * of.qber;
            [(false, of.sifted_hz - wrong_hz), (true, wrong_hz)]
                .map(|(wrong, rate_hz)| (Cell::Sifted { basis, kind: 0, wrong }, rate_hz))
        };
        let cells = [kept(&prediction.z, KEY), kept(&prediction.x, CHECK)].concat();
        let rate_hz: f64 = cells.iter().map(|cell| cell.1).sum();
        let of_end = |end: usize| {
            let clicks_hz = prediction.end_rate_hz(end);
            let scattered: f64 = prediction.click_rate_hz[end]
                .iter()
                .zip(prediction.live_share[end])
                .map(|(click_hz, live)| click_hz * live * live)
                .sum();
            (clicks_hz, if clicks_hz > 0.0 { scattered / clicks_hz } else { 1.0 })
        };
        // A pair that is kept is a click of either end, picked out of its clicks at random: what is picked scatters by so
        // much less than independent events as its share of the clicks is large.
        let ends = [of_end(0), of_end(1)];
        let less: f64 = ends
            .iter()
            .map(|(clicks_hz, fano)| if *clicks_hz > 0.0 { rate_hz / clicks_hz * (1.0 - fano) } else { 0.0 })
            .sum();
        let fano = (1.0 - less).max(0.05);
        let singles = ends.map(|(clicks_hz, of_clicks)| {
            let rest_hz = (clicks_hz - rate_hz).max(0.0);
            let variance_hz = (of_clicks * clicks_hz - fano * rate_hz).max(0.05 * rest_hz);
            (rest_hz, if rest_hz > 0.0 { variance_hz / rest_hz } else { 1.0 })
        });
        Self { events: Events::PerSecond { rate_hz }, fano, cells, doubles: 0.0, kinds: 1, singles }.checked()
    }

    /// Of pulses: what is expected of a prepared link.
    pub fn prepared(inputs: &Inputs) -> Result<Self, LawError> {
        let response = inputs.predict();
        let kinds = response.kinds.len();
        if kinds > KINDS_MAX {
            return Err(LawError::Kinds { kinds });
        }
        let mut cells = Vec::new();
        for (kind, rates) in response.kinds.iter().enumerate() {
            for (basis, rates) in rates.iter().enumerate() {
                let wrong = rates.sifted * rates.qber;
                cells.push((Cell::Sifted { basis, kind, wrong: false }, rates.sifted - wrong));
                cells.push((Cell::Sifted { basis, kind, wrong: true }, wrong));
            }
        }
        let sum = |of: fn(&crate::expect::response::Unsifted) -> f64| response.unsifted.iter().map(of).sum::<f64>();
        let (mismatched, crossed) = (sum(|of| of.mismatched), sum(|of| of.crossed));
        let of_one_basis = cells.iter().map(|cell| cell.1).sum::<f64>() + mismatched;
        let doubles = if of_one_basis > 0.0 { sum(|of| of.doubles) / of_one_basis } else { 0.0 };
        cells.extend([(Cell::Mismatched, mismatched), (Cell::Crossed, crossed)]);
        let afterpulse = inputs.receiver().afterpulse_probability;
        let bunched = (1.0 + afterpulse) / (1.0 - afterpulse);
        let events =
            Events::PerPulse { rate_hz: inputs.pulse_rate_hz(), probability: cells.iter().map(|cell| cell.1).sum() };
        let fano = response.live_share * response.live_share * bunched;
        Self { events, fano, cells, doubles, kinds: kinds.max(1), singles: [(0.0, 1.0); 2] }.checked()
    }

    fn checked(mut self) -> Result<Self, LawError> {
        let total: f64 = self.cells.iter().map(|cell| cell.1).sum();
        let possible = match self.events {
            Events::PerPulse { rate_hz, probability } => rate_hz.is_finite() && (0.0..=1.0).contains(&probability),
            Events::PerSecond { rate_hz } => rate_hz.is_finite() && rate_hz >= 0.0,
        };
        let shares = self.cells.iter().all(|cell| cell.1.is_finite() && cell.1 >= 0.0);
        let scatter =
            self.fano.is_finite() && self.singles.iter().all(|(rate_hz, fano)| rate_hz.is_finite() && fano.is_finite());
        if !(possible && shares && scatter) {
            return Err(LawError::Rates);
        }
        if total > 0.0 {
            self.cells.iter_mut().for_each(|cell| cell.1 /= total);
        }
        Ok(self)
    }

    /// Sifted bits per second, of both bases.
    pub fn sifted_hz(&self) -> f64 {
        let events_hz = match self.events {
            Events::PerPulse { rate_hz, probability } => rate_hz * probability,
            Events::PerSecond { rate_hz } => rate_hz,
        };
        let sifted = self.cells.iter().filter(|cell| matches!(cell.0, Cell::Sifted { .. }));
        events_hz * sifted.map(|cell| cell.1).sum::<f64>()
    }

    /// Kinds of pulses.
    pub fn kinds(&self) -> usize {
        self.kinds
    }

    /// Pulses per second; nothing of pairs.
    pub fn pulse_rate_hz(&self) -> Option<f64> {
        match self.events {
            Events::PerPulse { rate_hz, .. } => Some(rate_hz),
            Events::PerSecond { .. } => None,
        }
    }

    /// What `seconds` of light give in which this many pulses are sent.
    pub fn draw(&self, seconds: f64, pulses: u64, draws: &mut Draws) -> Statistics {
        let mut left = match self.events {
            // Exact where nothing is remembered.
            Events::PerPulse { probability, .. } if libm::fabs(self.fano - 1.0) < 1e-9 => {
                draws.binomial(pulses, probability)
            }
            Events::PerPulse { probability, .. } => {
                draws.scattered(pulses as f64 * probability, self.fano * (1.0 - probability)).min(pulses)
            }
            Events::PerSecond { rate_hz } => draws.scattered(rate_hz * seconds, self.fano),
        };
        let mut statistics = Statistics { pulses, ..Statistics::default() };
        let events = left;
        let mut rest = 1.0;
        let last = self.cells.len().saturating_sub(1);
        for (place, &(cell, share)) in self.cells.iter().enumerate() {
            let count = if place == last { left } else { draws.binomial(left, (share / rest).min(1.0)) };
            left -= count;
            rest -= share;
            if rest <= 0.0 {
                rest = f64::MIN_POSITIVE;
            }
            match cell {
                Cell::Sifted { basis, kind, wrong } => {
                    let tallies = if basis == KEY { &mut statistics.key } else { &mut statistics.check };
                    tallies[kind].bits += count;
                    tallies[kind].errors += if wrong { count } else { 0 };
                }
                Cell::Mismatched => statistics.mismatched += count,
                Cell::Crossed => statistics.crossed += count,
            }
        }
        statistics.doubles = draws.binomial(events - statistics.crossed, self.doubles);
        statistics.clicks = if self.pulse_rate_hz().is_some() {
            [0, events + statistics.crossed + statistics.doubles]
        } else {
            self.singles.map(|(rate_hz, fano)| events + draws.scattered(rate_hz * seconds, fano))
        };
        statistics
    }
}
