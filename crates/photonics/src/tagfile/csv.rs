//! Tables of text: a time and a channel a line, as exports of vendors' programs are.

use std::io::Read;

use super::TagFileError;
use super::format::{Format, TimeUnit};
use super::input::Input;
use super::read::{Entry, What};
use super::text;

/// Lines that are looked at where there is no header.
const SAMPLE: usize = 100;
/// Channels have small numbers.
const CHANNEL_MAX: i128 = 4096;

/// How the lines of a table are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Csv {
    time: usize,
    channel: usize,
    unit: TimeUnit,
}

impl Csv {
    /// Finds the columns from the first lines, and goes past the header.
    pub(super) fn open<R: Read>(input: &mut Input<R>, unit: Option<TimeUnit>) -> Result<Self, TagFileError> {
        let (csv, header) = columns(input.data())?;
        input.consume(header);
        Ok(Self { unit: unit.unwrap_or(csv.unit), ..csv })
    }

    pub(super) fn entry(&self, line: &str, offset: u64) -> Option<Entry> {
        let unreadable = Entry { time: 0, offset, what: What::Unreadable };
        Some(self.tag(line).map_or(unreadable, |(time, channel)| Entry { time, offset, what: What::Channel(channel) }))
    }

    fn tag(&self, line: &str) -> Option<(u64, i32)> {
        let field = |column| fields(line).nth(column);
        let time = decimal(field(self.time)?, self.unit.decimals())?;
        Some((u64::try_from(time).ok()?, field(self.channel)?.parse().ok()?))
    }
}

/// Text is hexadecimal words, or a table.
pub(super) fn recognise(head: &[u8]) -> Result<Format, TagFileError> {
    let first: Vec<(usize, &str)> = lines(head).take(3).collect();
    if !first.is_empty() && first.iter().all(|(_, line)| text::word(line).is_some()) {
        return Ok(Format::A2);
    }
    let is_half = |line: &str| line.len() == 8 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    if first.len() > 1 && first.iter().all(|(_, line)| is_half(line)) {
        let instead = "convert it to a1, such as with `parse-timestamps -A0 -a1` of fpfind";
        return Err(TagFileError::NotRead { offset: 0, what: "a0 text (halves of words)".to_owned(), instead });
    }
    columns(head).map(|_| Format::Csv(None))
}

/// Lines with something on them, and where they begin.
fn lines(head: &[u8]) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let whole = head.split_inclusive(|&byte| byte == b'\n').map(move |line| {
        let begin = at;
        at += line.len();
        (begin, std::str::from_utf8(line).unwrap_or("").trim_start_matches('\u{feff}').trim())
    });
    whole.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '%']))
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    let separator = [',', ';', '\t'].into_iter().find(|separator| line.contains(*separator));
    let fields: Box<dyn Iterator<Item = &str>> = match separator {
        Some(separator) => Box::new(line.split(separator)),
        None => Box::new(line.split_whitespace()),
    };
    fields.map(|field| field.trim().trim_matches('"'))
}

/// The columns, and the length of the header.
fn columns(head: &[u8]) -> Result<(Csv, usize), TagFileError> {
    let mut sample = lines(head);
    let Some((begin, first)) = sample.next() else {
        return Err(not_a_table(0, "there is no line with something on it"));
    };
    if fields(first).any(|field| decimal(field, 0).is_some()) {
        return by_content(head, begin).map(|csv| (csv, begin));
    }
    let names: Vec<String> = fields(first).map(str::to_lowercase).collect();
    let named = |wanted: &[&str]| names.iter().position(|name| words(name).any(|word| wanted.contains(&word)));
    let channel = named(&["channel", "chan", "ch", "detector", "input", "clickchannel", "tagchannel"]);
    let time = named(&["time", "timestamp", "timetag", "timestamps", "times", "tag", "t"]);
    match (time, channel) {
        (Some(time), Some(channel)) if time != channel => {
            let unit = words(&names[time]).find_map(TimeUnit::named).unwrap_or(TimeUnit::Ps);
            let header = sample.next().map_or(head.len(), |(next, _)| next);
            Ok((Csv { time, channel, unit }, header))
        }
        _ => Err(not_a_table(begin as u64, "its header names no column of times and one of channels")),
    }
}

/// The words of a column's name: `Time [ps]`, `time_ps`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Of the first two columns the one of times only grows; the other one has small whole numbers.
fn by_content(head: &[u8], begin: usize) -> Result<Csv, TagFileError> {
    let whole = head.iter().rposition(|&byte| byte == b'\n').map_or(head, |end| &head[..=end]);
    let rows: Vec<[i128; 2]> = lines(whole)
        .take(SAMPLE)
        .filter_map(|(_, line)| {
            let mut numbers = fields(line).map(|field| decimal(field, 6));
            Some([numbers.next()??, numbers.next()??])
        })
        .collect();
    let small = |column: usize| {
        let channel = |row: &[i128; 2]| row[column] % 1_000_000 == 0 && row[column].abs() <= CHANNEL_MAX * 1_000_000;
        rows.iter().all(channel)
    };
    let grows =
        |column: usize| rows.windows(2).filter(|pair| pair[0][column] > pair[1][column]).count() * 8 <= rows.len();
    let fits = |time: usize| grows(time) && small(1 - time);
    match (rows.is_empty(), fits(0), fits(1)) {
        (false, true, _) => Ok(Csv { time: 0, channel: 1, unit: TimeUnit::Ps }),
        (false, false, true) => Ok(Csv { time: 1, channel: 0, unit: TimeUnit::Ps }),
        _ => Err(not_a_table(begin as u64, "its first two columns are not a time that grows and a channel")),
    }
}

fn not_a_table(offset: u64, why: &str) -> TagFileError {
    let why = format!("as text, {why}; a header such as `time_ps,channel` would say what is what");
    TagFileError::NotTags { offset, why }
}

/// A decimal number times a power of ten, rounded to a whole number. Exact: no binary fraction is involved.
fn decimal(text: &str, shift: i32) -> Option<i128> {
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 40)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = whole.len() + fraction.len();
    if digits == 0 || digits > 36 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    let power = shift + exponent - fraction.len() as i32;
    let value = match u32::try_from(power) {
        Ok(power) => value.checked_mul(10i128.checked_pow(power)?)?,
        Err(_) => match 10i128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => (value + divisor / 2) / divisor,
            None => 0,
        },
    };
    Some(if negative { -value } else { value })
}
