//! A receiver: detectors, converter and clock of an end, and what they make of the photons that reach them.
//!
//! In the order in which it happens: jitter and dark counts, dead time with latching and afterpulses, the
//! delays of the electronics, the node's own clock, the converter's resolution, the cut into frames. True time
//! goes in; what comes out carries local time only.

mod arrivals;
mod clicks;
mod clock;
mod frames;
mod gated;

pub use clock::Shift;
pub use frames::Frame;

use crate::analyser::{AnalyserState, Phase};
use crate::config::{
    BasisChoice, Clock, Detector, Encoding, EnergyTimeAnalyser, Outage, PORTS, PreparedAnalyser, PreparedDetectors,
};
use crate::nature::pulses::{BasisChoices, ChoiceKey, PulseClock};
use crate::photons::{self, Arrival, PhotonsError, Survey, time_ps};
use crate::random::Subseed;
use crate::tag::{END_PS, UNIT_PS};
use arrivals::{Arrivals, CHUNK};
use clicks::{Clicks, EVERY_PORT, TIME_BIN_PORTS};
use clock::{LocalClock, Segment};
use frames::Framer;
use gated::{Gated, Gates};

/// Longest delay of an arm that photons may come with: a satellite in a high orbit fits, nonsense does not.
const DELAY_MAX_PS: i64 = 1_000_000_000_000;

/// Where a module has set the actuators that act on the light.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Controls {
    /// Piezo of the interferometer.
    pub phase_rad: f64,
    /// Polarisation controller.
    pub polarisation_rad: [f64; 2],
}

/// Why photons were refused. The instrument is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstrumentError {
    #[error("photons of epoch {epoch} before the instrument was started")]
    NotStarted { epoch: u64 },
    #[error("photons of epoch {epoch} where those of epoch {expected} are due")]
    WrongEpoch { epoch: u64, expected: u64 },
    #[error("epoch {epoch} is beyond the range of the clock")]
    EpochOutOfRange { epoch: u64 },
    #[error("in epoch {epoch} the local time comes to the end of a time tag, 2^54 units of 4 ps: 20 hours")]
    TagsEnd { epoch: u64 },
    #[error(transparent)]
    Photons(#[from] PhotonsError),
}

/// Detectors, converter, clock and interferometer of one end of a link.
pub struct Instrument {
    epoch_ps: i64,
    arrivals: Arrivals,
    front: Front,
    z_probability: f64,
    clock: LocalClock,
    phase: Phase,
    framer: Framer,
    run: Option<Run>,
    survey: Survey,
    outages: Vec<Outage>,
    /// The detectors are out in the epoch under way.
    out: bool,
}

/// How the detectors make clicks of events.
enum Front {
    FreeRunning(Box<Clicks>),
    Gated(Box<Gated>),
}

impl Front {
    fn rest(&mut self) {
        match self {
            Self::FreeRunning(clicks) => clicks.rest(),
            Self::Gated(gated) => gated.rest(),
        }
    }

    /// Begins an epoch whose first light arrives at `light_ps.0` and that of the next one at `light_ps.1`; noise is
    /// drawn in `[from_ps, to_ps)`.
    fn enter(&mut self, epoch: u64, light_ps: (i64, i64), from_ps: i64, to_ps: i64) {
        match self {
            Self::FreeRunning(clicks) => clicks.enter(epoch, from_ps, to_ps),
            Self::Gated(gated) => gated.enter(epoch, light_ps, from_ps, to_ps),
        }
    }

    fn run(&mut self, events: &[Arrival], limit_ps: i64) -> &[Arrival] {
        match self {
            Self::FreeRunning(clicks) => clicks.run(events, limit_ps),
            Self::Gated(gated) => gated.run(events, limit_ps),
        }
    }

    fn leave(&mut self, epoch_ps: i64) {
        match self {
            Self::FreeRunning(clicks) => clicks.leave(epoch_ps),
            Self::Gated(gated) => gated.leave(epoch_ps),
        }
    }
}

/// Where a session is. Times are relative to the start of the epoch that is due.
struct Run {
    epoch: u64,
    segment: Segment,
    /// Where the photons that came ended; `None` before the first.
    reached_ps: Option<i64>,
    /// Up to where clicks are final.
    settled_ps: i64,
}

impl Instrument {
    pub fn new(
        detector: &Detector,
        clock: &Clock,
        analyser: &EnergyTimeAnalyser,
        epoch_ps: u64,
        frame_ps: u64,
        subseed: &Subseed,
    ) -> Self {
        Self {
            epoch_ps: epoch_ps as i64,
            arrivals: Arrivals::new(detector.jitter_fwhm_ps, &detector.skew_ps, subseed),
            front: Front::FreeRunning(Box::new(Clicks::new(detector, EVERY_PORT, subseed))),
            z_probability: analyser.z_probability,
            clock: LocalClock::new(clock, epoch_ps, subseed),
            phase: Phase::new(&analyser.phase(), epoch_ps, subseed),
            framer: Framer::new(detector.tdc_resolution_ps, frame_ps),
            run: None,
            survey: Survey::default(),
            outages: Vec::new(),
            out: false,
        }
    }

    /// The receiver of a prepared link whose pulses come at `repetition_rate_hz`.
    ///
    /// Free-running detectors behind an active choice of basis read their clicks pulse by pulse, so that a click has
    /// the basis of its pulse: they are simulated as gates that are always open.
    pub fn pulsed(
        detectors: &PreparedDetectors,
        clock: &Clock,
        analyser: &PreparedAnalyser,
        repetition_rate_hz: f64,
        epoch_ps: u64,
        frame_ps: u64,
        subseed: &Subseed,
    ) -> Self {
        let pulses = PulseClock::new(repetition_rate_hz, epoch_ps);
        let ports = if analyser.encoding == Encoding::TimeBin { TIME_BIN_PORTS } else { EVERY_PORT };
        let shared = analyser.basis_choice == BasisChoice::Active && analyser.encoding != Encoding::TimeBin;
        let gated = |gates: Gates, jitter_fwhm_ps: f64| {
            // Skew comes after the gate.
            let arrivals = Arrivals::new(jitter_fwhm_ps, &[0.0; PORTS], subseed);
            let gated = Gated::new(&gates, analyser, pulses, epoch_ps, subseed);
            (arrivals, Front::Gated(Box::new(gated)))
        };
        let (arrivals, front) = match detectors {
            PreparedDetectors::GatedAvalanche(detector) => gated(Gates::from(detector), detector.jitter_fwhm_ps),
            PreparedDetectors::FreeRunning(detector) if shared => {
                gated(Gates::always_open(detector, pulses.period_ps()), detector.jitter_fwhm_ps)
            }
            PreparedDetectors::FreeRunning(detector) => (
                Arrivals::new(detector.jitter_fwhm_ps, &detector.skew_ps, subseed),
                Front::FreeRunning(Box::new(Clicks::new(detector, ports, subseed))),
            ),
        };
        let resolution_ps = match detectors {
            PreparedDetectors::GatedAvalanche(detector) => detector.tdc_resolution_ps,
            PreparedDetectors::FreeRunning(detector) => detector.tdc_resolution_ps,
        };
        Self {
            epoch_ps: epoch_ps as i64,
            arrivals,
            front,
            z_probability: analyser.z_probability,
            clock: LocalClock::new(clock, epoch_ps, subseed),
            phase: Phase::new(&analyser.phase, epoch_ps, subseed),
            framer: Framer::new(resolution_ps, frame_ps),
            run: None,
            survey: Survey::default(),
            outages: Vec::new(),
            out: false,
        }
    }

    /// For a receiver with an active choice: its own basis of each pulse of the session that begins at `epoch`. The
    /// source gets the same key ([`crate::nature::pulses::Emitter::start`]), nobody else does. Call it before
    /// [`Self::start`].
    pub fn choose_bases(&mut self, epoch: u64, key: Option<ChoiceKey>) {
        if let Front::Gated(gated) = &mut self.front {
            gated.choose_bases(epoch, key.map(|key| BasisChoices::new(self.z_probability, key)));
        }
    }

    /// When the detectors are too warm to click, or off. All else goes on: with and without outages the clicks of every
    /// other epoch are the same, but for what a dead time or an afterpulse carries over.
    pub fn with_outages(mut self, outages: &[Outage]) -> Self {
        outages.clone_into(&mut self.outages);
        self
    }

    /// Sets the clock wrong for some epochs to come. Those of the last call that are not named again are over.
    pub fn shift_clock(&mut self, shifts: &[Shift]) {
        self.clock.shift(shifts);
    }

    /// What the light meets in `epoch` when the actuators are set to `controls`.
    pub fn analyser_state(&mut self, epoch: u64, controls: &Controls) -> AnalyserState {
        AnalyserState {
            phase_rad: self.phase.at(epoch.min(self.clock.last_epoch())) + controls.phase_rad,
            polarisation_rad: controls.polarisation_rad,
        }
    }

    /// Begins a session: photons will come from `epoch` on.
    ///
    /// The clock and the interferometer go on as if they had run since epoch 0, in this process or another.
    pub fn start(&mut self, epoch: u64) {
        self.arrivals.rest();
        self.front.rest();
        self.framer.reset();
        // Beyond the clock's range the photons are going to be refused.
        let segment = self.clock.segment(epoch.min(self.clock.last_epoch()));
        self.run = Some(Run { epoch, segment, reached_ps: None, settled_ps: 0 });
    }

    /// Detects the photons of `epoch`, one epoch after the other, and appends the frames that are complete.
    ///
    /// # Errors
    /// If the photons are not those of the epoch that is due, or make no sense.
    pub fn detect(&mut self, epoch: u64, photons: &[u8], out: &mut Vec<Frame>) -> Result<(), InstrumentError> {
        let Some(mut run) = self.run.take() else { return Err(InstrumentError::NotStarted { epoch }) };
        let result = self.advance(&mut run, epoch, photons, out);
        self.run = Some(run);
        result
    }

    /// Ends the session; what is left of the last frame, which is not complete.
    pub fn finish(&mut self) -> Option<Frame> {
        let mut run = self.run.take()?;
        // Dark counts and afterpulses that later light would have come with are left out.
        let light_ps = run.reached_ps?;
        let end_ps = run.settled_ps.max(light_ps + self.arrivals.latest_ps());
        self.front.enter(run.epoch, (light_ps, light_ps + self.epoch_ps), end_ps, end_ps);
        self.settle(&mut run, end_ps, &mut Vec::new());
        self.framer.finish()
    }

    /// Gives back the memory of a frame that is done with.
    pub fn recycle(&mut self, frame: Frame) {
        self.framer.recycle(frame.tags);
    }

    fn advance(
        &mut self,
        run: &mut Run,
        epoch: u64,
        photons: &[u8],
        out: &mut Vec<Frame>,
    ) -> Result<(), InstrumentError> {
        if epoch != run.epoch {
            return Err(InstrumentError::WrongEpoch { epoch, expected: run.epoch });
        }
        if epoch > self.clock.last_epoch() {
            return Err(InstrumentError::EpochOutOfRange { epoch });
        }
        if run.segment.line(epoch).units(DELAY_MAX_PS) >= END_PS / UNIT_PS {
            return Err(InstrumentError::TagsEnd { epoch });
        }
        let words = photons::words(photons)?;
        let survey = std::mem::take(&mut self.survey).again(words)?;
        let Survey { start_ps, end_ps, .. } = survey;
        let (min_ps, max_ps) = (self.epoch_ps, self.epoch_ps + DELAY_MAX_PS);
        if !(min_ps..=max_ps).contains(&end_ps) {
            return Err(PhotonsError::Span { end_ps, min_ps, max_ps }.into());
        }
        match run.reached_ps {
            Some(previous_ps) if start_ps < previous_ps => {
                return Err(PhotonsError::Overlap { start_ps, previous_ps }.into());
            }
            Some(_) => {}
            None => self.begin(run, end_ps - self.epoch_ps),
        }

        let limit_ps = self.arrivals.settled_ps(end_ps).max(run.settled_ps);
        let light_ps = (run.reached_ps.unwrap_or(end_ps - self.epoch_ps), end_ps);
        self.front.enter(epoch, light_ps, run.settled_ps, limit_ps);
        self.out = self.outages.iter().any(|outage| outage.is_in(epoch));
        // Random words are drawn in whole chunks, whatever lapses there are.
        let mut drawn = 0;
        let mut place = 0;
        for &(lapse, length_ps) in &survey.lapses {
            for photons in words[place..lapse].chunks(CHUNK) {
                self.arrivals.add(epoch, drawn, photons);
                self.settle(run, self.arrivals.settled_ps(self.arrivals.at_ps()), out);
                drawn += CHUNK;
            }
            self.arrivals.lapse(length_ps);
            place = lapse + 2;
        }
        self.settle(run, limit_ps, out);
        self.survey = survey;
        self.arrivals.leave(self.epoch_ps);
        self.front.leave(self.epoch_ps);
        run.settled_ps -= self.epoch_ps;
        run.reached_ps = Some(end_ps - self.epoch_ps);
        run.epoch += 1;
        Ok(())
    }

    /// Begins with light that comes from `start_ps` on.
    fn begin(&mut self, run: &mut Run, start_ps: i64) {
        run.settled_ps = start_ps;
        let whole_ps = start_ps + self.arrivals.latest_ps();
        self.follow_clock(run, whole_ps);
        self.framer.begin(run.segment.line(run.epoch).units(whole_ps));
    }

    /// Makes everything before `limit_ps` final.
    fn settle(&mut self, run: &mut Run, limit_ps: i64, out: &mut Vec<Frame>) {
        if limit_ps <= run.settled_ps {
            return;
        }
        let events = self.arrivals.settled(limit_ps);
        let used = events.len();
        let mut clicks = self.front.run(events, limit_ps);
        if self.out {
            clicks = &[];
        }
        // Along the straight pieces of the clock.
        loop {
            let end_ps = run.segment.end_ps(run.epoch);
            let here = if limit_ps <= end_ps {
                clicks.len()
            } else {
                clicks.partition_point(|&click| time_ps(click) < end_ps)
            };
            let line = run.segment.line(run.epoch);
            self.framer.add(&clicks[..here], line, out);
            clicks = &clicks[here..];
            if limit_ps < end_ps {
                self.framer.complete(line.units(limit_ps), out);
                break;
            }
            run.segment = self.clock.segment(run.segment.epoch() + 1);
            let before = line.units(end_ps);
            // Straight pieces that were rounded may miss each other by a unit.
            if run.segment.line(run.epoch).units(end_ps) + 2 < before {
                self.framer.set_back(before);
            }
        }
        self.arrivals.forget(used);
        run.settled_ps = limit_ps;
    }

    /// Goes on to the piece of the clock that `at_ps` is in.
    fn follow_clock(&mut self, run: &mut Run, at_ps: i64) {
        while run.segment.end_ps(run.epoch) <= at_ps {
            run.segment = self.clock.segment(run.segment.epoch() + 1);
        }
    }
}
