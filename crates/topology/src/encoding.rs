//! Bytes to text, as editors and shells write it: UTF-8 or UTF-16, with or without a byte order mark.

use std::borrow::Cow;

use crate::diagnostic::{Diagnostic, Position};
use crate::tree::FILE_BYTES_MAX;

const BOM: char = '\u{feff}';

/// The text of a file without its byte order mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Diagnostic> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes", bytes.len());
        return Err(Diagnostic::error(Position::START, "", message).expected(format!("at most {FILE_BYTES_MAX} bytes")));
    }
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err(Diagnostic::error(Position::START, "", "the file is UTF-32")
                .expected("text in UTF-8 (or UTF-16)")
                .hint("save it as UTF-8"))
        }
        // Without a mark, every second byte of ASCII is zero.
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        [1..=255, 0, 1..=255, 0, ..] => utf16(bytes, u16::from_le_bytes).map(Cow::Owned),
        [0, 1..=255, 0, 1..=255, ..] => utf16(bytes, u16::from_be_bytes).map(Cow::Owned),
        _ => utf8(bytes).map(Cow::Borrowed),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Diagnostic> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let good = std::str::from_utf8(&bytes[..at]).unwrap_or_default();
        let message = format!("byte {at} (0x{:02x}) is not UTF-8", bytes[at]);
        Diagnostic::error(end_of(good), "", message).expected("text in UTF-8").hint("save the file as UTF-8")
    })?;
    Ok(text.strip_prefix(BOM).unwrap_or(text))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Diagnostic> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    let broken = |text: &str, message: &str| {
        Diagnostic::error(end_of(text), "", format!("the file is UTF-16, and {message}"))
            .expected("text in UTF-8 (or UTF-16)")
            .hint("save the file as UTF-8")
    };
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match character {
            Ok(character) => text.push(character),
            Err(half) => {
                let message = format!("0x{:04x} here is half of a character", half.unpaired_surrogate());
                return Err(broken(&text, &message));
            }
        }
    }
    if rest.is_empty() { Ok(text) } else { Err(broken(&text, "its last character is cut")) }
}

/// The place behind a text that is the beginning of a file.
fn end_of(text: &str) -> Position {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let line_start = text.rfind(['\n', '\r']).map_or(0, |newline| newline + 1);
    let lines = text.matches('\n').count() + text.matches('\r').count() - text.matches("\r\n").count();
    Position { line: lines + 1, column: text[line_start..].chars().count() + 1 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_in_every_encoding_that_editors_write() {
        let text = "a: µ\r\nb: 😀\n";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (mark, bytes) in [
            (vec![], text.as_bytes()),
            (vec![0xef, 0xbb, 0xbf], text.as_bytes()),
            (vec![0xff, 0xfe], &le),
            (vec![0xfe, 0xff], &be),
            (vec![], &le),
            (vec![], &be),
        ] {
            assert_eq!(decode(&[mark, bytes.to_vec()].concat()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_text_is_refused_at_its_place() {
        let place = |bytes: &[u8]| decode(bytes).unwrap_err().position;
        assert_eq!(place(b"\xef\xbb\xbfa: 1\r\nb: \xb5"), Position { line: 2, column: 4 });
        assert_eq!(place(b"\xff\xfea\0:\0\n\0\0\xd8b\0"), Position { line: 2, column: 1 });
        assert_eq!(place(b"\xff\xfea\0:"), Position { line: 1, column: 2 });
        assert_eq!(place(b"\xff\xfe\0\0a\0\0\0"), Position::START);
    }
}
