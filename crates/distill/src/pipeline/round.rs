//! What both ends do with the sifted material of one round.

use prost::encoding::{decode_varint, encode_varint};

use super::messages::KeyErrors;
use super::stretch::Material;
use super::{Action, Compared, FinishedBlock};
use crate::auth;
use crate::bits::Bits;
use crate::bounds::{self, Evidence, KeyLength};
use crate::config::Security;
use crate::ledger::{BlockLedger, LedgerError, Line, Settlement};
use crate::sifting::{self, Detected};

/// Bits of the verification hash of one Cascade frame.
pub const VERIFICATION_BITS: u64 = 64;

/// The sifted material of one block at one end.
pub struct Round {
    pub block: u64,
    pub frames: u64,
    /// Rounds of sifting that it is made of.
    pub rounds: u64,
    /// Step in which this session's light of it began, and frames of that light.
    first_step: u64,
    session_frames: u64,
    /// Pairs of tags that its checkpoints have cost.
    tag_pairs: u64,
    pub key: Bits,
    /// Which bits are of decoys: at the reference, where the proof asks.
    pub decoys: Option<Bits>,
    evidence: Evidence,
    detected: Detected,
    account: BlockLedger,
}

impl Round {
    /// Of what was sifted; `light` says when this session's light of it began, and how many frames of it came.
    pub fn new(block: u64, rounds: u64, light: (u64, u64), tag_pairs: u64, sifted: Material) -> Self {
        let Material { frames, key, decoys, evidence, detected, account } = sifted;
        let (first_step, session_frames) = light;
        Self { block, frames, rounds, first_step, session_frames, tag_pairs, key, decoys, evidence, detected, account }
    }

    /// Bits of its key that make up for its tags: those that close it, and those of its checkpoints.
    pub fn reserve_bits(&self, tags_per_hash_key: u64) -> u64 {
        auth::refill_bits(tags_per_hash_key).saturating_mul(self.tag_pairs.saturating_add(1))
    }

    /// The account of a round that does not end.
    pub fn void(&self) -> BlockLedger {
        let mut account = self.account.clone();
        account.void();
        account
    }

    /// What sifting is told of a round once it is reconciled.
    pub fn reconciled(&self, compared: Compared) -> sifting::Reconciled {
        let Compared { bits, .. } = compared;
        sifting::Reconciled { first_step: self.first_step, frames: self.session_frames, bits, qber: compared.qber() }
    }
}

/// Cuts a sifted string into Cascade frames of nearly equal length, none longer than `frame_bits`.
pub fn split(key: &Bits, frame_bits: usize) -> Vec<Bits> {
    let count = key.len().div_ceil(frame_bits.max(1)).max(1);
    let base = key.len().div_ceil(count);
    (0..count)
        .map(|i| (i * base, ((i + 1) * base).min(key.len())))
        .filter(|(start, end)| start < end)
        .map(|(start, end)| key.slice(start, end - start))
        .collect()
}

/// One Cascade frame after correction.
pub struct Corrected {
    pub bits: Bits,
    pub leaked: u64,
    pub errors: u64,
}

/// The string that goes into amplification, how long the key may be, and the ledger that follows. Both ends
/// compute it from figures that both know, and must agree.
pub struct Reconciled {
    pub key: Bits,
    pub length: KeyLength,
    pub compared: Compared,
    pub ledger: BlockLedger,
}

impl Reconciled {
    /// Why no key comes of the block, if none does.
    pub fn refusal(&self) -> Option<String> {
        match self.length.abort {
            Some(reason) => Some(reason.to_string()),
            None if self.ledger.get(Line::DELIVERED) == 0 => {
                Some("what is left would only pay for authentication".to_owned())
            }
            None => None,
        }
    }

    /// The end of a block that gives no key.
    pub fn abort(self, round: &Round, reason: String) -> Action {
        let Round { block, frames, detected, .. } = *round;
        Action::Abort { block, reason, frames, detected, ledger: self.ledger }
    }

    /// The block, with the key that its string was amplified to.
    pub fn finish(self, round: &Round, key: Bits, reserve: u64) -> FinishedBlock {
        FinishedBlock {
            number: round.block,
            key,
            reserve_bits: reserve as usize,
            frames: round.frames,
            detected: round.detected,
            ledger: self.ledger,
            length: self.length,
        }
    }
}

/// Right bits before each wrong one, as they are said: what correction changed.
pub fn right_before(key: &Bits, frames: &[Corrected]) -> Vec<u8> {
    let (mut gaps, mut start, mut next) = (Vec::new(), 0, 0);
    for frame in frames {
        let seen = key.slice(start, frame.bits.len());
        for (index, (own, corrected)) in seen.words().iter().zip(frame.bits.words()).enumerate() {
            let mut wrong = own ^ corrected;
            while wrong != 0 {
                let place = (start + 64 * index) as u64 + u64::from(wrong.trailing_zeros());
                encode_varint(place - next, &mut gaps);
                next = place + 1;
                wrong &= wrong - 1;
            }
        }
        start += frame.bits.len();
    }
    gaps
}

/// Places of wrong bits, from what is said of them.
struct Places<'a> {
    rest: &'a [u8],
    next: u64,
}

impl Places<'_> {
    /// The next place, if it is below `end`.
    fn below(&mut self, end: u64) -> Option<u64> {
        let mut rest = self.rest;
        let place = decode_varint(&mut rest).ok()?.checked_add(self.next).filter(|place| *place < end)?;
        (self.rest, self.next) = (rest, place + 1);
        Some(place)
    }
}

/// Of the wrong bits of good frames, how many are of signals and of decoys. None where they are not as many as each
/// frame is said to have had.
pub fn key_errors(decoys: &Bits, right_before: &[u8], frames: &[Corrected], good: &[bool]) -> Option<KeyErrors> {
    let (mut places, mut end) = (Places { rest: right_before, next: 0 }, 0);
    let mut errors = KeyErrors::default();
    for (frame, good) in frames.iter().zip(good) {
        end += frame.bits.len() as u64;
        let mut of_frame = KeyErrors::default();
        while let Some(place) = places.below(end) {
            let decoy = decoys.get(usize::try_from(place).ok()?);
            of_frame.decoy += u64::from(decoy);
            of_frame.signal += u64::from(!decoy);
        }
        if *good && of_frame.signal + of_frame.decoy != frame.errors {
            return None;
        }
        if *good {
            errors.signal += of_frame.signal;
            errors.decoy += of_frame.decoy;
        }
    }
    places.rest.is_empty().then_some(errors)
}

/// Keeps the frames whose hashes agree, books the rest as lost, and applies the bound. Of the key, `reserve` bits
/// go to authentication. `key_errors` is what the ends said of the errors, if anything.
pub fn reconcile(
    round: &Round,
    frames: &[Corrected],
    good: &[bool],
    key_errors: Option<KeyErrors>,
    security: &Security,
    reserve: u64,
) -> Result<Reconciled, LedgerError> {
    let mut key = Bits::default();
    let (mut leaked, mut errors, mut failed_frames, mut verified) = (0, 0, 0, 0);
    for (frame, good) in frames.iter().zip(good) {
        if *good {
            key.extend(&frame.bits);
            leaked += frame.leaked;
            errors += frame.errors;
            verified += 1;
        } else {
            failed_frames += frame.bits.len() as u64;
        }
    }
    let key_bits = key.len() as u64;
    let verification = verified * VERIFICATION_BITS;
    let disclosed =
        bounds::Reconciled { key_bits, key_errors: errors, leaked_bits: leaked, verification_bits: verification };
    let evidence = match key_errors {
        Some(KeyErrors { signal, decoy }) => round.evidence.with_key_errors([signal, decoy]),
        None => round.evidence,
    };
    let length = bounds::key_length(security, &evidence, &disclosed);
    let mut ledger = round.account.clone();
    ledger.set(Line::KEY_ERRORS, errors.min(key_bits));
    if length.chosen > reserve {
        let key = length.chosen;
        ledger.settle(Settlement { failed_frames, leaked, verification, key, authentication: reserve })?;
    } else {
        ledger.abort();
    }
    Ok(Reconciled { key, length, compared: Compared { bits: key_bits, errors }, ledger })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_a_round_cover_it_once_and_none_is_longer_than_allowed() {
        for len in [0usize, 1, 63, 64, 65, 1000, 65_536, 65_537, 157_001] {
            let mut z = Bits::zeros(len);
            for i in (0..len).step_by(7) {
                z.set(i, true);
            }
            let frames = split(&z, 65_536);
            let mut joined = Bits::default();
            for frame in &frames {
                assert!(!frame.is_empty() && frame.len() <= 65_536);
                joined.extend(frame);
            }
            assert!(joined.ct_eq(&z));
        }
    }

    /// Of what both ends hold in each frame, and which of it is of decoys: what the two say to each other about errors.
    fn said(frames: &[(Bits, Bits, Bits)], good: &[bool]) -> (Bits, Vec<Corrected>, Vec<u8>, Option<KeyErrors>) {
        let (mut seen, mut decoys, mut corrected) = (Bits::default(), Bits::default(), Vec::new());
        for (own, sent, labels) in frames {
            seen.extend(own);
            decoys.extend(labels);
            corrected.push(Corrected { bits: sent.slice(0, sent.len()), leaked: 0, errors: own.distance(sent) as u64 });
        }
        let gaps = right_before(&seen, &corrected);
        let errors = key_errors(&decoys, &gaps, &corrected, good);
        (decoys, corrected, gaps, errors)
    }

    fn written(gaps: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        gaps.iter().for_each(|gap| encode_varint(*gap, &mut bytes));
        bytes
    }

    proptest! {
        #[test]
        fn errors_are_counted_by_intensity_in_the_frames_that_agree(
            words in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 1usize..64, any::<bool>()), 1..6),
        ) {
            let bits = |word: u64, len: usize| Bits::from_words(vec![word & ((1 << len) - 1)], len);
            let frames: Vec<_> =
                words.iter().map(|(a, b, c, len, _)| (bits(*a, *len), bits(*b, *len), bits(*c, *len))).collect();
            let good: Vec<bool> = words.iter().map(|(.., good)| *good).collect();
            let (decoys, corrected, gaps, errors) = said(&frames, &good);
            let mut expected = KeyErrors::default();
            for ((a, b, c, len, _), _) in words.iter().zip(&good).filter(|(_, good)| **good) {
                let wrong = (a ^ b) & ((1 << len) - 1);
                expected.decoy += u64::from((wrong & c).count_ones());
                expected.signal += u64::from((wrong & !c).count_ones());
            }
            prop_assert_eq!(errors, Some(expected));
            // One more, places that do not exist, and no number.
            let more = |gap: u64| [gaps.clone(), written(&[gap])].concat();
            for wrong in [more(0), more(u64::MAX), written(&[u64::MAX; 3]), [gaps.clone(), vec![0xff]].concat()] {
                let fits = key_errors(&decoys, &wrong, &corrected, &good);
                prop_assert!(fits.is_none() || fits == Some(expected));
            }
        }
    }

    #[test]
    fn places_that_are_not_as_many_as_were_corrected_or_beyond_the_key_are_refused() {
        let bits = |word| Bits::from_words(vec![word], 16);
        let frames = [(bits(0b101), bits(0), bits(0b100)), (bits(0x8000), bits(0), bits(0))];
        let (decoys, corrected, gaps, errors) = said(&frames, &[true, true]);
        assert_eq!((gaps, errors), (written(&[0, 1, 28]), Some(KeyErrors { signal: 2, decoy: 1 })));
        for gaps in [&[][..], &[0, 1], &[0, 1, 2], &[0, 1, 28, 0], &[0, 1, 29], &[0, u64::MAX, 0]] {
            assert_eq!(key_errors(&decoys, &written(gaps), &corrected, &[true, true]), None, "{gaps:?}");
        }
        let counted = key_errors(&decoys, &written(&[0, 1]), &corrected, &[true, false]);
        assert_eq!(counted, Some(KeyErrors { signal: 1, decoy: 1 }));
    }
}
