//! The source of a prepared link: pulses in states that a transmitter chooses, and what of them reaches a detector.
//!
//! **The thinning is exact.** That any photon of a pulse arrives has a probability that depends on the pulse's
//! intensity and on the path. Candidates are drawn by geometric gaps at the largest of these probabilities; the choice
//! of a candidate is looked up by its number, and it is accepted with its own probability over the largest one. An
//! accepted pulse has at least one photon at a detector: their number is drawn given that, then port and time slot of
//! each by itself, because neither phase-randomised laser light nor single photons know of each other in a linear
//! analyser. So a pulse costs nothing unless it is seen, and what is seen is distributed as if every pulse had been
//! drawn. Noise has no part in it: it is the receiver's.
//!
//! Time is the transmitter's clock; the receiver's drifts against it. Without a session there is no light.

mod choices;
mod clock;
pub(crate) mod law;
mod optics;

pub use choices::{BasisChoices, Choice, ChoiceKey, Choices, INTENSITIES_MAX};
pub use clock::{EpochPulses, PulseClock};

use super::dots::{Delay, Emission};
use super::under_way::UnderWay;
use crate::analyser::AnalyserState;
use crate::config::{Arm, Basis, Encoding, Light, PreparedAnalyser, Step, Transmitter, epoch_start_s};
use crate::path::{Fibre, disturbance::level, polarisation::angles_rad};
use crate::photons::{Packer, Photons, arrival};
use crate::random::{Draws, FWHM_PER_SIGMA, Gaussian, Stream, Subseed};
use kernels::exponential::{CHUNK, Gaps, MEAN_MAX_PS};
use law::{Arriving, PhotonNumber};
use optics::Optics;
use zeroize::Zeroize;

/// Random words for a candidate: acceptance, number, way out, pulse shape, emission.
const WORDS: usize = 5;

/// Words of this many values make a probability.
const ONE: f64 = 4_294_967_296.0;

/// Candidates that are further apart than this on average are drawn one by one.
const DENSE_MEAN_MAX: f64 = (1u32 << 20) as f64;

/// The pulses of one transmitter and the arm to its receiver.
pub struct Emitter {
    transmitter: Transmitter,
    numbers: Vec<PhotonNumber>,
    delay: Delay,
    shape: Gaussian,
    slot_ps: f64,
    clock: PulseClock,
    epoch_ps: u64,
    polarisation: crate::config::Polarisation,
    fibre: Fibre,
    optics: Optics,
    power_steps: Vec<Step>,
    streams: Streams,
    session: Option<Session>,
    under_way: UnderWay,
    packer: Packer,
    batch: Batch,
    next_epoch: u64,
}

struct Streams {
    gaps: Stream,
    outcomes: Stream,
    several: Stream,
}

struct Session {
    choices: Choices,
    bases: Option<BasisChoices>,
    /// Number of pulse 0 of the session since simulated time zero.
    first_pulse: u64,
    first_epoch: u64,
}

/// Candidates that are worked on together.
struct Batch {
    random: Box<[u32; WORDS * CHUNK]>,
    gaps: Box<[u32; CHUNK]>,
    pulses: Vec<u64>,
    choices: Vec<Choice>,
    bases: Vec<Basis>,
}

/// An epoch's light, intensity by intensity.
struct Brightness {
    arriving: Vec<Arriving>,
    /// Acceptance of a candidate, out of 2^32.
    accept: Vec<u64>,
    /// One photon alone, out of 2^32.
    alone: Vec<u64>,
    largest: f64,
}

impl Brightness {
    fn new(numbers: &[PhotonNumber], survival: f64) -> Self {
        let arriving: Vec<Arriving> = numbers.iter().map(|number| number.arriving(survival)).collect();
        let largest = arriving.iter().map(|arriving| arriving.any).fold(0.0, f64::max);
        let share = |part: f64| libm::round(part * ONE) as u64;
        let accept = arriving.iter().map(|arriving| if largest > 0.0 { share(arriving.any / largest) } else { 0 });
        let alone = arriving.iter().map(|arriving| share(arriving.one));
        Self { accept: accept.collect(), alone: alone.collect(), arriving, largest }
    }
}

impl Emitter {
    /// `efficiency` is that of the receiver's detectors. Epochs are `epoch_ps` long.
    pub fn new(
        transmitter: &Transmitter,
        arm: &Arm,
        analyser: &PreparedAnalyser,
        efficiency: f64,
        epoch_ps: u64,
        subseed: &Subseed,
    ) -> Self {
        let (numbers, delay) = match &transmitter.light {
            Light::Coherent(intensities) => {
                let poisson = |mean: f64| PhotonNumber::Poisson { mean };
                let intensities = intensities.iter().take(INTENSITIES_MAX);
                (intensities.map(|intensity| poisson(intensity.mean_photons)).collect(), Delay::NONE)
            }
            Light::QuantumDot(dot) => {
                let Emission { number, delay } = Emission::of(dot);
                (vec![number], delay)
            }
        };
        let stream = |label| subseed.stream(label);
        Self {
            numbers,
            delay,
            shape: Gaussian::new(transmitter.pulse_fwhm_ps / FWHM_PER_SIGMA),
            slot_ps: if analyser.encoding == Encoding::TimeBin { analyser.bin_separation_ps } else { 0.0 },
            clock: PulseClock::new(transmitter.repetition_rate_hz, epoch_ps),
            epoch_ps,
            polarisation: arm.polarisation.clone(),
            fibre: Fibre::new(arm, efficiency, epoch_ps),
            optics: Optics::new(transmitter, analyser),
            power_steps: transmitter.steps.clone(),
            streams: Streams {
                gaps: stream("pulse gaps"),
                outcomes: stream("pulse outcomes"),
                several: stream("pulses of several photons"),
            },
            session: None,
            under_way: UnderWay::default(),
            packer: Packer::new(),
            batch: Batch {
                random: Box::new([0; WORDS * CHUNK]),
                gaps: Box::new([0; CHUNK]),
                pulses: Vec::with_capacity(CHUNK),
                choices: Vec::new(),
                bases: Vec::new(),
            },
            next_epoch: 0,
            transmitter: transmitter.clone(),
        }
    }

    /// Begins a session, whose pulse 0 is the first of `epoch`. The transmitter's key decides what is sent; that of a
    /// receiver with an active choice of basis, what is measured. Without the latter such a receiver measures Z alone.
    pub fn start(&mut self, epoch: u64, transmitter: ChoiceKey, receiver: Option<ChoiceKey>) {
        self.session = Some(Session {
            choices: Choices::new(&self.transmitter, transmitter),
            bases: receiver.map(|key| BasisChoices::new(self.optics.z_probability(), key)),
            first_pulse: self.clock.epoch(epoch).first,
            first_epoch: epoch,
        });
        self.under_way.forget();
    }

    /// Ends the session: its keys are wiped and the light goes out.
    pub fn stop(&mut self) {
        self.session = None;
        self.batch.choices.zeroize();
    }

    /// Number in the session of the first pulse of `epoch`; `None` before the session or without one.
    pub fn pulse_number(&self, epoch: u64) -> Option<u64> {
        let session = self.session.as_ref().filter(|session| epoch >= session.first_epoch)?;
        Some(self.clock.epoch(epoch).first - session.first_pulse)
    }

    /// Gives the arm another loss than it was made with, from the next epoch on.
    pub fn set_loss_db(&mut self, loss_db: f64) {
        self.fibre.set_loss_db(loss_db);
    }

    /// Adds loss to the arm, from the next epoch on and instead of what was added before; infinite for a cut.
    pub fn attenuate(&mut self, loss_db: f64) {
        self.fibre.attenuate(loss_db);
    }

    /// The photons that reach the receiver's detectors in `epoch`. `states` are those of transmitter and receiver.
    pub fn emit(&mut self, epoch: u64, states: [&AnalyserState; 2]) -> Photons {
        if epoch != self.next_epoch {
            self.under_way.forget();
        }
        self.next_epoch = epoch.wrapping_add(1);
        let t_s = epoch_start_s(epoch, self.epoch_ps);
        self.fibre.enter(t_s, states[1].polarisation_rad);
        self.optics.enter(angles_rad(&self.polarisation, t_s, states[1].polarisation_rad), states);
        if self.session.as_ref().is_some_and(|session| epoch >= session.first_epoch) {
            let power = level(&self.power_steps, t_s, 1.0);
            let brightness = Brightness::new(&self.numbers, self.fibre.survival() * power);
            self.draw(epoch, &brightness);
        }
        let (start_ps, end_ps) = self.fibre.window_ps();
        self.packer.begin(start_ps);
        // The shape of a pulse is cut off where the epoch's first light arrives.
        for &photon in self.under_way.due(end_ps) {
            self.packer.push(photon.max(arrival(start_ps, 0)));
        }
        let photons = self.packer.finish(end_ps);
        self.under_way.leave(end_ps, self.epoch_ps as i64);
        photons
    }

    /// Draws the pulses of an epoch that anything arrives of.
    fn draw(&mut self, epoch: u64, brightness: &Brightness) {
        let Some(session) = &self.session else { return };
        let pulses = self.clock.epoch(epoch);
        let base = pulses.first - session.first_pulse;
        let candidates = Candidates::new(brightness.largest);
        let mut draws = [&self.streams.gaps, &self.streams.several].map(|stream| stream.draws(epoch));
        // Before the first pulse of the epoch.
        let mut next = 0;
        for chunk in 0.. {
            let [gaps, several] = &mut draws;
            candidates.fill(&mut self.batch, &self.streams.gaps, (epoch, chunk), gaps, &mut next, pulses.count);
            self.streams.outcomes.fill(epoch, chunk * (WORDS * CHUNK) as u64, &mut self.batch.random[..]);
            let last = self.batch.pulses.len() < CHUNK;
            look_up(&mut self.batch, session, base, self.optics.is_active());
            for i in 0..self.batch.pulses.len() {
                let words: [u32; WORDS] = std::array::from_fn(|word| self.batch.random[word * CHUNK + i]);
                let choice = self.batch.choices[i];
                if u64::from(words[0]) >= brightness.accept[choice.intensity()] {
                    continue;
                }
                let birth_ps = pulses.first_ps + (self.batch.pulses[i] - base) as f64 * self.clock.period_ps();
                let outcomes = self.optics.outcomes(choice, self.batch.bases[i]);
                let number = if u64::from(words[1]) < brightness.alone[choice.intensity()] {
                    1
                } else {
                    brightness.arriving[choice.intensity()].several(several.uniform())
                };
                for photon in 0..number {
                    let words =
                        if photon == 0 { [words[2], words[3], words[4]] } else { [0; 3].map(|_| several.word()) };
                    let cell = outcomes.pick(words[0]);
                    let left_ps = birth_ps + self.delay_ps(words[2]) + f64::from(cell.slot) * self.slot_ps;
                    // To the nearest; times are not negative.
                    let arrival_ps = (self.fibre.arrival_ps(left_ps) + 0.5) as i64;
                    self.under_way.add(arrival(arrival_ps + i64::from(self.shape.pick(words[1])), cell.port));
                }
            }
            if last {
                return;
            }
        }
    }

    fn delay_ps(&self, word: u32) -> f64 {
        if self.delay.is_none() { 0.0 } else { self.delay.at((f64::from(word) + 0.5) / ONE) }
    }
}

/// Looks up what the candidates are, by their numbers in the session, and puts these in place of those in the epoch.
fn look_up(batch: &mut Batch, session: &Session, base: u64, active: bool) {
    batch.pulses.iter_mut().for_each(|pulse| *pulse += base);
    batch.choices.resize(batch.pulses.len(), Choice::new(0, Basis::Z, false));
    session.choices.fill(&batch.pulses, &mut batch.choices);
    batch.bases.clear();
    batch.bases.resize(batch.pulses.len(), Basis::Z);
    if let (true, Some(bases)) = (active, &session.bases) {
        bases.fill(&batch.pulses, &mut batch.bases);
    }
}

/// How the next candidate is found.
enum Candidates {
    None,
    Every,
    /// Exponential gaps in units of `2^-shift` pulses.
    Dense {
        gaps: Gaps,
        shift: u32,
    },
    Sparse {
        probability: f64,
    },
}

impl Candidates {
    fn new(probability: f64) -> Self {
        if probability >= 1.0 {
            return Self::Every;
        } else if probability <= 0.0 {
            return Self::None;
        }
        // The whole part of an exponential variate of this mean is the number of pulses before the next candidate.
        let mean = -1.0 / libm::log1p(-probability);
        let shift =
            if mean <= DENSE_MEAN_MAX { libm::floor(libm::log2(MEAN_MAX_PS / mean)).min(24.0) as u32 } else { 0 };
        match Gaps::new(libm::ldexp(mean, shift as i32)) {
            Some(gaps) if shift > 0 => Self::Dense { gaps, shift },
            _ => Self::Sparse { probability },
        }
    }

    /// Puts the next candidates into the batch, up to `end`: fewer than a chunk where these are all.
    fn fill(&self, batch: &mut Batch, stream: &Stream, place: (u64, u64), draws: &mut Draws, next: &mut u64, end: u64) {
        batch.pulses.clear();
        match self {
            Self::None => {}
            Self::Every => {
                batch.pulses.extend((*next..end).take(CHUNK));
                *next += batch.pulses.len() as u64;
            }
            Self::Dense { gaps, shift } => {
                let (epoch, chunk) = place;
                let random = &mut batch.random[..CHUNK];
                stream.fill(epoch, chunk * CHUNK as u64, random);
                gaps.fill(random, &mut batch.gaps[..]);
                for &gap in batch.gaps.iter() {
                    *next += u64::from(gap >> shift);
                    if *next >= end {
                        return;
                    }
                    batch.pulses.push(*next);
                    *next += 1;
                }
            }
            Self::Sparse { probability } => {
                while batch.pulses.len() < CHUNK {
                    *next = next.saturating_add(draws.trials_to_success(*probability) - 1);
                    if *next >= end {
                        return;
                    }
                    batch.pulses.push(*next);
                    *next += 1;
                }
            }
        }
    }
}
