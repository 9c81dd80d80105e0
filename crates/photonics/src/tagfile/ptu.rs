//! PicoQuant's unified format (.ptu), of measurements in T2 mode: a header of tags, then records of 32 bits with a
//! time since the last overflow and a channel.

use std::io::Read;

use super::TagFileError;
use super::input::Input;
use super::read::{Entry, What};
use super::units::Unit;

const RECORD_BYTES: usize = 4;
/// Name, index and type of a tag of the header, and its value.
const TAG_BYTES: usize = 48;
/// A header has some hundred tags; none has more.
const TAGS_MAX: usize = 100_000;
/// Types of tags whose value is the length of what follows.
const WITH_DATA: [u32; 4] = [0x2001_FFFF, 0x4001_FFFF, 0x4002_FFFF, 0xFFFF_FFFF];
const FLOAT: u32 = 0x2000_0008;

/// How an instrument writes its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Records {
    /// 28 bits of time below 4 of channel.
    PicoHarp,
    /// 25 bits of time, 6 of channel, 1 that marks what is no click; an overflow of so much, times what the record
    /// says.
    HydraHarp { overflow: u64, counted: bool },
}

const PICOHARP_OVERFLOW: u64 = 210_698_240;
/// Channel of the synchronisation input; the others are 1 and up.
const SYNC: i32 = 0;

pub(super) struct Ptu {
    records: Records,
    unit: Unit,
    overflow: u64,
    /// As the header states; 0 where it does not.
    stated: u64,
    found: u64,
}

impl Ptu {
    /// Reads the header.
    pub(super) fn open<R: Read>(input: &mut Input<R>) -> Result<Self, TagFileError> {
        let bad = |offset: u64, what: &str| TagFileError::Header { offset, what: what.to_owned() };
        if !input.data().starts_with(b"PQTTTR") {
            return Err(bad(0, "a .ptu file starts with PQTTTR"));
        }
        input.skip(16)?;
        let (mut kind, mut resolution, mut stated) = (None, None, 0);
        for _ in 0..TAGS_MAX {
            if input.data().len() < TAG_BYTES {
                input.fill()?;
            }
            let offset = input.offset();
            let Some(tag) = input.data().first_chunk::<TAG_BYTES>() else {
                return Err(bad(offset, "the header ends in the middle"));
            };
            let (name, type_, value) = parts(tag);
            match name.as_str() {
                "Header_End" => {
                    input.consume(TAG_BYTES);
                    let records = records(kind, offset)?;
                    let resolution = resolution.and_then(Unit::of_seconds);
                    let unit = resolution.ok_or_else(|| bad(offset, "the header states no resolution"))?;
                    return Ok(Self { records, unit, overflow: 0, stated, found: 0 });
                }
                "TTResultFormat_TTTRRecType" => kind = Some(value as u32),
                "TTResult_NumberOfRecords" => stated = value,
                "MeasDesc_GlobalResolution" if type_ == FLOAT => resolution = Some(f64::from_bits(value)),
                _ => {}
            }
            input.consume(TAG_BYTES);
            if WITH_DATA.contains(&type_) && !input.skip(value)? {
                return Err(bad(offset, "a tag of the header reaches beyond the file"));
            }
        }
        Err(bad(input.offset(), "the header does not end"))
    }

    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    pub(super) fn decode<R: Read>(
        &mut self,
        input: &mut Input<R>,
        entries: &mut Vec<Entry>,
    ) -> Result<bool, TagFileError> {
        let all = self.stated > 0 && self.found >= self.stated;
        if all {
            return Ok(false);
        }
        if !input.fill()? {
            let (offset, found, stated) = (input.offset(), self.found, self.stated);
            return if stated == 0 { Ok(false) } else { Err(TagFileError::RecordsMissing { offset, found, stated }) };
        }
        let (records, rest) = input.data().as_chunks::<RECORD_BYTES>();
        let left = if self.stated > 0 { self.stated - self.found } else { u64::MAX };
        let count = records.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (offset, rest) = (input.offset(), rest.len());
        let (kind, mut overflow) = (self.records, self.overflow);
        for (index, bytes) in records[..count].iter().enumerate() {
            let (time, what) = kind.read(u32::from_le_bytes(*bytes), &mut overflow);
            entries.push(Entry { time, offset: offset + (index * RECORD_BYTES) as u64, what });
        }
        self.overflow = overflow;
        self.found += count as u64;
        input.consume(count * RECORD_BYTES);
        if count == 0 {
            let offset = input.offset();
            input.consume(rest);
            return Err(TagFileError::CutShort { offset, bytes: rest, word: RECORD_BYTES });
        }
        Ok(true)
    }
}

fn parts(tag: &[u8; TAG_BYTES]) -> (String, u32, u64) {
    let name = tag[..32].split(|&byte| byte == 0).next().unwrap_or_default();
    let type_ = u32::from_le_bytes([tag[36], tag[37], tag[38], tag[39]]);
    let value = tag.last_chunk::<8>().map_or(0, |value| u64::from_le_bytes(*value));
    (String::from_utf8_lossy(name).into_owned(), type_, value)
}

fn records(kind: Option<u32>, offset: u64) -> Result<Records, TagFileError> {
    let hydra = |overflow, counted| Ok(Records::HydraHarp { overflow, counted });
    match kind {
        Some(0x0001_0203) => Ok(Records::PicoHarp),
        Some(0x0001_0204) => hydra(33_552_000, false),
        // HydraHarp 2, TimeHarp 260 N and P, MultiHarp and PicoHarp 330.
        Some(0x0101_0204 | 0x0001_0205 | 0x0001_0206 | 0x0001_0207) => hydra(33_554_432, true),
        Some(kind) if kind & 0xFF00 == 0x0300 => {
            let instead = "measure in T2 mode: T3 tells times since the last pulse";
            Err(TagFileError::NotRead { offset, what: "a .ptu file of T3 mode".to_owned(), instead })
        }
        Some(kind) => {
            let what = format!("a .ptu file with records of type {kind:#010x}");
            Err(TagFileError::NotRead { offset, what, instead: "export it as CSV: a header `time_ps,channel`" })
        }
        None => Err(TagFileError::Header { offset, what: "the header states no type of records".to_owned() }),
    }
}

impl Records {
    fn read(self, record: u32, overflow: &mut u64) -> (u64, What) {
        match self {
            Self::PicoHarp => {
                let (channel, time) = (record >> 28, record & 0x0FFF_FFFF);
                if channel != 0xF {
                    return (overflow.saturating_add(u64::from(time)), What::Channel(channel as i32));
                }
                // The low bits name markers; none is an overflow.
                if time & 0xF == 0 {
                    *overflow = overflow.saturating_add(PICOHARP_OVERFLOW);
                    return (*overflow, What::Time);
                }
                (overflow.saturating_add(u64::from(time & !0xF)), What::Marker)
            }
            Self::HydraHarp { overflow: step, counted } => {
                let (special, channel, time) = (record >> 31, record >> 25 & 0x3F, u64::from(record & 0x01FF_FFFF));
                match (special, channel) {
                    (0, channel) => (overflow.saturating_add(time), What::Channel(channel as i32 + 1)),
                    (_, 0x3F) => {
                        let times = if counted { time.max(1) } else { 1 };
                        *overflow = overflow.saturating_add(step.saturating_mul(times));
                        (*overflow, What::Time)
                    }
                    (_, 0) => (overflow.saturating_add(time), What::Channel(SYNC)),
                    _ => (overflow.saturating_add(time), What::Marker),
                }
            }
        }
    }
}
