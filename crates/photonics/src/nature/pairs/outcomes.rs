//! Pairs of which both photons survive, and their joint outcome.
//!
//! A continuous-wave pair has no time of its own, so each photon takes the short or the long way by chance.
//! Read inside the outputs (basis Z) the way is the bit. After recombination (basis X) the ways short-short and
//! long-long of two photons cannot be told apart and interfere: the ports are equal with probability
//! `(1 + V cos(phase_a + phase_b)) / 2`. In every other case the ports are independent.

use super::output::Output;
use crate::config::{EnergyTimeAnalyser, SpdcCw};
use crate::nature::gaps::GapSource;
use crate::photons::arrival;
use crate::random::{Draws, Gaussian, Stream, Subseed};
use kernels::exponential::{CHUNK, Gaps};

/// Random words for the outcome of one pair: two for each photon, detuning, interference.
const WORDS: usize = 6;

/// Table units per standard deviation of the detuning.
const DETUNING_UNITS: f64 = 512.0;

pub(super) struct Pairs {
    births: Stream,
    outcomes: Stream,
    analysers: [Analyser; 2],
    visibility: f64,
    detuning: Gaussian,
    epoch_ps: i64,
    random: Box<[u32; WORDS * CHUNK]>,
    gaps: Box<[u32; CHUNK]>,
    births_ps: Vec<i64>,
}

/// Probabilities as thresholds of a random word.
struct Analyser {
    delay_ps: f64,
    z: u64,
    crosstalk: u64,
}

fn threshold(probability: f64) -> u64 {
    libm::round(probability * 4_294_967_296.0) as u64
}

fn below(word: u32, threshold: u64) -> bool {
    u64::from(word) < threshold
}

impl Pairs {
    pub(super) fn new(source: &SpdcCw, analysers: [&EnergyTimeAnalyser; 2], epoch_ps: u64, subseed: &Subseed) -> Self {
        Self {
            births: subseed.stream("pair births"),
            outcomes: subseed.stream("pair outcomes"),
            visibility: source.visibility * analysers[0].visibility * analysers[1].visibility,
            analysers: analysers.map(|analyser| Analyser {
                delay_ps: analyser.delay_ps,
                z: threshold(analyser.z_probability),
                crosstalk: threshold(analyser.crosstalk),
            }),
            detuning: Gaussian::new(DETUNING_UNITS),
            epoch_ps: epoch_ps as i64,
            random: Box::new([0; WORDS * CHUNK]),
            gaps: Box::new([0; CHUNK]),
            births_ps: Vec::with_capacity(CHUNK),
        }
    }

    /// Draws the pairs of an epoch and gives each arm its photons.
    ///
    /// Dispersion brings some photons forward. Births are therefore counted from a little after the epoch's
    /// start to as much after its end, so that none arrives before the epoch that it is drawn in.
    pub(super) fn draw(&mut self, epoch: u64, rate_hz: f64, phase_rad: f64, outputs: &mut [Output; 2]) {
        let same_port = threshold(0.5 * (1.0 + self.visibility * libm::cos(phase_rad)));
        let advance_ps = self.advance_ps(outputs);
        let end_ps = self.epoch_ps + advance_ps;
        let mut birth_ps = advance_ps;
        let mut draws = self.births.draws(epoch);
        let source = GapSource::new(rate_hz);
        for chunk in 0.. {
            match &source {
                GapSource::Dense(gaps) => self.dense_births(gaps, epoch, chunk, &mut birth_ps),
                GapSource::Sparse { mean_ps } => self.sparse_births(*mean_ps, &mut draws, &mut birth_ps, end_ps),
            }
            self.outcomes.fill(epoch, chunk * (WORDS * CHUNK) as u64, &mut self.random[..]);
            let due = self.births_ps.partition_point(|&birth_ps| birth_ps < end_ps);
            for (i, &birth_ps) in self.births_ps[..due].iter().enumerate() {
                let words = std::array::from_fn(|word| self.random[word * CHUNK + i]);
                self.outcome(birth_ps, words, same_port, outputs);
            }
            if due < self.births_ps.len() {
                return;
            }
        }
    }

    /// The next births after `birth_ps` of a process that is frequent.
    fn dense_births(&mut self, gaps: &Gaps, epoch: u64, chunk: u64, birth_ps: &mut i64) {
        let random = &mut self.random[..CHUNK];
        self.births.fill(epoch, chunk * CHUNK as u64, random);
        gaps.fill(random, &mut self.gaps[..]);
        self.births_ps.clear();
        self.births_ps.extend(self.gaps.iter().map(|&gap| {
            *birth_ps += i64::from(gap);
            *birth_ps
        }));
    }

    /// The next births after `birth_ps` of a process that is rare, ending with the first beyond `end_ps`.
    fn sparse_births(&mut self, mean_ps: f64, draws: &mut Draws, birth_ps: &mut i64, end_ps: i64) {
        self.births_ps.clear();
        while *birth_ps < end_ps && self.births_ps.len() < CHUNK {
            // Saturates where the mean is infinite.
            *birth_ps = birth_ps.saturating_add((draws.exponential() * mean_ps + 0.5) as i64);
            self.births_ps.push(*birth_ps);
        }
    }

    /// No photon arrives earlier than this before its dispersion-free time.
    fn advance_ps(&self, outputs: &[Output; 2]) -> i64 {
        let reach = f64::from(self.detuning.reach()) / DETUNING_UNITS;
        let widest = outputs.iter().map(|output| libm::fabs(output.dispersion_ps())).fold(0.0, f64::max);
        libm::ceil(widest * reach) as i64 + 2
    }

    #[inline]
    fn outcome(&self, birth_ps: i64, words: [u32; WORDS], same_port: u64, outputs: &mut [Output; 2]) {
        let [choice_a, choice_b, crosstalk_a, crosstalk_b, detuning, interference] = words;
        let choices = [choice_a, choice_b];
        // The low bits of a choice are the way and the port; the rest decides the basis.
        let ways = choices.map(|choice| choice & 1);
        let in_z = [0, 1].map(|i| below(choices[i], self.analysers[i].z));
        let mut bits = choices.map(|choice| choice >> 1 & 1);
        if !in_z[0] && !in_z[1] && ways[0] == ways[1] {
            bits[1] = bits[0] ^ u32::from(!below(interference, same_port));
        }
        let detuning = f64::from(self.detuning.pick(detuning)) / DETUNING_UNITS;
        for (i, crosstalk) in [crosstalk_a, crosstalk_b].into_iter().enumerate() {
            let analyser = &self.analysers[i];
            let port = if in_z[i] { ways[i] ^ u32::from(below(crosstalk, analyser.crosstalk)) } else { 2 | bits[i] };
            let at_ps = outputs[i].arrival_ps(birth_ps as f64, detuning) + f64::from(ways[i]) * analyser.delay_ps;
            outputs[i].add(arrival((at_ps + 0.5) as i64, port));
        }
    }
}
