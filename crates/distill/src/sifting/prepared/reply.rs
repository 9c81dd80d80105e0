//! The transmitter's answer to an announcement, and the receiver's answer to that.

use prost::Message;

use super::MessageError;
use super::announce::Announced;
use super::config::Basis;
use super::detections::OwnEvents;
use crate::bits::Bits;
use crate::bounds::Tally;
use crate::config::INTENSITIES;
use crate::sifting::Choice;
use crate::sifting::packed::unpack_bits;

/// Bits of an intensity on the wire.
const INTENSITY_BITS: usize = 2;

#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    /// A bit for each announced event: set where the pulse was prepared in the basis that it was measured in.
    #[prost(bytes = "vec", tag = "2")]
    pub matches: Vec<u8>,
    /// Of the matching events of the check basis: what was sent, and in which intensity (2 bits each).
    #[prost(bytes = "vec", tag = "3")]
    pub check_bits: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub check_intensities: Vec<u8>,
    /// With the last frame of a round.
    #[prost(message, optional, tag = "5")]
    pub end: Option<RoundEnd>,
}

/// The end of a round, how many bits of its key each intensity gave, and how many of its events that were in another
/// basis than their pulse's: nothing is made of those but the gains. Transmitters of
/// earlier releases do not say the latter.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct RoundEnd {
    #[prost(uint64, tag = "1")]
    pub frames: u64,
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint64, tag = "3")]
    pub second: u64,
    #[prost(uint64, tag = "4")]
    pub third: u64,
    #[prost(uint64, tag = "5")]
    pub mismatched_first: u64,
    #[prost(uint64, tag = "6")]
    pub mismatched_second: u64,
    #[prost(uint64, tag = "7")]
    pub mismatched_third: u64,
}

/// What a round has by intensity, the brightest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByIntensity {
    /// Bits of the key.
    pub key: [u64; INTENSITIES],
    /// Events in another basis than their pulse's.
    pub mismatched: [u64; INTENSITIES],
}

/// What the receiver saw of the matching events of the check basis of one frame.
#[derive(Clone, PartialEq, Message)]
pub struct Disclosure {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub check_bits: Vec<u8>,
}

/// One frame at either end, once both bases of each event are known.
#[derive(Default)]
pub struct Sifted {
    pub key: Bits,
    /// Which of them are of the intensity after the brightest: at the transmitter, where the proof asks.
    pub decoys: Option<Bits>,
    /// Own bits of the check basis.
    pub check: Bits,
    /// Intensity of each of them.
    pub intensities: Vec<u8>,
    /// Known to the transmitter.
    pub counts: ByIntensity,
    pub basis_mismatch: u64,
}

/// Makes the transmitter's reply. `sent` says whether a pulse was sent at all, and `choices` what it was;
/// `with_decoys`, whether it is noted which bits of the key are of decoys.
pub fn reply(
    announced: &Announced,
    choices: &[Choice],
    sent: u64,
    key_basis: Basis,
    with_decoys: bool,
) -> (Reply, Sifted) {
    let mut sifted = Sifted { decoys: with_decoys.then(Bits::default), ..Sifted::default() };
    let mut matches = Bits::zeros(announced.pulses.len());
    for (index, (pulse, choice)) in announced.pulses.iter().zip(choices).enumerate() {
        let x = announced.bases.get(index);
        if choice.x != x || *pulse >= sent {
            sifted.basis_mismatch += 1;
            sifted.counts.mismatched[usize::from(choice.intensity)] += 1;
            continue;
        }
        matches.set(index, true);
        if x == (key_basis == Basis::X) {
            sifted.key.push(choice.bit);
            if let Some(decoys) = &mut sifted.decoys {
                decoys.push(choice.intensity == 1);
            }
            sifted.counts.key[usize::from(choice.intensity)] += 1;
        } else {
            sifted.check.push(choice.bit);
            sifted.intensities.push(choice.intensity);
        }
    }
    let reply = Reply {
        frame: announced.frame,
        matches: matches.to_bytes(),
        check_bits: sifted.check.to_bytes(),
        check_intensities: pack_intensities(&sifted.intensities),
        end: None,
    };
    (reply, sifted)
}

/// Applies a reply to what was announced; gives the receiver's half, and the transmitter's bits of the check basis.
pub fn apply(
    reply: &Reply,
    own: &OwnEvents,
    key_basis: Basis,
    intensities: usize,
) -> Result<(Sifted, Bits), MessageError> {
    let frame = own.frame;
    if reply.frame != frame {
        return Err(MessageError::OutOfOrder { expected: frame, found: reply.frame });
    }
    let events = own.len();
    let matches = unpack_bits(&reply.matches, events).ok_or(MessageError::Matches { frame, events })?;
    let mut sifted = Sifted::default();
    for index in 0..events {
        if !matches.get(index) {
            sifted.basis_mismatch += 1;
        } else if own.bases.get(index) == (key_basis == Basis::X) {
            sifted.key.push(own.bits.get(index));
        } else {
            sifted.check.push(own.bits.get(index));
        }
    }
    let events = sifted.check.len();
    let peer = unpack_bits(&reply.check_bits, events).ok_or(MessageError::CheckBits { frame, events })?;
    let labels = unpack_intensities(&reply.check_intensities, events, intensities);
    sifted.intensities = labels.ok_or(MessageError::Intensities { frame, events })?;
    Ok((sifted, peer))
}

/// The receiver's bits of the check basis, of which there must be `events`.
pub fn disclosed(disclosure: &Disclosure, frame: u64, events: usize) -> Result<Bits, MessageError> {
    if disclosure.frame != frame {
        return Err(MessageError::OutOfOrder { expected: frame, found: disclosure.frame });
    }
    unpack_bits(&disclosure.check_bits, events).ok_or(MessageError::CheckBits { frame, events })
}

/// Bits and errors of the check basis by intensity.
pub fn compare(own: &Bits, peer: &Bits, intensities: &[u8]) -> [Tally; INTENSITIES] {
    let mut tallies = [Tally::default(); INTENSITIES];
    for (index, intensity) in intensities.iter().enumerate() {
        let tally = &mut tallies[usize::from(*intensity)];
        tally.bits += 1;
        tally.errors += u64::from(own.get(index) != peer.get(index));
    }
    tallies
}

impl RoundEnd {
    pub fn new(frames: u64, counts: &ByIntensity) -> Self {
        let [first, second, third] = counts.key;
        let [mismatched_first, mismatched_second, mismatched_third] = counts.mismatched;
        Self { frames, first, second, third, mismatched_first, mismatched_second, mismatched_third }
    }

    /// The counts, which must be those of a round of this many frames, of a key of this many bits, and of this many
    /// events in another basis, if anything is said of these.
    pub fn counts(&self, frames: u64, bits: u64, events: u64, intensities: usize) -> Result<ByIntensity, MessageError> {
        if self.frames != frames {
            return Err(MessageError::RoundEnd { frames, found: self.frames });
        }
        let key = [self.first, self.second, self.third];
        let mismatched = [self.mismatched_first, self.mismatched_second, self.mismatched_third];
        let sum = |counts: &[u64]| counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let of_others = |counts: &[u64]| counts.iter().skip(intensities).any(|count| *count > 0);
        if sum(&key) != Some(bits) || of_others(&key) {
            return Err(MessageError::Counts { bits, found: sum(&key).unwrap_or(u64::MAX) });
        }
        let found = sum(&mismatched).unwrap_or(u64::MAX);
        if found != 0 && found != events || of_others(&mismatched) {
            return Err(MessageError::Mismatched { events, found });
        }
        Ok(ByIntensity { key, mismatched })
    }
}

fn pack_intensities(intensities: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; (intensities.len() * INTENSITY_BITS).div_ceil(8)];
    for (index, intensity) in intensities.iter().enumerate() {
        bytes[index / 4] |= intensity << (INTENSITY_BITS * (index % 4));
    }
    bytes
}

fn unpack_intensities(bytes: &[u8], len: usize, intensities: usize) -> Option<Vec<u8>> {
    unpack_bits(bytes, len * INTENSITY_BITS)?;
    let all: Vec<u8> = (0..len).map(|index| bytes[index / 4] >> (INTENSITY_BITS * (index % 4)) & 0b11).collect();
    all.iter().all(|intensity| usize::from(*intensity) < intensities).then_some(all)
}
