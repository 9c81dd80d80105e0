//! Files of text: a tag a line.

use std::io::Read;

use super::TagFileError;
use super::input::Input;
use super::read::{Entry, What};
use super::words::Layout;

/// No line of a tag file is longer.
const LINE_BYTES_MAX: usize = 4096;

/// Appends the entries of the next lines; false at the end of the file.
pub(super) fn decode<R: Read>(
    input: &mut Input<R>,
    entries: &mut Vec<Entry>,
    entry: impl Fn(&str, u64) -> Option<Entry>,
) -> Result<bool, TagFileError> {
    if !input.fill()? {
        return Ok(false);
    }
    let (data, offset) = (input.data(), input.offset());
    let mut used = 0;
    while used < data.len() {
        let rest = &data[used..];
        let (line, length) = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            None if input.is_last() => (rest, rest.len()),
            None => break,
        };
        entries.extend(of_line(line, offset + used as u64, &entry));
        used += length;
    }
    if used == 0 {
        // The window is full of one line: what is in it is one unreadable entry.
        entries.push(Entry { time: 0, offset, what: What::Unreadable });
        used = data.len();
    }
    input.consume(used);
    Ok(true)
}

fn of_line(line: &[u8], offset: u64, entry: &impl Fn(&str, u64) -> Option<Entry>) -> Option<Entry> {
    let unreadable = Entry { time: 0, offset, what: What::Unreadable };
    if line.len() > LINE_BYTES_MAX {
        return Some(unreadable);
    }
    let Ok(text) = std::str::from_utf8(line) else { return Some(unreadable) };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() || text.starts_with(['#', '%']) {
        return None;
    }
    entry(text, offset)
}

/// The `a1` word of a line.
pub(super) fn hex_entry(line: &str, offset: u64) -> Option<Entry> {
    Some(match word(line) {
        Some(word) => Layout::A1.entry(word, offset),
        None => Entry { time: 0, offset, what: What::Unreadable },
    })
}

/// 16 hexadecimal digits.
pub(super) fn word(line: &str) -> Option<u64> {
    let digits = line.len() == 16 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(line, 16).ok()).flatten()
}
