//! What a file of time tags is.

use std::fmt;
use std::str::FromStr;

use super::TagFileError;
use super::csv;
use super::mend::JUMP_MAX_PS;
use super::words::{Layout, WORD_BYTES};
use crate::tag::{PATTERN_MASK, ROLLOVER};

/// Formats that are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// 64-bit little-endian words: bits 63..10 time in 1/256 ns, bit 4 rollover, bits 3..0 detectors.
    #[default]
    A1,
    /// The same with the halves of each word swapped.
    A1HighFirst,
    /// As `a1` in units of 4 ps: recordings of qkdnet from before it counted as laboratories do.
    A14ps,
    /// The raw form of older instruments: high half first, bits 63..15 time in 1/8 ns, bits 3..0 detectors.
    Raw125ps,
    /// An `a1` word a line, in hexadecimal digits.
    A2,
    /// A time and a channel a line; the unit as the header says, otherwise ps.
    Csv(Option<TimeUnit>),
    /// PicoQuant's unified format in T2 mode.
    Ptu,
}

/// Unit of times in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Ps,
    Ns,
    Us,
    Ms,
    S,
}

impl TimeUnit {
    const ALL: [(&'static str, Self); 6] =
        [("ps", Self::Ps), ("ns", Self::Ns), ("us", Self::Us), ("\u{b5}s", Self::Us), ("ms", Self::Ms), ("s", Self::S)];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, unit)| unit)
    }

    /// Powers of ten from ps.
    pub(super) fn decimals(self) -> i32 {
        match self {
            Self::Ps => 0,
            Self::Ns => 3,
            Self::Us => 6,
            Self::Ms => 9,
            Self::S => 12,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ps => "ps",
            Self::Ns => "ns",
            Self::Us => "us",
            Self::Ms => "ms",
            Self::S => "s",
        }
    }
}

impl Format {
    /// Names of all formats, for people to choose from.
    pub const NAMES: &'static str =
        "a1, a1-high-first, a1-4ps, raw-125ps, a2, csv, csv-ps, csv-ns, csv-us, csv-ms, csv-s, ptu";

    /// The time after which the counter of such a file starts again, where it does.
    pub fn wrap_ticks(self) -> Option<u128> {
        let layout = self.layout()?;
        Some(layout.unit.ticks(u128::from(layout.mask()) + 1))
    }

    /// Of a file of words.
    pub(super) fn layout(self) -> Option<Layout> {
        match self {
            Self::A1 | Self::A2 => Some(Layout::A1),
            Self::A1HighFirst => Some(Layout::A1_HIGH_FIRST),
            Self::A14ps => Some(Layout::A1_4PS),
            Self::Raw125ps => Some(Layout::RAW_125PS),
            Self::Csv(_) | Self::Ptu => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A1 => f.write_str("a1"),
            Self::A1HighFirst => f.write_str("a1-high-first"),
            Self::A14ps => f.write_str("a1-4ps"),
            Self::Raw125ps => f.write_str("raw-125ps"),
            Self::A2 => f.write_str("a2"),
            Self::Csv(None) => f.write_str("csv"),
            Self::Csv(Some(unit)) => write!(f, "csv-{}", unit.name()),
            Self::Ptu => f.write_str("ptu"),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.strip_prefix("csv-").and_then(TimeUnit::named);
        match text {
            "a1" => Ok(Self::A1),
            "a1-high-first" => Ok(Self::A1HighFirst),
            "a1-4ps" => Ok(Self::A14ps),
            "raw-125ps" => Ok(Self::Raw125ps),
            "a2" => Ok(Self::A2),
            "csv" => Ok(Self::Csv(None)),
            "ptu" => Ok(Self::Ptu),
            _ => unit.map(|unit| Self::Csv(Some(unit))).ok_or_else(|| format!("is none of {}", Self::NAMES)),
        }
    }
}

/// Starts of files that are known and not read: what they are, and what to do.
const NOT_READ: [(&[u8], &str, &str); 12] = [
    (b"SITT", "Swabian's binary format (.ttbin)", SWABIAN),
    (b"PQHISTO", "a PicoQuant histogram (.phu)", PICOQUANT),
    (b"PicoHarp", "PicoQuant's old format (.pt2, .pt3)", PICOQUANT),
    (b"HydraHarp", "PicoQuant's old format (.ht2, .ht3)", PICOQUANT),
    (b"TimeHarp", "PicoQuant's old format (.t3r)", PICOQUANT),
    (b"\x89HDF\r\n\x1a\n", "HDF5", TABLE),
    (b"\x93NUMPY", "a NumPy array", TABLE),
    (b"PAR1", "Parquet", TABLE),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
];
/// What to do with Swabian's own files.
pub(super) const SWABIAN: &str =
    "export it as text with Time Tagger Lab or TimeTagger.FileReader: a header `time_ps,channel`, then a tag a line";
const PICOQUANT: &str = "measure in T2 mode and save as .ptu";
const TABLE: &str = "export it as CSV: a header `time_ps,channel`, then a tag a line";
const UNPACK: &str = "unpack it first";

/// What a file is, from its first bytes (64 KiB are plenty).
///
/// # Errors
/// If it is none of what is read; the error says what it seems to be.
pub fn recognise(head: &[u8]) -> Result<Format, TagFileError> {
    if head.is_empty() {
        return Err(TagFileError::Empty);
    }
    if head.starts_with(b"PQTTTR") {
        return Ok(Format::Ptu);
    }
    for (magic, what, instead) in NOT_READ {
        if head.starts_with(magic) {
            return Err(TagFileError::NotRead { offset: 0, what: what.to_owned(), instead });
        }
    }
    if is_text(head) { csv::recognise(head) } else { of_words(head) }
}

/// Text has no control characters but white space; a UTF-8 mark may stand before it.
fn is_text(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    head.iter().take(4096).all(|&byte| byte >= b' ' && byte != 0x7f || matches!(byte, b'\t' | b'\n' | b'\r'))
}

/// Words that are looked at.
const SAMPLE: usize = 1024;

/// Which way round words make sense as time tags: nearly all in order, and of a detector.
fn of_words(head: &[u8]) -> Result<Format, TagFileError> {
    let words: Vec<[u8; WORD_BYTES]> = head.as_chunks::<WORD_BYTES>().0.iter().take(SAMPLE).copied().collect();
    if words.is_empty() {
        return Err(TagFileError::CutShort { offset: 0, bytes: head.len(), word: WORD_BYTES });
    }
    let native = |bytes: &[u8; WORD_BYTES]| u64::from_le_bytes(*bytes);
    let foreign = |bytes: &[u8; WORD_BYTES]| u64::from_be_bytes(*bytes);
    let orders = [
        (in_order(&words, native), Some(Format::A1)),
        (in_order(&words, |bytes| native(bytes).rotate_left(32)), Some(Format::A1HighFirst)),
        (in_order(&words, foreign), None),
        (in_order(&words, |bytes| foreign(bytes).rotate_left(32)), None),
    ];
    // The first of the best.
    let (ordered, format) = orders.into_iter().rev().max_by_key(|(ordered, _)| *ordered).unwrap_or_default();
    // Two words far apart may be all there is of a recording.
    if ordered * 8 >= (words.len() - 1) * 7 || words.len() == 2 {
        return format.ok_or(TagFileError::NotRead {
            offset: 0,
            what: "an a1 file of big-endian words".to_owned(),
            instead: "turn the bytes of each word round, such as with `byteswap` of NumPy",
        });
    }
    let (index, why) = first_fault(&words);
    Err(TagFileError::NotTags { offset: (index * WORD_BYTES) as u64, why })
}

fn is_ahead(before: u64, after: u64) -> bool {
    let layout = Layout::A1;
    let ahead = (after >> layout.time_shift).wrapping_sub(before >> layout.time_shift) & layout.mask();
    u128::from(ahead) <= layout.unit.units_of_ps(JUMP_MAX_PS)
}

/// Pairs of words that follow each other in time; none where too many name no detector.
fn in_order(words: &[[u8; WORD_BYTES]], word: impl Fn(&[u8; WORD_BYTES]) -> u64) -> usize {
    let named = words.iter().filter(|bytes| word(bytes) & (PATTERN_MASK | ROLLOVER) != 0).count();
    if named * 4 < words.len() * 3 {
        return 0;
    }
    words.windows(2).filter(|pair| is_ahead(word(&pair[0]), word(&pair[1]))).count()
}

/// The first word that cannot be of a recording, and why.
fn first_fault(words: &[[u8; WORD_BYTES]]) -> (usize, String) {
    let words: Vec<u64> = words.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let nothing = words.iter().position(|word| word & (PATTERN_MASK | ROLLOVER) == 0);
    let disorder = words.windows(2).position(|pair| !is_ahead(pair[0], pair[1])).map(|before| before + 1);
    match (nothing, disorder) {
        (Some(index), None) => (index, "neither a detector nor the rollover flag is set".to_owned()),
        (Some(index), Some(other)) if index <= other => {
            (index, "neither a detector nor the rollover flag is set".to_owned())
        }
        (_, index) => {
            (index.unwrap_or(0), "as words of 64 bits its times are not in order, whichever way round".to_owned())
        }
    }
}
