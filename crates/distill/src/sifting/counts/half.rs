//! Either end: they differ in who speaks first, and in who knows the intensities.

use std::collections::VecDeque;

use super::messages::{Disclosure, Said};
use super::{BYTES_WAITING_MAX, CHECK_BITS_MAX, Counts, FRAME_BITS_MAX, FRAMES_WAITING_MAX, Frame, Labelled, TAG};
use crate::bits::Bits;
use crate::bounds::{Detections, Evidence, Tally};
use crate::config::{Emission, Framing, INTENSITIES, Side};
use crate::ledger::{BlockLedger, Book, Item, Line};
use crate::loops::{PumpLoop, Setpoints};
use crate::sifting::{
    Context, Detected, Event, FrameInput, Light, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures,
    SiftingStart, Tag,
};

/// A frame whose evidence is not known yet.
struct Waiting {
    number: u64,
    step: u64,
    frame: Frame,
}

#[derive(Default)]
struct OpenRound {
    number: u64,
    frames: u64,
    first_step: u64,
    pulses: u64,
    key: Bits,
    /// Which of them are of decoys, where the proof asks and this end knows.
    decoys: Option<Bits>,
    detections: [Detections; INTENSITIES],
    account: BlockLedger,
}

impl OpenRound {
    fn new(number: u64, with_decoys: bool) -> Self {
        Self { number, decoys: with_decoys.then(Bits::default), ..Self::default() }
    }
}

/// See the module above.
pub struct Half {
    framing: Framing,
    side: Side,
    emission: Emission,
    frames_taken: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// What the peer said of frames that this end does not have yet.
    heard: VecDeque<Disclosure>,
    heard_bytes: usize,
    open: OpenRound,
    sifted: VecDeque<SiftedRound>,
    light_over: bool,
    peer_last: bool,
    last_said: bool,
    said: Said,
    setpoints: Setpoints,
    /// At the end that owns it.
    pump: Option<PumpLoop>,
    figures: SiftingFigures,
}

impl Half {
    pub fn new(framing: Framing, config: &Counts, emission: &Emission, start: &SiftingStart) -> Self {
        let owns_pump = emission.is_pairs() && config.side == Side::Corrector;
        Self {
            framing,
            side: config.side,
            emission: *emission,
            frames_taken: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            heard: VecDeque::new(),
            heard_bytes: 0,
            open: OpenRound::new(0, config.side == Side::Reference && emission.needs_key_errors()),
            sifted: VecDeque::new(),
            light_over: false,
            peer_last: false,
            last_said: false,
            said: Said::default(),
            setpoints: start.setpoints,
            pump: owns_pump.then(|| PumpLoop::new(&config.loops, start.latency_steps, start.setpoints.pump)),
            figures: SiftingFigures { locked: true, ..SiftingFigures::default() },
        }
    }

    /// Intensities that pulses have; 1 where they are not told apart.
    fn intensities(&self) -> usize {
        self.emission.intensities().len().max(1)
    }

    fn planes(&self) -> usize {
        self.intensities().next_power_of_two().trailing_zeros() as usize
    }

    /// Joins what both ends have of the oldest frame; whether there was one.
    fn join(&mut self) -> Result<bool, SiftingError> {
        let (Some(disclosure), Some(waiting)) = (self.heard.front(), self.waiting.front()) else { return Ok(false) };
        if disclosure.frame != waiting.number {
            return Err(SiftingError::Protocol("counts of another frame than is due"));
        }
        let peer = disclosure.check(if self.side == Side::Corrector { self.planes() } else { 0 })?;
        let own = &waiting.frame;
        if peer.bits.len() != own.check.bits.len() || disclosure.key_bits != own.key.bits.len() as u64 {
            return Err(SiftingError::Protocol("strings of another length than this end's"));
        }
        let (labels, counts) = match self.side {
            Side::Reference if disclosure.key_counts() == [0; INTENSITIES] => (&own.check, own.key.tally(None)),
            Side::Reference => return Err(SiftingError::Protocol("intensities from an end that cannot know them")),
            Side::Corrector => (&peer, self.claimed(disclosure, &peer)?),
        };
        let wrong = own.check.bits.words().iter().zip(peer.bits.words()).map(|(own, peer)| own ^ peer).collect();
        let wrong = Bits::from_words(wrong, peer.bits.len());
        let bits: [u64; INTENSITIES] = labels.tally(None);
        let errors: [u64; INTENSITIES] = labels.tally(Some(&wrong));
        let check = std::array::from_fn(|kind| Tally { bits: bits[kind], errors: errors[kind] });
        if let Some(disclosure) = self.heard.pop_front() {
            self.heard_bytes -= disclosure.bytes();
        }
        if let Some(waiting) = self.waiting.pop_front() {
            self.waiting_bytes -= waiting.frame.bytes();
            if self.side == Side::Corrector {
                let Frame { key, check, .. } = &waiting.frame;
                self.said.disclosures.push(Disclosure::new(waiting.number, key, check, [0; INTENSITIES]));
            }
            self.add(&waiting, counts, check);
            self.close(self.framing.round_frames);
        }
        Ok(true)
    }

    /// Bits of the key by intensity, as the reference says it.
    fn claimed(&self, disclosure: &Disclosure, peer: &Labelled) -> Result<[u64; INTENSITIES], SiftingError> {
        let (bits, counts): ([u64; INTENSITIES + 1], _) = (peer.tally(None), disclosure.key_counts());
        let of_unknown = |counts: &[u64]| counts.iter().skip(self.intensities()).any(|count| *count > 0);
        if of_unknown(&bits) || of_unknown(&counts) {
            return Err(SiftingError::Protocol("other intensities than the link has"));
        }
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        if sum != Some(disclosure.key_bits) {
            return Err(SiftingError::Protocol("bits by intensity that are not those of the key"));
        }
        Ok(counts)
    }

    fn add(&mut self, waiting: &Waiting, key_counts: [u64; INTENSITIES], check: [Tally; INTENSITIES]) {
        let frame = &waiting.frame;
        let open = &mut self.open;
        if open.frames == 0 {
            open.first_step = waiting.step;
        }
        open.frames += 1;
        open.pulses += frame.pulses;
        open.key.extend(&frame.key.bits);
        // Of two intensities there is one plane: set for the decoy.
        if let (Some(open), [decoys]) = (&mut open.decoys, frame.key.kinds.as_slice()) {
            open.extend(decoys);
        }
        for ((row, key), tally) in open.detections.iter_mut().zip(key_counts).zip(check) {
            row.key += key;
            row.check.bits += tally.bits;
            row.check.errors += tally.errors;
        }
        let (key, check_bits) = (frame.key.bits.len() as u64, frame.check.bits.len() as u64);
        self.figures.sifted_key += key;
        self.figures.sifted_check += check_bits;
        let errors = check.iter().map(|tally| tally.errors).sum();
        let common = [(Line::CHECK_DISCLOSED, check_bits), (Line::CHECK_ERRORS, errors), (Line::SIFTED_KEY, key)];
        common.into_iter().for_each(|(line, value)| open.account.book(line, value));
        let book = match (&self.emission, self.side) {
            (Emission::Pairs, Side::Reference) => Book::Announcer,
            (Emission::Pairs, Side::Corrector) => Book::Matcher,
            (_, Side::Reference) => return,
            (_, Side::Corrector) => Book::Receiver,
        };
        let accounted = frame.accounted();
        let lines = [
            (Item::Clicks, frame.clicks),
            // Pairs alone have clicks that nothing was found of at the other end.
            (
                if book == Book::Receiver { Item::OutsideGate } else { Item::Unmatched },
                frame.clicks.saturating_sub(accounted),
            ),
            (Item::BasisMismatch, frame.mismatched),
            (Item::CrossDouble, frame.crossed),
            (Item::Merged, frame.merged),
            (Item::SiftedCheck, check_bits),
            (Item::SiftedKey, key),
        ];
        lines.into_iter().for_each(|(item, value)| open.account.book(Line(book, item), value));
    }

    /// A transmitter has no clicks.
    fn books_clicks(&self) -> bool {
        self.emission.is_pairs() || self.side == Side::Corrector
    }

    /// Hands out the round if it has at least this many frames.
    fn close(&mut self, frames: u64) {
        if self.open.frames < frames {
            return;
        }
        let next = OpenRound::new(self.open.number + 1, self.open.decoys.is_some());
        let round = std::mem::replace(&mut self.open, next);
        let check = round.detections.iter().fold(Tally::default(), |sum, row| Tally {
            bits: sum.bits + row.check.bits,
            errors: sum.errors + row.check.errors,
        });
        let evidence = match self.emission {
            Emission::Pairs => Evidence::CheckBits { bits: check.bits, errors: check.errors },
            Emission::SinglePhotons(_) => {
                Evidence::SinglePhoton { pulses: round.pulses, key: round.key.len() as u64, check }
            }
            // Twin fields are not sifted here: these are no heralds, and the bound for heralds gives no key of them.
            Emission::OneDecoy(_) | Emission::TwoDecoys(_) | Emission::TwinField(_) => {
                Evidence::Decoy(round.detections)
            }
        };
        // The receiver knows of the events that make no bit.
        let mismatched = round.account.get(Line(Book::Receiver, Item::BasisMismatch));
        let pulses = if self.side == Side::Corrector { round.pulses } else { 0 };
        self.sifted.push_back(SiftedRound {
            detected: Detected::of_sifted(pulses, &round.detections, mismatched),
            number: round.number,
            frames: round.frames,
            first_step: round.first_step,
            decoys: round.decoys,
            key: round.key,
            evidence,
            account: round.account,
        });
    }
}

impl Sifting for Half {
    fn tag(&self) -> Tag {
        TAG
    }

    fn peer_light_over(&mut self) {}

    fn hear(&mut self, message: &[u8], _context: &mut Context<'_>) -> Result<(), SiftingError> {
        let Said { disclosures, last } = Said::read(message)?;
        if self.peer_last && !disclosures.is_empty() {
            return Err(SiftingError::Protocol("counts after the last ones"));
        }
        self.heard_bytes += disclosures.iter().map(Disclosure::bytes).sum::<usize>();
        self.heard.extend(disclosures);
        if self.heard.len() > FRAMES_WAITING_MAX || self.heard_bytes > BYTES_WAITING_MAX {
            return Err(SiftingError::Protocol("counts of frames that were not taken yet"));
        }
        self.peer_last |= last;
        while self.join()? {}
        Ok(())
    }

    fn reconciled(&mut self, reconciled: &Reconciled) {
        let Reconciled { first_step, frames, bits, qber } = *reconciled;
        if let Some(pump) = &mut self.pump {
            pump.observe(first_step, frames, qber, bits);
        }
    }

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        let number = frame.number;
        let Light::Counts(frame) = frame.light else { return Err(SiftingError::Light("clicks or pulses")) };
        let knows = self.side == Side::Reference;
        let planes = if knows { self.planes() } else { 0 };
        for (of_basis, most) in [(&frame.key, FRAME_BITS_MAX), (&frame.check, CHECK_BITS_MAX)] {
            let len = of_basis.bits.len();
            let whole = of_basis.kinds.len() == planes && of_basis.kinds.iter().all(|plane| plane.len() == len);
            if !whole || len > most {
                return Err(SiftingError::Light("strings that are not those of its part in the protocol"));
            }
        }
        if self.books_clicks() && frame.clicks < frame.accounted() {
            return Err(SiftingError::Clicks { clicks: frame.clicks, accounted: frame.accounted() });
        }
        self.waiting_bytes += frame.bytes();
        if self.waiting.len() >= FRAMES_WAITING_MAX || self.waiting_bytes > BYTES_WAITING_MAX {
            return Err(SiftingError::Protocol("frames that the peer says nothing of"));
        }
        if self.frames_taken.is_multiple_of(self.framing.round_frames) {
            context.events.push(Event::RoundBegins { round: self.frames_taken / self.framing.round_frames });
        }
        self.frames_taken += 1;
        self.figures.clicks += frame.clicks;
        if knows {
            let key_counts: [u64; INTENSITIES] = frame.key.tally(None);
            let intensities = self.intensities();
            if frame.key.bits.len() as u64 != key_counts[..intensities].iter().sum::<u64>() {
                return Err(SiftingError::Light("pulses of an intensity that is not configured"));
            }
            self.said.disclosures.push(Disclosure::new(number, &frame.key, &frame.check, key_counts));
        }
        self.waiting.push_back(Waiting { number, step: context.step, frame: *frame });
        while self.join()? {}
        Ok(())
    }

    fn light_over(&mut self) {
        self.light_over = true;
    }

    fn say(&mut self, _context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        // What one end alone has of the end of the light.
        if self.light_over && self.peer_last && (self.heard.is_empty() || self.waiting.is_empty()) {
            self.waiting.clear();
            self.heard.clear();
            (self.waiting_bytes, self.heard_bytes) = (0, 0);
        }
        let all = self.light_over && (self.side == Side::Reference || self.waiting.is_empty());
        if all && !self.last_said {
            (self.last_said, self.said.last) = (true, true);
        }
        if self.light_over && self.peer_last && self.waiting.is_empty() {
            self.close(1);
        }
        Ok(self.said.take())
    }

    fn next_round(&mut self) -> Option<SiftedRound> {
        self.sifted.pop_front()
    }

    fn is_over(&self) -> bool {
        self.last_said && self.peer_last && self.waiting.is_empty() && self.open.frames == 0 && self.sifted.is_empty()
    }

    fn setpoints(&mut self, step: u64) -> Setpoints {
        match &mut self.pump {
            Some(pump) => Setpoints { pump: pump.setpoint(step), ..self.setpoints },
            None => self.setpoints,
        }
    }

    fn figures(&self) -> SiftingFigures {
        self.figures.clone()
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        if self.open.frames == 0 {
            return Vec::new();
        }
        let mut account = self.open.account.clone();
        account.void();
        vec![(self.open.number, account)]
    }
}
