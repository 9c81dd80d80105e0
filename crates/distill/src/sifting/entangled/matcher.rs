//! The half that recovers the peer's clock and finds coincidences.

use std::collections::VecDeque;

use super::TAG;
use super::announce::Announcement;
use super::messages::Said;
use super::recovery::{FrameResult, LockState, Recovery};
use super::reply::{self, XReply};
use super::round::OpenRound;
use crate::bits::Bits;
use crate::config::{Entangled, Framing};
use crate::ledger::BlockLedger;
use crate::loops::{PhaseLoop, PolarisationLoop, PumpLoop, Setpoints};
use crate::sifting::{
    Context, Event, FrameInput, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures, SiftingStart, Tag,
};

/// How long the phase is dithered one way.
const PHASE_HALF_PERIOD_S: f64 = 0.5;

/// X bits of one frame that wait for the announcer's.
struct WaitingX {
    frame: u64,
    round: u64,
    /// Step in which its light came, to within one: frames of both ends start together.
    step: u64,
    own: Bits,
}

/// A round with all its frames, of some of which the announcer has not sent the X bits yet.
struct Full {
    round: OpenRound,
    x_waiting: u64,
}

/// See the module above.
pub struct Matcher {
    round_frames: u64,
    recovery: Recovery,
    was_locked: bool,
    first_frame: Option<u64>,
    /// Announced frames that have no result yet.
    unanswered: VecDeque<u64>,
    waiting_x: VecDeque<WaitingX>,
    open: OpenRound,
    full: VecDeque<Full>,
    light_over: bool,
    peer_light_over: bool,
    said: Said,
    polarisation: PolarisationLoop,
    phase: PhaseLoop,
    pump: PumpLoop,
    figures: SiftingFigures,
}

impl Matcher {
    pub fn new(framing: Framing, config: &Entangled, start: &SiftingStart) -> Self {
        let (loops, latency, setpoints) = (&config.loops, start.latency_steps, start.setpoints);
        Self {
            round_frames: framing.round_frames,
            recovery: Recovery::new(framing, config),
            was_locked: false,
            first_frame: None,
            unanswered: VecDeque::new(),
            waiting_x: VecDeque::new(),
            open: OpenRound::default(),
            full: VecDeque::new(),
            light_over: false,
            peer_light_over: false,
            said: Said::default(),
            polarisation: PolarisationLoop::new(
                loops.polarisation,
                framing.frame_ps,
                latency,
                setpoints.polarisation_rad,
            ),
            phase: PhaseLoop::new(
                loops.phase,
                loops.phase_dither_rad,
                PHASE_HALF_PERIOD_S,
                framing.frame_ps,
                latency,
                setpoints.phase_rad,
            ),
            pump: PumpLoop::new(loops, latency, setpoints.pump),
            figures: SiftingFigures::default(),
        }
    }

    fn take_announcement(&mut self, announcement: &Announcement, events: &mut Vec<Event>) -> Result<(), SiftingError> {
        if self.peer_light_over {
            return Err(SiftingError::Protocol("an announcement after the last one"));
        }
        self.recovery.push_peer(announcement)?;
        let ahead = self.open.frames + self.unanswered.len() as u64;
        if ahead.is_multiple_of(self.round_frames) {
            events.push(Event::RoundBegins { round: self.open.number + ahead / self.round_frames });
        }
        self.unanswered.push_back(announcement.frame);
        Ok(())
    }

    /// Replies to every announced frame that the recovered clock can judge, in order.
    fn answer_announcements(&mut self, events: &mut Vec<Event>) -> Result<(), SiftingError> {
        while let Some(result) = self.recovery.next_result() {
            self.take_result(&result)?;
        }
        let status = self.recovery.status();
        let locked = status.state == LockState::Locked;
        if locked != self.was_locked {
            self.was_locked = locked;
            let (name, message) = if locked {
                ("locked", format!("clock recovered: offset {:.0} ps", status.offset_ps))
            } else {
                ("lock-lost", "the coincidence peak is gone, acquiring again".to_owned())
            };
            events.push(Event::Note { name, message });
        }
        Ok(())
    }

    fn take_result(&mut self, result: &FrameResult) -> Result<(), SiftingError> {
        if self.unanswered.pop_front() != Some(result.frame) {
            return Err(SiftingError::Protocol("a result for a frame that was not announced"));
        }
        let sifted = reply::reply(result, &mut self.open.z);
        self.open.book_matched(&result.counts);
        self.figures.sifted_key += result.counts.kept_z;
        self.figures.sifted_check += result.counts.kept_x;
        let first = *self.first_frame.get_or_insert(result.frame);
        let step = result.frame.saturating_sub(first);
        if self.open.frames == 0 {
            self.open.first_step = step;
        }
        self.waiting_x.push_back(WaitingX { frame: result.frame, round: self.open.number, step, own: sifted.own_x });
        self.said.replies.push(sifted.reply);
        self.open.frames += 1;
        if self.open.frames == self.round_frames {
            self.close_round();
        }
        Ok(())
    }

    fn close_round(&mut self) {
        let round = self.open.next();
        let x_waiting = self.waiting_x.iter().filter(|x| x.round == round.number).count() as u64;
        self.full.push_back(Full { round, x_waiting });
    }

    /// With no light left on either side, what is in the open round becomes the last, shorter one.
    fn end_last_round(&mut self) {
        if self.light_over && self.peer_light_over && self.unanswered.is_empty() && self.open.frames > 0 {
            self.said.end_round = Some(self.open.frames);
            self.close_round();
        }
    }

    fn take_x(&mut self, reply: &XReply) -> Result<(), SiftingError> {
        let waiting =
            self.waiting_x.pop_front().ok_or(SiftingError::Protocol("X bits of a frame that was not sifted"))?;
        if waiting.frame != reply.frame {
            return Err(SiftingError::Protocol("X bits out of order"));
        }
        let peer = reply::x_bits(reply, waiting.own.len())?;
        let full = self.full.iter_mut().find(|full| full.round.number == waiting.round);
        let round = match full {
            Some(full) => {
                full.x_waiting -= 1;
                &mut full.round
            }
            None => &mut self.open,
        };
        let (total, errors) = round.compare(&waiting.own, &peer);
        self.phase.observe(waiting.step, total, errors);
        Ok(())
    }
}

impl Sifting for Matcher {
    fn tag(&self) -> Tag {
        TAG
    }

    fn peer_light_over(&mut self) {
        self.peer_light_over = true;
    }

    fn hear(&mut self, message: &[u8], context: &mut Context<'_>) -> Result<(), SiftingError> {
        let Said { announcement, replies, x_replies, end_round } = Said::read(message)?;
        if !replies.is_empty() || end_round.is_some() {
            return Err(SiftingError::Protocol("a sifting reply from the announcer"));
        }
        if let Some(announcement) = &announcement {
            self.take_announcement(announcement, context.events)?;
        }
        x_replies.iter().try_for_each(|reply| self.take_x(reply))
    }

    fn reconciled(&mut self, reconciled: &Reconciled) {
        let Reconciled { first_step, frames, bits, qber } = *reconciled;
        if bits > 0 {
            self.pump.observe(first_step, frames, qber, bits);
        }
    }

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        let (number, tags) = (frame.number, frame.into_tags()?);
        self.figures.clicks += tags.len() as u64;
        self.polarisation.observe(context.step, tags.len() as u64);
        self.recovery.push_own(number, tags)?;
        Ok(())
    }

    fn light_over(&mut self) {
        self.light_over = true;
        self.recovery.finish();
    }

    fn say(&mut self, context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        self.answer_announcements(context.events)?;
        self.end_last_round();
        Ok(self.said.take())
    }

    /// Only when all X bits are in, the error rate is public.
    fn next_round(&mut self) -> Option<SiftedRound> {
        self.full.front().filter(|full| full.x_waiting == 0)?;
        self.full.pop_front().map(|full| full.round.sifted())
    }

    fn is_over(&self) -> bool {
        self.light_over
            && self.peer_light_over
            && self.unanswered.is_empty()
            && self.waiting_x.is_empty()
            && self.open.frames == 0
            && self.full.is_empty()
    }

    fn setpoints(&mut self, step: u64) -> Setpoints {
        Setpoints {
            phase_rad: self.phase.setpoint(step),
            polarisation_rad: self.polarisation.setpoint(step),
            pump: self.pump.setpoint(step),
        }
    }

    fn figures(&self) -> SiftingFigures {
        SiftingFigures { recovery: Some(self.recovery.status()), locked: self.was_locked, ..self.figures.clone() }
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        let rounds = self.full.iter().map(|full| &full.round).chain([&self.open]);
        rounds.filter(|round| round.frames > 0).map(OpenRound::void).collect()
    }
}
