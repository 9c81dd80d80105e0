//! The source of a link: pairs of photons, their joint outcome at both analysers, and what of it survives.
//!
//! Everything that a photon can be lost to (fibre, analyser, a polarisation that has drifted, the detector's
//! efficiency) is a Poisson thinning here, where it is born. A thinned Poisson process is a Poisson process,
//! so photons whose partner is lost are drawn straight away as one process per arm, and only pairs of which
//! both survive are drawn as pairs.

mod outcomes;
mod output;

use super::gaps::GapSource;
use crate::analyser::AnalyserState;
use crate::config::{Arm, Detector, EnergyTimeAnalyser, SpdcCw, Step, epoch_start_s};
use crate::path::disturbance::level;
use crate::photons::{Arrival, Packer, Photons, time_ps};
use crate::random::{Stream, Subseed};
use kernels::exponential::{CHUNK, PHOTON_WORDS};
use outcomes::Pairs;
use output::Output;
use std::iter::Peekable;

/// A continuous-wave source of energy-time entangled pairs and the two arms it feeds.
pub struct Emitter {
    pair_rate_hz: f64,
    pump_max: f64,
    pump_steps: Vec<Step>,
    epoch_ps: u64,
    outputs: [Output; 2],
    singles: [Stream; 2],
    pairs: Pairs,
    packer: Packer,
    random: Box<[u32; PHOTON_WORDS]>,
    chunk: Box<[u32; CHUNK]>,
    next_epoch: u64,
}

impl Emitter {
    /// The detectors are here for their efficiency alone. Epochs are `epoch_ps` long.
    pub fn new(
        source: &SpdcCw,
        arms: [&Arm; 2],
        analysers: [&EnergyTimeAnalyser; 2],
        detectors: [&Detector; 2],
        epoch_ps: u64,
        subseed: &Subseed,
    ) -> Self {
        let output = |i: usize| Output::new(source, arms[i], analysers[i], detectors[i], epoch_ps, [1.0, -1.0][i]);
        Self {
            pair_rate_hz: source.pair_rate_hz.max(0.0),
            pump_max: source.pump_max.max(0.0),
            pump_steps: source.steps.clone(),
            epoch_ps,
            outputs: [output(0), output(1)],
            singles: ["singles 0", "singles 1"].map(|label| subseed.stream(label)),
            pairs: Pairs::new(source, analysers, epoch_ps, subseed),
            packer: Packer::new(),
            random: Box::new([0; PHOTON_WORDS]),
            chunk: Box::new([0; CHUNK]),
            next_epoch: 0,
        }
    }

    /// Pairs per second that are born at pump set-point `pump` in `epoch`.
    pub fn pair_rate_hz(&self, epoch: u64, pump: f64) -> f64 {
        // f64::max and f64::min let a number win over NaN: a set-point that is none gives no light.
        let power = pump.max(0.0).min(self.pump_max) * level(&self.pump_steps, self.seconds(epoch), 1.0);
        self.pair_rate_hz * power.max(0.0)
    }

    /// Gives the arms another loss than they were made with, from the next epoch on.
    pub fn set_loss_db(&mut self, loss_db: [f64; 2]) {
        self.outputs.iter_mut().zip(loss_db).for_each(|(output, loss_db)| output.fibre_mut().set_loss_db(loss_db));
    }

    /// Adds loss to the arms, from the next epoch on and instead of what was added before; infinite for a cut.
    pub fn attenuate(&mut self, loss_db: [f64; 2]) {
        self.outputs.iter_mut().zip(loss_db).for_each(|(output, loss_db)| output.fibre_mut().attenuate(loss_db));
    }

    /// The photons that reach the detectors in `epoch`, for either output.
    ///
    /// Photons on their way over the border of an epoch are kept for the next one, so epochs are asked for in
    /// order; where they are not, light restarts.
    pub fn emit(&mut self, epoch: u64, pump: f64, states: [&AnalyserState; 2]) -> [Photons; 2] {
        if epoch != self.next_epoch {
            self.outputs.iter_mut().for_each(Output::forget);
        }
        self.next_epoch = epoch.wrapping_add(1);
        let t_s = self.seconds(epoch);
        let rate_hz = self.pair_rate_hz(epoch, pump);
        for (output, state) in self.outputs.iter_mut().zip(states) {
            output.enter(t_s, state);
        }
        let survival = [0, 1].map(|i| self.outputs[i].fibre().survival());
        let phase_rad = states[0].phase_rad + states[1].phase_rad;
        self.pairs.draw(epoch, rate_hz * survival[0] * survival[1], phase_rad, &mut self.outputs);
        [0, 1].map(|i| self.pack(i, epoch, rate_hz * survival[i] * (1.0 - survival[1 - i])))
    }

    fn seconds(&self, epoch: u64) -> f64 {
        epoch_start_s(epoch, self.epoch_ps)
    }

    /// Draws the photons of an output that have lost their partners and puts the others between them.
    fn pack(&mut self, output: usize, epoch: u64, rate_hz: f64) -> Photons {
        let arm = &mut self.outputs[output];
        let (start_ps, end_ps) = arm.fibre().window_ps();
        self.packer.begin(start_ps);
        let mut pairs = arm.due().iter().copied().peekable();
        match GapSource::new(rate_hz) {
            GapSource::Dense(gaps) => {
                for index in (0..).step_by(PHOTON_WORDS) {
                    self.singles[output].fill(epoch, index, &mut self.random[..]);
                    let span = gaps.photons(arm.threshold(), &self.random, &mut self.chunk);
                    if merge(&mut self.packer, &mut self.chunk[..], span as i64, end_ps, &mut pairs) {
                        break;
                    }
                }
            }
            GapSource::Sparse { mean_ps } => {
                let mut draws = self.singles[output].draws(epoch);
                let mut time_ps = start_ps;
                loop {
                    // Saturates where the mean is infinite.
                    time_ps = time_ps.saturating_add((draws.exponential() * mean_ps + 0.5) as i64);
                    if time_ps >= end_ps {
                        break;
                    }
                    let single = arm.single(time_ps, &mut draws);
                    while let Some(pair) = pairs.next_if(|&pair| pair < single) {
                        self.packer.push(pair);
                    }
                    self.packer.push(single);
                }
            }
        }
        pairs.for_each(|pair| self.packer.push(pair));
        let packed = self.packer.finish(end_ps);
        arm.leave();
        packed
    }
}

/// Packs a chunk of singles that spans `span_ps`, and the pairs that fall into it; true where the chunk
/// reaches the epoch's end, and then without what lies beyond.
fn merge(
    packer: &mut Packer,
    chunk: &mut [u32],
    span_ps: i64,
    end_ps: i64,
    pairs: &mut Peekable<impl Iterator<Item = Arrival>>,
) -> bool {
    let delay = |word: u32| i64::from(word >> 2);
    let mut chunk_end_ps = packer.time_ps() + span_ps;
    let mut len = chunk.len();
    let last = chunk_end_ps >= end_ps;
    while chunk_end_ps >= end_ps && len > 0 {
        len -= 1;
        chunk_end_ps -= delay(chunk[len]);
    }
    let mut next = 0;
    while let Some(pair) = pairs.next_if(|&pair| time_ps(pair) < chunk_end_ps) {
        let (first, mut at_ps) = (next, packer.time_ps());
        while next < len && at_ps + delay(chunk[next]) <= time_ps(pair) {
            at_ps += delay(chunk[next]);
            next += 1;
        }
        packer.extend(&chunk[first..next], at_ps - packer.time_ps());
        packer.push(pair);
        if next < len {
            chunk[next] -= ((time_ps(pair) - at_ps) as u32) << 2;
        }
    }
    if next < len {
        packer.extend(&chunk[next..len], chunk_end_ps - packer.time_ps());
    }
    last
}
