//! The half that knows what was sent.

use std::collections::VecDeque;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::announce::{Announced, Announcement, Due};
use super::config::Prepared;
use super::messages::Said;
use super::reply::{self, Disclosure, RoundEnd};
use super::round::OpenRound;
use super::{FRAMES_WAITING_MAX, TAG};
use crate::bits::Bits;
use crate::config::{Emission, Framing, INTENSITIES};
use crate::ledger::BlockLedger;
use crate::loops::Setpoints;
use crate::sifting::{
    Choice, Choices, Context, Event, FrameInput, Light, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures,
    SiftingStart, Tag,
};

/// Announced events that may wait until their pulses were sent.
const EVENTS_WAITING_MAX: usize = 1 << 22;
/// The receiver's clock may be wrong by this when it counts the pulses of a frame.
const CLOCK_ERROR_MAX: f64 = 1e-3;

/// Bits of the check basis of one frame that wait for the receiver's.
struct WaitingCheck {
    frame: u64,
    round: u64,
    own: Bits,
    intensities: Vec<u8>,
}

/// A round with all its frames, of some of which the receiver has not disclosed the check bits yet.
struct Full {
    round: OpenRound,
    check_waiting: u64,
}

/// See the module above.
pub struct Transmitter {
    framing: Framing,
    config: Prepared,
    emission: Emission,
    intensities: usize,
    checked: bool,
    choices: Option<Arc<dyn Choices>>,
    /// Pulses of the session that were sent.
    sent: u64,
    first_step: u64,
    frames_taken: u64,
    due: Due,
    announced: VecDeque<Announced>,
    events_waiting: usize,
    frames_answered: u64,
    waiting_check: VecDeque<WaitingCheck>,
    open: OpenRound,
    full: VecDeque<Full>,
    light_over: bool,
    peer_last: bool,
    said: Said,
    setpoints: Setpoints,
    figures: SiftingFigures,
}

impl Transmitter {
    pub fn new(framing: Framing, config: &Prepared, emission: &Emission, start: &SiftingStart) -> Self {
        let pulses = framing.frame_ps as f64 / config.period_ps * (1.0 + CLOCK_ERROR_MAX);
        Self {
            framing,
            config: config.clone(),
            emission: *emission,
            intensities: emission.mean_photons().len(),
            checked: false,
            choices: None,
            sent: 0,
            first_step: 0,
            frames_taken: 0,
            due: Due { frame: None, pulse: config.preamble_pulses, pulses_max: pulses as u64 + 2 },
            announced: VecDeque::new(),
            events_waiting: 0,
            frames_answered: 0,
            waiting_check: VecDeque::new(),
            open: OpenRound::new(0, emission.needs_key_errors()),
            full: VecDeque::new(),
            light_over: false,
            peer_last: false,
            said: Said::default(),
            setpoints: start.setpoints,
            figures: SiftingFigures::default(),
        }
    }

    fn take_announcement(&mut self, announcement: &Announcement) -> Result<(), SiftingError> {
        if self.peer_last {
            return Err(SiftingError::Protocol("an announcement after the last one"));
        }
        let announced = announcement.read(&self.due)?;
        self.events_waiting += announced.pulses.len();
        if self.events_waiting > EVENTS_WAITING_MAX {
            return Err(SiftingError::Protocol("announcements of pulses that were not sent yet"));
        }
        if self.announced.len() + self.waiting_check.len() >= FRAMES_WAITING_MAX {
            return Err(SiftingError::Protocol("frames that were not sent yet, or whose check bits are not disclosed"));
        }
        self.due.frame = announced.frame.checked_add(1);
        self.due.pulse = announced.end;
        self.announced.push_back(announced);
        Ok(())
    }

    /// Replies to announcements in order. Nothing is said of a pulse before it was sent: who knew its basis could
    /// measure it without a trace.
    fn answer(&mut self) -> Result<(), SiftingError> {
        while let Some(announced) = self.announced.front() {
            let sent = announced.pulses.last().is_none_or(|last| *last < self.sent);
            if !sent && !self.light_over {
                return Ok(());
            }
            let Some(announced) = self.announced.pop_front() else { return Ok(()) };
            self.events_waiting -= announced.pulses.len();
            self.reply(&announced)?;
        }
        Ok(())
    }

    fn reply(&mut self, announced: &Announced) -> Result<(), SiftingError> {
        let none = Choice { x: false, bit: false, intensity: 0 };
        let mut choices = Zeroizing::new(vec![none; announced.pulses.len()]);
        match &self.choices {
            Some(source) => source.fill(&announced.pulses, &mut choices),
            None if announced.pulses.is_empty() => {}
            None => return Err(SiftingError::Protocol("detections without any light")),
        }
        if choices.iter().any(|choice| usize::from(choice.intensity) >= self.intensities) {
            return Err(SiftingError::Light("pulses of an intensity that is not configured"));
        }
        let with_decoys = self.emission.needs_key_errors();
        let (mut reply, sifted) = reply::reply(announced, &choices, self.sent, self.config.key_basis, with_decoys);
        let step = self.first_step + self.frames_answered;
        self.frames_answered += 1;
        self.open.add(step, announced.end - announced.first, &sifted);
        self.figures.sifted_key += sifted.key.len() as u64;
        self.figures.sifted_check += sifted.check.len() as u64;
        self.waiting_check.push_back(WaitingCheck {
            frame: announced.frame,
            round: self.open.number,
            own: sifted.check,
            intensities: sifted.intensities,
        });
        if self.open.frames == self.framing.round_frames {
            reply.end = Some(self.close_round());
        }
        self.said.replies.push(reply);
        Ok(())
    }

    fn close_round(&mut self) -> RoundEnd {
        let round = self.open.next();
        let end = RoundEnd::new(round.frames, &round.counts());
        let check_waiting = self.waiting_check.iter().filter(|check| check.round == round.number).count() as u64;
        self.full.push_back(Full { round, check_waiting });
        end
    }

    fn take_disclosure(&mut self, disclosure: &Disclosure) -> Result<(), SiftingError> {
        let waiting = self.waiting_check.front();
        let waiting = waiting.ok_or(SiftingError::Protocol("check bits of a frame that was not sifted"))?;
        let peer = reply::disclosed(disclosure, waiting.frame, waiting.own.len())?;
        let tallies: [_; INTENSITIES] = reply::compare(&waiting.own, &peer, &waiting.intensities);
        match self.full.iter_mut().find(|full| full.round.number == waiting.round) {
            Some(full) => {
                full.check_waiting -= 1;
                full.round.compared(&tallies);
            }
            None => self.open.compared(&tallies),
        }
        self.waiting_check.pop_front();
        Ok(())
    }
}

impl Sifting for Transmitter {
    fn tag(&self) -> Tag {
        TAG
    }

    fn peer_light_over(&mut self) {}

    fn hear(&mut self, message: &[u8], _context: &mut Context<'_>) -> Result<(), SiftingError> {
        let Said { announcements, replies, disclosures, end_round, last } = Said::read(message)?;
        if !replies.is_empty() || end_round.is_some() {
            return Err(SiftingError::Protocol("a sifting reply from the receiver"));
        }
        announcements.iter().try_for_each(|announcement| self.take_announcement(announcement))?;
        self.peer_last |= last;
        disclosures.iter().try_for_each(|disclosure| self.take_disclosure(disclosure))
    }

    fn reconciled(&mut self, _reconciled: &Reconciled) {}

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        if !self.checked {
            self.config.check(self.framing.frame_ps, &self.emission)?;
            self.checked = true;
        }
        let Light::Pulses { choices, sent } = frame.light else {
            return Err(SiftingError::Light("time tags"));
        };
        if self.frames_taken == 0 {
            self.first_step = context.step;
        }
        if self.frames_taken.is_multiple_of(self.framing.round_frames) {
            context.events.push(Event::RoundBegins { round: self.frames_taken / self.framing.round_frames });
        }
        self.frames_taken += 1;
        (self.choices, self.sent) = (Some(choices), self.sent.max(sent));
        Ok(())
    }

    fn light_over(&mut self) {
        self.light_over = true;
    }

    fn say(&mut self, _context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        self.answer()?;
        if self.light_over && self.peer_last && self.announced.is_empty() && self.open.frames > 0 {
            self.said.end_round = Some(self.close_round());
        }
        Ok(self.said.take())
    }

    /// Only when all check bits are in, the error rates are public.
    fn next_round(&mut self) -> Option<SiftedRound> {
        self.full.front().filter(|full| full.check_waiting == 0)?;
        self.full.pop_front().map(|full| full.round.sifted(self.intensities))
    }

    fn is_over(&self) -> bool {
        self.light_over
            && self.peer_last
            && self.announced.is_empty()
            && self.waiting_check.is_empty()
            && self.open.frames == 0
            && self.full.is_empty()
    }

    fn setpoints(&mut self, _step: u64) -> Setpoints {
        self.setpoints
    }

    fn figures(&self) -> SiftingFigures {
        self.figures.clone()
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        let rounds = self.full.iter().map(|full| &full.round).chain([&self.open]);
        rounds.filter(|round| round.frames > 0).map(OpenRound::void).collect()
    }
}
