//! The photons of one epoch as they travel from a source to a detector.
//!
//! Little-endian 32-bit words. A word is a photon: its delay after the one before in bits 31..2, ps, and the
//! port it leaves the analyser by in bits 1..0. A word whose delay is all ones is none: the *next* word is a
//! lapse of time in ps without a photon. Time counts from the epoch's nominal start at the source, so that the
//! first lapse holds the arm's delay; and the list ends with a lapse that reaches to the moment up to which
//! it is complete, the start of the next epoch's. Where one epoch's list ends the next one goes on.

use crate::config::PORTS;

/// Photons of one epoch at one analyser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Photons {
    /// Photons in `words`, lapses not counted.
    pub count: u32,
    /// Packed as the module says.
    pub words: Vec<u8>,
}

/// Words from this on announce a lapse.
pub(crate) const LAPSE: u32 = !0b11;
const LONGEST_DELAY_PS: i64 = (LAPSE >> 2) as i64 - 1;
const PORT_BITS: u32 = PORTS.trailing_zeros();

/// Time and port of a photon as one number whose order is that of time, then port.
pub(crate) type Arrival = i64;

pub(crate) fn arrival(time_ps: i64, port: u32) -> Arrival {
    time_ps << PORT_BITS | i64::from(port)
}

pub(crate) fn time_ps(arrival: Arrival) -> i64 {
    arrival >> PORT_BITS
}

pub(crate) fn port(arrival: Arrival) -> u32 {
    arrival as u32 & (PORTS as u32 - 1)
}

/// Packs photons in order of time; times are relative to the epoch's nominal start.
pub(crate) struct Packer {
    words: Vec<u32>,
    time_ps: i64,
    count: u32,
}

impl Packer {
    pub(crate) fn new() -> Self {
        Self { words: Vec::new(), time_ps: 0, count: 0 }
    }

    /// Begins an epoch whose first photon cannot come before `start_ps`.
    pub(crate) fn begin(&mut self, start_ps: i64) {
        self.words.clear();
        self.count = 0;
        self.time_ps = 0;
        self.lapse_to(start_ps);
    }

    pub(crate) fn time_ps(&self) -> i64 {
        self.time_ps
    }

    /// Adds one photon, not earlier than what is there.
    pub(crate) fn push(&mut self, arrival: Arrival) {
        let at_ps = time_ps(arrival);
        if at_ps - self.time_ps > LONGEST_DELAY_PS {
            self.lapse_to(at_ps);
        }
        self.words.push(((at_ps - self.time_ps) as u32) << PORT_BITS | port(arrival));
        self.time_ps = at_ps;
        self.count += 1;
    }

    /// Adds photons that are packed already, delay after delay, and reach over `span_ps`.
    pub(crate) fn extend(&mut self, packed: &[u32], span_ps: i64) {
        self.words.extend_from_slice(packed);
        self.time_ps += span_ps;
        self.count += packed.len() as u32;
    }

    /// Ends the epoch: what comes later belongs to the next one.
    pub(crate) fn finish(&mut self, end_ps: i64) -> Photons {
        self.lapse_to(end_ps);
        let mut words = vec![0; self.words.len() * 4];
        for (bytes, word) in words.as_chunks_mut().0.iter_mut().zip(&self.words) {
            *bytes = word.to_le_bytes();
        }
        Photons { count: self.count, words }
    }

    fn lapse_to(&mut self, at_ps: i64) {
        loop {
            let lapse = (at_ps - self.time_ps).clamp(0, i64::from(u32::MAX));
            self.words.extend([LAPSE, lapse as u32]);
            self.time_ps += lapse;
            if self.time_ps >= at_ps {
                break;
            }
        }
    }
}

/// What is wrong with a list of photons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhotonsError {
    #[error("{len} bytes of photons are not a whole number of 32-bit words")]
    NotWords { len: usize },
    #[error("the list of photons does not end with a lapse: it is cut short")]
    Unfinished,
    #[error("photons reach to {end_ps} ps after the epoch's start, outside [{min_ps}, {max_ps}] ps")]
    Span { end_ps: i64, min_ps: i64, max_ps: i64 },
    #[error("photons come at {start_ps} ps, before the {previous_ps} ps where the epoch before ended")]
    Overlap { start_ps: i64, previous_ps: i64 },
}

/// Words that are looked at together while there is no lapse among them.
const BLOCK: usize = 64;

/// What a list covers, found before any of it is used.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// No photon comes before this.
    pub(crate) start_ps: i64,
    /// All photons before this have come.
    pub(crate) end_ps: i64,
    /// Where there are lapses, by the place of their first word, and how long they are.
    pub(crate) lapses: Vec<(usize, i64)>,
}

impl Survey {
    /// Surveys a list, reusing the memory of an earlier survey.
    pub(crate) fn again(mut self, words: &[[u8; 4]]) -> Result<Self, PhotonsError> {
        let number = |word: &[u8; 4]| u32::from_le_bytes(*word);
        self.lapses.clear();
        self.end_ps = 0;
        let mut start_ps = None;
        let mut place = 0;
        while place < words.len() {
            let block = &words[place..words.len().min(place + BLOCK)];
            let highest = block.iter().map(number).fold(0, u32::max);
            let photons = match highest {
                LAPSE.. => block.iter().take_while(|word| number(word) < LAPSE).count(),
                _ => block.len(),
            };
            if photons > 0 {
                start_ps.get_or_insert(self.end_ps);
                self.end_ps += block[..photons].iter().map(|word| i64::from(number(word) >> PORT_BITS)).sum::<i64>();
                place += photons;
            } else {
                let length_ps = i64::from(words.get(place + 1).map(number).ok_or(PhotonsError::Unfinished)?);
                self.lapses.push((place, length_ps));
                self.end_ps += length_ps;
                place += 2;
            }
        }
        self.start_ps = start_ps.unwrap_or(self.end_ps);
        match self.lapses.last() {
            Some(&(last, _)) if last + 2 == words.len() => Ok(self),
            _ => Err(PhotonsError::Unfinished),
        }
    }
}

/// The words of a list.
pub(crate) fn words(bytes: &[u8]) -> Result<&[[u8; 4]], PhotonsError> {
    match bytes.as_chunks() {
        (words, []) => Ok(words),
        _ => Err(PhotonsError::NotWords { len: bytes.len() }),
    }
}

/// Reads a list back: time after the epoch's nominal start in ps, and port.
///
/// # Errors
/// If the list is not made of whole words or not finished.
pub fn unpack(bytes: &[u8]) -> Result<Vec<(i64, u8)>, PhotonsError> {
    let words = words(bytes)?;
    Survey::default().again(words)?;
    let mut at_ps = 0;
    let mut photons = Vec::with_capacity(words.len());
    let mut words = words.iter().map(|&word| u32::from_le_bytes(word));
    while let Some(word) = words.next() {
        if word >= LAPSE {
            at_ps += words.next().map_or(0, i64::from);
        } else {
            at_ps += i64::from(word >> PORT_BITS);
            photons.push((at_ps, (word & 0b11) as u8));
        }
    }
    Ok(photons)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips_over_any_gap() {
        let mut packer = Packer::new();
        packer.begin(94_000_000);
        let longest = 94_000_000 + LONGEST_DELAY_PS;
        let times = [94_000_000, 94_000_000, longest, longest + LONGEST_DELAY_PS + 1, 40_000_000_000];
        for (i, &t) in times.iter().enumerate() {
            packer.push(arrival(t, i as u32 % 4));
        }
        let photons = packer.finish(50_000_000_000);
        assert_eq!(photons.count, 5);
        let expected: Vec<_> = times.iter().enumerate().map(|(i, &t)| (t, i as u8 % 4)).collect();
        assert_eq!(unpack(&photons.words).unwrap(), expected);
    }

    #[test]
    fn cut_lists_are_refused() {
        let mut packer = Packer::new();
        packer.begin(0);
        packer.push(arrival(7, 1));
        let words = packer.finish(20).words;
        assert_eq!(unpack(&words[..words.len() - 1]), Err(PhotonsError::NotWords { len: words.len() - 1 }));
        assert_eq!(unpack(&words[..words.len() - 4]), Err(PhotonsError::Unfinished));
        assert_eq!(unpack(&words[..words.len() - 8]), Err(PhotonsError::Unfinished));
        assert_eq!(unpack(&[]), Err(PhotonsError::Unfinished));
    }
}
