//! The half with the detectors.

use std::collections::VecDeque;

use super::config::Prepared;
use super::detections::{self, OwnEvents};
use super::messages::{MessageError, Said};
use super::recovery::{Numbered, Recovery, RecoveryError};
use super::reply::{self, ByIntensity, Disclosure, Reply};
use super::round::OpenRound;
use super::steering::Steering;
use super::{FRAMES_WAITING_MAX, TAG};
use crate::config::{Emission, Framing};
use crate::ledger::BlockLedger;
use crate::loops::Setpoints;
use crate::sifting::entangled::recovery::LockState;
use crate::sifting::{
    Context, Event, FrameInput, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures, SiftingStart, Tag,
};

/// A frame that has been announced and not yet answered.
struct Waiting {
    step: u64,
    own: OwnEvents,
}

/// See the module above.
pub struct Receiver {
    framing: Framing,
    config: Prepared,
    emission: Emission,
    intensities: usize,
    checked: bool,
    recovery: Recovery,
    was_locked: bool,
    /// The session was said to wait for light that the next one will number.
    was_dark: bool,
    /// Steps of the frames that are not numbered yet.
    steps: VecDeque<u64>,
    frames_taken: u64,
    waiting: VecDeque<Waiting>,
    open: OpenRound,
    sifted: VecDeque<SiftedRound>,
    light_over: bool,
    last_said: bool,
    said: Said,
    steering: Steering,
    figures: SiftingFigures,
}

impl Receiver {
    pub fn new(framing: Framing, config: &Prepared, emission: &Emission, start: &SiftingStart) -> Self {
        Self {
            framing,
            config: config.clone(),
            emission: *emission,
            intensities: emission.mean_photons().len(),
            checked: false,
            recovery: Recovery::new(config, emission, framing.frame_ps),
            was_locked: false,
            was_dark: false,
            steps: VecDeque::new(),
            frames_taken: 0,
            waiting: VecDeque::new(),
            open: OpenRound::default(),
            sifted: VecDeque::new(),
            light_over: false,
            last_said: false,
            said: Said::default(),
            steering: Steering::new(framing, config, start.latency_steps, &start.setpoints),
            figures: SiftingFigures::default(),
        }
    }

    fn announce(&mut self, numbered: &Numbered, context: &mut Context<'_>) -> Result<(), SiftingError> {
        if self.waiting.len() >= FRAMES_WAITING_MAX {
            return Err(SiftingError::Protocol("announced frames are not answered"));
        }
        let step = self.steps.pop_front().unwrap_or(context.step);
        let (announcement, own) = detections::prepare(numbered, context.rng);
        if own.len() > super::announce::EVENTS_MAX {
            return Err(MessageError::TooMany { frame: own.frame, events: own.len() as u64 }.into());
        }
        self.said.announcements.push(announcement);
        self.waiting.push_back(Waiting { step, own });
        Ok(())
    }

    fn note_lock(&mut self, events: &mut Vec<Event>) {
        let status = self.recovery.status();
        let locked = status.state == LockState::Locked;
        if locked != self.was_locked {
            self.was_locked = locked;
            let (name, message) = if locked {
                ("locked", format!("pulses are numbered: frequency difference {:.2e}", status.frequency))
            } else {
                ("lock-lost", "no light at the period of the pulses, waiting for it".to_owned())
            };
            events.push(Event::Note { name, message });
        }
        if let Some(why) = self.recovery.darkness().filter(|_| !self.was_dark) {
            self.was_dark = true;
            let seen = match why {
                RecoveryError::LateLight => {
                    "clicks do not gather at the period of the pulses: no light, another repetition rate, or clocks \
                     too far apart"
                }
                _ => "no light for so long that the numbers of pulses are no longer certain",
            };
            let message = format!("{seen}; once there is light, a new session begins");
            events.push(Event::Note { name: "no-light", message });
        }
    }

    fn apply(&mut self, reply: &Reply) -> Result<(), SiftingError> {
        let Some(waiting) = self.waiting.front() else {
            return Err(SiftingError::Protocol("a reply to a frame that was never announced"));
        };
        let intensities = self.intensities;
        let (sifted, peer) = reply::apply(reply, &waiting.own, self.config.key_basis, intensities)?;
        let full = self.open.frames + 1 == self.framing.round_frames;
        let bits = self.open.key_bits() + sifted.key.len() as u64;
        let mismatched = self.open.mismatched() + sifted.basis_mismatch;
        let counts = match (&reply.end, full) {
            (Some(end), true) => Some(end.counts(self.framing.round_frames, bits, mismatched, intensities)?),
            (None, false) => None,
            _ => return Err(SiftingError::Protocol("a round ends where it is not full, or does not where it is")),
        };
        self.said.disclosures.push(Disclosure { frame: reply.frame, check_bits: sifted.check.to_bytes() });
        self.open.add(waiting.step, waiting.own.pulses, &sifted);
        self.open.book(&waiting.own.counts, &sifted);
        let tallies = reply::compare(&sifted.check, &peer, &sifted.intensities);
        // Of the brightest pulses: what comes of the dimmest is wrong wherever the instruments stand.
        self.steering.check(waiting.step, tallies[0].bits, tallies[0].errors);
        self.open.compared(&tallies);
        self.figures.sifted_key += sifted.key.len() as u64;
        self.figures.sifted_check += sifted.check.len() as u64;
        self.waiting.pop_front();
        if let Some(counts) = counts {
            self.close_round(&counts);
        }
        Ok(())
    }

    fn close_round(&mut self, counts: &ByIntensity) {
        self.open.count(counts);
        self.sifted.push_back(self.open.next().sifted(self.intensities));
    }
}

impl Sifting for Receiver {
    fn tag(&self) -> Tag {
        TAG
    }

    fn peer_light_over(&mut self) {}

    fn hear(&mut self, message: &[u8], _context: &mut Context<'_>) -> Result<(), SiftingError> {
        let Said { announcements, replies, disclosures, end_round, last } = Said::read(message)?;
        if !announcements.is_empty() || !disclosures.is_empty() || last {
            return Err(SiftingError::Protocol("an announcement from the transmitter"));
        }
        for reply in &replies {
            self.apply(reply)?;
        }
        if let Some(end) = end_round {
            if self.open.frames == 0 || !self.last_said || !self.waiting.is_empty() {
                return Err(SiftingError::Protocol("end of a round that goes on"));
            }
            let OpenRound { frames, .. } = self.open;
            let (bits, mismatched) = (self.open.key_bits(), self.open.mismatched());
            let counts = end.counts(frames, bits, mismatched, self.intensities)?;
            self.close_round(&counts);
        }
        Ok(())
    }

    fn reconciled(&mut self, reconciled: &Reconciled) {
        let Reconciled { first_step, frames, bits, qber } = *reconciled;
        self.steering.key(first_step, frames, bits, libm::round(qber * bits as f64) as u64);
    }

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        if !self.checked {
            self.config.check(self.framing.frame_ps, &self.emission)?;
            self.checked = true;
        }
        let (number, tags) = (frame.number, frame.into_tags()?);
        self.figures.clicks += tags.len() as u64;
        self.steering.clicks(context.step, tags.len() as u64);
        if self.frames_taken.is_multiple_of(self.framing.round_frames) {
            context.events.push(Event::RoundBegins { round: self.frames_taken / self.framing.round_frames });
        }
        self.frames_taken += 1;
        self.steps.push_back(context.step);
        self.recovery.push(number, tags)?;
        Ok(())
    }

    fn light_over(&mut self) {
        self.light_over = true;
        self.recovery.finish();
    }

    fn say(&mut self, context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        while let Some(numbered) = self.recovery.next_frame()? {
            self.announce(&numbered, context)?;
        }
        self.note_lock(context.events);
        if self.light_over && !self.last_said {
            self.last_said = true;
            self.said.last = true;
        }
        Ok(self.said.take())
    }

    fn next_round(&mut self) -> Option<SiftedRound> {
        self.sifted.pop_front()
    }

    fn is_over(&self) -> bool {
        self.last_said && self.waiting.is_empty() && self.open.frames == 0 && self.sifted.is_empty()
    }

    fn setpoints(&mut self, step: u64) -> Setpoints {
        self.steering.setpoints(step)
    }

    fn figures(&self) -> SiftingFigures {
        SiftingFigures { recovery: Some(self.recovery.status()), locked: self.was_locked, ..self.figures.clone() }
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        if self.open.frames == 0 { Vec::new() } else { vec![self.open.void()] }
    }
}
