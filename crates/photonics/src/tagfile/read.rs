//! Reading any of the formats: clicks in order of time.

use std::io::Read;

use super::TagFileError;
use super::csv::Csv;
use super::format::Format;
use super::input::Input;
use super::mend::{Damage, Mender, Verdict};
use super::ptu::Ptu;
use super::text;
use super::units::Unit;
use super::words::{self, Layout};

/// What a format's decoder finds in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In units of the file, as they stand there.
    pub(super) time: u64,
    pub(super) offset: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Those that fired, one bit each.
    Detectors(u8),
    Channel(i32),
    /// Only that time has gone on.
    Time,
    /// Something that is no click, and whose time is coarse.
    Marker,
    /// A time without anything that happened then.
    Nothing,
    /// What cannot be understood; its time means nothing.
    Unreadable,
}

/// A click of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click {
    /// Without the wrap, in ticks of 4 ps.
    pub time: u128,
    /// As the file numbers it; detectors of words are 1 to 4.
    pub channel: i32,
}

enum Decoder {
    Words(Layout),
    Hex,
    Csv(Csv),
    Ptu(Ptu),
}

/// Reads clicks in order of time, and says what it skipped.
pub struct TagReader<R> {
    input: Input<R>,
    decoder: Decoder,
    entries: Vec<Entry>,
    next: usize,
    more: bool,
    mender: Mender,
    failure: Option<TagFileError>,
    format: Format,
}

/// Entries that a decision about one of them may look ahead.
pub(super) const AHEAD: usize = 8;

impl<R: Read> TagReader<R> {
    /// Reads `file` from its start.
    ///
    /// # Errors
    /// If the file has a header that cannot be understood.
    pub fn new(file: R, format: Format) -> Result<Self, TagFileError> {
        let mut input = Input::new(file);
        if !input.fill()? {
            return Err(TagFileError::Empty);
        }
        let (decoder, unit, mask) = match format {
            Format::A1 => of_words(Layout::A1),
            Format::A1HighFirst => of_words(Layout::A1_HIGH_FIRST),
            Format::A14ps => of_words(Layout::A1_4PS),
            Format::Raw125ps => of_words(Layout::RAW_125PS),
            Format::A2 => (Decoder::Hex, Layout::A1.unit, Layout::A1.mask()),
            Format::Csv(unit) => (Decoder::Csv(Csv::open(&mut input, unit)?), Unit::PS, u64::MAX),
            Format::Ptu => {
                let ptu = Ptu::open(&mut input)?;
                let unit = ptu.unit();
                (Decoder::Ptu(ptu), unit, u64::MAX)
            }
        };
        Ok(Self {
            input,
            decoder,
            entries: Vec::new(),
            next: 0,
            more: true,
            mender: Mender::new(unit, mask),
            failure: None,
            format,
        })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// What was skipped so far.
    pub fn damage(&self) -> Damage {
        self.mender.damage()
    }

    /// Appends the next clicks to `clicks`; 0 at the end of the file.
    ///
    /// # Errors
    /// If something is wrong with the file, after all the clicks before it have been handed over. A reader that
    /// has failed is at its end.
    pub fn read(&mut self, clicks: &mut Vec<Click>) -> Result<usize, TagFileError> {
        let before = clicks.len();
        loop {
            self.look_ahead();
            while self.next < self.entries.len() && (!self.more || self.next + AHEAD < self.entries.len()) {
                let (entry, ahead) = (self.entries[self.next], &self.entries[self.next + 1..]);
                self.next += 1;
                match self.mender.judge(entry, &ahead[..ahead.len().min(AHEAD)]) {
                    Ok(Verdict::Good(time, what)) => clicks.extend(of_entry(what, time)),
                    Ok(Verdict::Skip) => {}
                    Err(error) => {
                        self.close();
                        self.failure = Some(error);
                    }
                }
            }
            if clicks.len() > before {
                return Ok(clicks.len() - before);
            }
            if !self.more && self.next == self.entries.len() {
                return self.failure.take().map_or(Ok(0), Err);
            }
        }
    }

    /// Reads on where fewer entries wait than a decision needs.
    fn look_ahead(&mut self) {
        if !self.more || self.next + AHEAD < self.entries.len() {
            return;
        }
        self.entries.drain(..self.next);
        self.next = 0;
        while self.more && self.entries.len() <= AHEAD {
            let (input, entries) = (&mut self.input, &mut self.entries);
            let decoded = match &mut self.decoder {
                Decoder::Words(layout) => words::decode(*layout, input, entries),
                Decoder::Hex => text::decode(input, entries, text::hex_entry),
                Decoder::Csv(csv) => text::decode(input, entries, |line, offset| csv.entry(line, offset)),
                Decoder::Ptu(ptu) => ptu.decode(input, entries),
            };
            self.more = decoded.unwrap_or_else(|error| {
                self.failure = Some(error);
                false
            });
        }
    }

    /// What is left of the file is not looked at.
    fn close(&mut self) {
        self.more = false;
        self.entries.clear();
        self.next = 0;
    }
}

fn of_words(layout: Layout) -> (Decoder, Unit, u64) {
    (Decoder::Words(layout), layout.unit, layout.mask())
}

fn of_entry(what: What, time: u128) -> impl Iterator<Item = Click> {
    let (detectors, channel) = match what {
        What::Detectors(detectors) => (detectors, None),
        What::Channel(channel) => (0, Some(channel)),
        What::Time | What::Marker | What::Nothing | What::Unreadable => (0, None),
    };
    let named = (0..4).filter(move |port| detectors >> port & 1 == 1).map(|port| port + 1);
    named.chain(channel).map(move |channel| Click { time, channel })
}
