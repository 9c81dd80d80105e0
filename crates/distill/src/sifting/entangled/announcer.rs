//! The half that announces its clicks.

use std::collections::VecDeque;

use super::announce::{self, OwnEvents};
use super::messages::Said;
use super::reply::{self, SiftReply};
use super::round::OpenRound;
use super::{FRAMES_WAITING_MAX, TAG};
use crate::config::{Entangled, Framing};
use crate::ledger::BlockLedger;
use crate::loops::{PolarisationLoop, Setpoints};
use crate::sifting::{
    Context, Event, FrameInput, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures, SiftingStart, Tag,
};

/// A frame that has been announced and not yet answered.
struct Waiting {
    number: u64,
    step: u64,
    own: OwnEvents,
}

/// See the module above.
pub struct Announcer {
    framing: Framing,
    config: Entangled,
    waiting: VecDeque<Waiting>,
    frames_announced: u64,
    light_over: bool,
    open: OpenRound,
    /// Rounds that nobody has taken yet.
    sifted: VecDeque<SiftedRound>,
    said: Said,
    polarisation: PolarisationLoop,
    setpoints: Setpoints,
    figures: SiftingFigures,
}

impl Announcer {
    pub fn new(framing: Framing, config: &Entangled, start: &SiftingStart) -> Self {
        Self {
            polarisation: PolarisationLoop::new(
                config.loops.polarisation,
                framing.frame_ps,
                start.latency_steps,
                start.setpoints.polarisation_rad,
            ),
            framing,
            config: config.clone(),
            waiting: VecDeque::new(),
            frames_announced: 0,
            light_over: false,
            open: OpenRound::default(),
            sifted: VecDeque::new(),
            said: Said::default(),
            // One end alone controls the pump: two that say different things would undo each other.
            setpoints: Setpoints { pump: 0.0, ..start.setpoints },
            figures: SiftingFigures::default(),
        }
    }

    fn apply(&mut self, reply: &SiftReply) -> Result<(), SiftingError> {
        let Some(waiting) = self.waiting.front() else {
            return Err(SiftingError::Protocol("a reply to a frame that was never announced"));
        };
        if waiting.number != reply.frame {
            return Err(SiftingError::Protocol("replies out of order"));
        }
        let applied = reply::apply(reply, &waiting.own, &mut self.open.z)?;
        self.open.compare(&applied.own_x, &applied.peer_x);
        self.open.book_announced(waiting.own.counts(), &applied.counts);
        if self.open.frames == 0 {
            self.open.first_step = waiting.step;
        }
        self.figures.sifted_key += applied.counts.kept_z;
        self.figures.sifted_check += applied.counts.kept_x;
        self.said.x_replies.push(reply::x_reply(reply.frame, &applied.own_x));
        self.waiting.pop_front();
        self.open.frames += 1;
        if self.open.frames == self.framing.round_frames {
            self.close_round();
        }
        Ok(())
    }

    fn close_round(&mut self) {
        self.sifted.push_back(self.open.next().sifted());
    }
}

impl Sifting for Announcer {
    fn tag(&self) -> Tag {
        TAG
    }

    fn peer_light_over(&mut self) {}

    fn hear(&mut self, message: &[u8], _context: &mut Context<'_>) -> Result<(), SiftingError> {
        let Said { announcement, replies, x_replies, end_round } = Said::read(message)?;
        if announcement.is_some() || !x_replies.is_empty() {
            return Err(SiftingError::Protocol("an announcement from the matcher"));
        }
        for reply in &replies {
            self.apply(reply)?;
        }
        if let Some(frames) = end_round {
            if frames != self.open.frames || frames == 0 {
                return Err(SiftingError::Protocol("end of a round that is not open"));
            }
            self.close_round();
        }
        Ok(())
    }

    fn reconciled(&mut self, _reconciled: &Reconciled) {}

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        if self.waiting.len() >= FRAMES_WAITING_MAX {
            return Err(SiftingError::Protocol("announced frames are not answered"));
        }
        let (number, tags) = (frame.number, frame.into_tags()?);
        self.figures.clicks += tags.len() as u64;
        self.polarisation.observe(context.step, tags.len() as u64);
        if self.frames_announced.is_multiple_of(self.framing.round_frames) {
            let round = self.frames_announced / self.framing.round_frames;
            context.events.push(Event::RoundBegins { round });
        }
        let prepared = announce::prepare(number, &tags, self.framing, &self.config, context.rng)?;
        self.waiting.push_back(Waiting { number, step: context.step, own: prepared.own });
        self.frames_announced += 1;
        self.said.announcement = Some(prepared.announcement);
        Ok(())
    }

    fn light_over(&mut self) {
        self.light_over = true;
    }

    fn say(&mut self, _context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        Ok(self.said.take())
    }

    fn next_round(&mut self) -> Option<SiftedRound> {
        self.sifted.pop_front()
    }

    fn is_over(&self) -> bool {
        self.light_over && self.waiting.is_empty() && self.open.frames == 0 && self.sifted.is_empty()
    }

    fn setpoints(&mut self, step: u64) -> Setpoints {
        self.setpoints.polarisation_rad = self.polarisation.setpoint(step);
        self.setpoints
    }

    fn figures(&self) -> SiftingFigures {
        self.figures.clone()
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        if self.open.frames == 0 { Vec::new() } else { vec![self.open.void()] }
    }
}
