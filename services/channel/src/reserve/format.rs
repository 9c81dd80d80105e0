//! How a reserve lies in its file: a header, then records, each with a check of its own.

use std::path::Path;

use distill::auth::{Layout, Side};
use sha2::{Digest, Sha256};
use shell::log::{Body, Framing, Torn};
use zeroize::Zeroizing;

use super::{BODY_MAX, OpenError};

const MAGIC: &[u8; 8] = b"QKDAUTH2";
/// Of releases before reserves had an identity and a key of masks.
const MAGIC_BEFORE: &[u8; 8] = b"QKDAUTH1";
/// Magic, side, three zeros, tags per hash key, checksum.
pub const HEADER: usize = 8 + 4 + 8 + CHECK;
/// Kind, check of kind and length, length of the body.
pub const RECORD_HEADER: usize = 8;
pub const CHECK: usize = 8;

pub fn header(side: Side, layout: Layout) -> Vec<u8> {
    header_of(MAGIC, side, layout)
}

fn header_of(magic: &[u8; 8], side: Side, layout: Layout) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&[u8::from(side == Side::Responder), 0, 0, 0]);
    bytes.extend_from_slice(&layout.tags_per_hash_key().to_le_bytes());
    let check = checksum(&bytes);
    bytes.extend_from_slice(&check);
    bytes
}

pub fn check_header(path: &Path, bytes: &[u8], side: Side, layout: Layout) -> Result<(), OpenError> {
    let damaged = |at, what| OpenError::Damaged { path: path.to_owned(), at, what };
    let head = bytes.get(..HEADER).ok_or_else(|| damaged(bytes.len(), "shorter than its header"))?;
    if !head.starts_with(MAGIC) && !head.starts_with(MAGIC_BEFORE) {
        return Err(damaged(0, "not an authentication reserve"));
    }
    let (content, check) = head.split_at(HEADER - CHECK);
    if checksum(content) != check {
        return Err(damaged(0, "checksum of the header"));
    }
    if header(side, layout) == head || header_of(MAGIC_BEFORE, side, layout) == head {
        return Ok(());
    }
    let tags = number(&content[12..]).map_or(0, |(tags, _)| tags);
    let describe = |responder: bool, tags: u64| {
        let side = if responder { "responder" } else { "initiator" };
        format!("the {side} and {tags} tags per hash key")
    };
    Err(OpenError::Other {
        path: path.to_owned(),
        found: describe(content[8] == 1, tags),
        expected: describe(side == Side::Responder, layout.tags_per_hash_key()),
    })
}

/// Whose file it is, by a header that is whole.
pub fn described(bytes: &[u8]) -> Option<(Side, Layout)> {
    let head = bytes.get(..HEADER)?;
    let (tags, _) = number(&head[12..])?;
    let side = if head[8] == 1 { Side::Responder } else { Side::Initiator };
    Some((side, Layout::new(tags)))
}

/// How records lie in the file. Any last record may be one that a crash tore: it costs a tag where it may have used
/// one.
pub const FRAMING: Framing = Framing { head_bytes: RECORD_HEADER, check_bytes: CHECK, body, torn: Torn::Last };

pub fn record(kind: u8, body: &[u8]) -> Zeroizing<Vec<u8>> {
    FRAMING.record(&record_header(kind, body.len() as u32), &[body])
}

fn body(head: &[u8]) -> Option<Body> {
    let (_, bytes) = record_head(head)?;
    (bytes <= BODY_MAX).then_some(Body { bytes: bytes as u64, erasable: false })
}

/// The length has a check of its own: a wrong one must not pass for a record that ends beyond the file.
fn record_header(kind: u8, length: u32) -> [u8; RECORD_HEADER] {
    let [a, b, c, d] = length.to_le_bytes();
    let check = checksum(&[kind, a, b, c, d]);
    [kind, check[0], check[1], check[2], a, b, c, d]
}

/// Kind and length of body of the record at the beginning of some bytes, also of one that was not written to its end;
/// nothing where not even its header was.
pub fn record_head(rest: &[u8]) -> Option<(u8, usize)> {
    let head: &[u8; RECORD_HEADER] = rest.first_chunk()?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    (record_header(head[0], length) == *head).then_some((head[0], length as usize))
}

pub fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(8)?;
    Some((u64::from_le_bytes(number.try_into().ok()?), rest))
}

pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest(bytes)[..CHECK]);
    check
}
