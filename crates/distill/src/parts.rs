//! Limits on what a message is made of, before any of it is decoded.

use prost::DecodeError;
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// Whether a message has at most this many fields, each repetition counted. A part that is empty takes two bytes on the
/// wire and a hundred times as many in memory, so a limit on bytes is none on memory.
///
/// # Errors
/// If the message is malformed.
pub(crate) fn are_at_most(most: usize, message: &[u8]) -> Result<bool, DecodeError> {
    let (mut rest, mut parts) = (message, 0);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        parts += 1;
        if parts > most {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_what_is_cut_is_an_error() {
        // Field 2, a message without content, three times; then a number.
        let message = [0x12, 0, 0x12, 0, 0x12, 0, 0x08, 5];
        assert!(are_at_most(4, &message).unwrap());
        assert!(!are_at_most(3, &message).unwrap());
        assert!(are_at_most(0, &[]).unwrap());
        assert!(are_at_most(4, &message[..7]).is_err());
        assert!(are_at_most(4, &[0x12, 9, 0]).is_err());
    }
}
