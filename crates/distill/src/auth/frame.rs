//! What travels between two endpoints. One canonical encoding: a frame that decodes encodes to the same bytes.
//!
//! ```text
//! 0  version     u8      8  session  u64     24  payload length  u32
//! 1  kind        u8     16  step     u64     28  zero            u32
//! 2  flags       u8     32  payload, then with flag 1: tag number u64, tag 16 bytes
//! 3  zero        5 x u8
//! ```
//! Numbers are little-endian. In a hello the session is the sender's nonce and the step the echo of the peer's; its
//! tag, where it has one, is made under the key of the masks, and its tag number is 0. The first byte is the version in
//! every release, so that ends of two releases can tell.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 2;
const HEADER: usize = 32;
const TAG: usize = 24;
/// Bytes of a check under the key of the masks.
const CHECK: usize = 16;
const FLAG_TAGGED: u8 = 1;
const FLAG_REPEATED: u8 = 2;

/// Largest payload of a bundle.
pub const MAX_PAYLOAD: usize = 16 << 20;
/// Largest payload of a hello.
pub const MAX_HELLO: usize = 64 << 10;
/// Largest frame, for the limits of a transport.
pub const MAX_FRAME: usize = HEADER + MAX_PAYLOAD + TAG;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Opens a session.
    Hello,
    /// Asks who claims to have restarted to echo the nonce of the session that would end.
    Challenge,
    Bundle,
    /// Ends a session; the step says why.
    Close,
    /// Proves the counts of the sender's hello by a tag over both.
    Proof,
}

/// Number of the tag in its direction, and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagField {
    pub number: u64,
    pub tag: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub session: u64,
    pub step: u64,
    pub payload: Bytes,
    pub tag: Option<TagField>,
    /// Sent again because the sender waits in vain: whoever knows the frame already says its own last again.
    pub repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is truncated")]
    Truncated(usize),
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("frame version {0} is not {VERSION}")]
    Version(u8),
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    #[error("frame has bits set that must be zero")]
    Reserved,
    #[error("frame is {actual} bytes long and says {stated}")]
    Length { stated: usize, actual: usize },
}

/// The same frame, marked as sent again.
pub fn repeated(frame: &Bytes) -> Bytes {
    let mut frame = BytesMut::from(&frame[..]);
    if let Some(flags) = frame.get_mut(2) {
        *flags |= FLAG_REPEATED;
    }
    frame.freeze()
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Challenge => 2,
            Self::Bundle => 3,
            Self::Close => 4,
            Self::Proof => 5,
        }
    }

    fn largest_payload(self) -> usize {
        match self {
            Self::Hello => MAX_HELLO,
            Self::Bundle => MAX_PAYLOAD,
            Self::Proof => CHECK,
            Self::Challenge | Self::Close => 0,
        }
    }

    fn may_be_tagged(self) -> bool {
        matches!(self, Self::Hello | Self::Bundle | Self::Proof)
    }
}

impl Frame {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.payload.len() + TAG);
        out.put_u8(VERSION);
        out.put_u8(self.kind.code());
        out.put_u8(if self.tag.is_some() { FLAG_TAGGED } else { 0 } | if self.repeated { FLAG_REPEATED } else { 0 });
        out.put_bytes(0, 5);
        out.put_u64_le(self.session);
        out.put_u64_le(self.step);
        out.put_u32_le(self.payload.len() as u32);
        out.put_u32_le(0);
        out.put_slice(&self.payload);
        if let Some(tag) = &self.tag {
            out.put_u64_le(tag.number);
            out.put_slice(&tag.tag);
        }
        out.freeze()
    }

    /// Whether some bytes are a hello as endpoints of another release send it; its first eight bytes are the same in
    /// all.
    pub fn is_hello_of_another_version(bytes: &[u8]) -> bool {
        let Some([version, kind, _, zeros @ ..]) = bytes.first_chunk::<8>() else { return false };
        bytes.len() >= HEADER && *version != VERSION && *kind == Kind::Hello.code() && *zeros == [0; 5]
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let actual = bytes.len();
        if actual < HEADER {
            return Err(FrameError::Truncated(actual));
        }
        if actual > MAX_FRAME {
            return Err(FrameError::TooLong(actual));
        }
        let mut header = &bytes[..HEADER];
        let version = header.get_u8();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = match header.get_u8() {
            1 => Kind::Hello,
            2 => Kind::Challenge,
            3 => Kind::Bundle,
            4 => Kind::Close,
            5 => Kind::Proof,
            other => return Err(FrameError::Kind(other)),
        };
        let flags = header.get_u8();
        let mut zero = u64::from(header.get_u8()) | u64::from(header.get_u32_le());
        let session = header.get_u64_le();
        let step = header.get_u64_le();
        let length = header.get_u32_le() as usize;
        zero |= u64::from(header.get_u32_le());
        let tagged = flags & FLAG_TAGGED != 0;
        let repeated = flags & FLAG_REPEATED != 0;
        if zero != 0 || flags & !(FLAG_TAGGED | FLAG_REPEATED) != 0 || (tagged && !kind.may_be_tagged()) {
            return Err(FrameError::Reserved);
        }
        if length > kind.largest_payload() {
            return Err(FrameError::TooLong(length));
        }
        let stated = HEADER + length + if tagged { TAG } else { 0 };
        if stated != actual {
            return Err(FrameError::Length { stated, actual });
        }
        let tag = tagged.then(|| {
            let mut field = &bytes[HEADER + length..];
            let number = field.get_u64_le();
            let mut tag = [0; 16];
            field.copy_to_slice(&mut tag);
            TagField { number, tag }
        });
        Ok(Self { kind, session, step, payload: bytes.slice(HEADER..HEADER + length), tag, repeated })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let kind = prop_oneof![
            Just(Kind::Hello),
            Just(Kind::Challenge),
            Just(Kind::Bundle),
            Just(Kind::Close),
            Just(Kind::Proof)
        ];
        let tag = prop::option::of((any::<u64>(), any::<[u8; 16]>()));
        (kind, any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..100), tag, any::<bool>()).prop_map(
            |(kind, session, step, payload, tag, repeated)| Frame {
                repeated,
                kind,
                session,
                step,
                payload: payload[..payload.len().min(kind.largest_payload())].to_vec().into(),
                tag: tag.filter(|_| kind.may_be_tagged()).map(|(number, tag)| TagField { number, tag }),
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(frame in frames()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn what_decodes_is_canonical(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            good in frames(),
            at in 0usize..100,
            to: u8,
        ) {
            let mut damaged = good.encode().to_vec();
            let at = at % damaged.len();
            damaged[at] = to;
            for bytes in [Bytes::from(bytes), Bytes::from(damaged)] {
                if let Ok(frame) = Frame::decode(&bytes) {
                    prop_assert_eq!(frame.encode(), bytes);
                }
            }
        }

        #[test]
        fn truncation_is_refused(frame in frames(), cut in 1usize..140) {
            let bytes = frame.encode();
            let short = bytes.slice(..bytes.len().saturating_sub(cut));
            prop_assert!(Frame::decode(&short).is_err());
        }
    }

    #[test]
    fn oversized_frames_are_refused_before_anything_is_copied() {
        let long = Bytes::from(vec![0u8; MAX_FRAME + 1]);
        assert_eq!(Frame::decode(&long), Err(FrameError::TooLong(MAX_FRAME + 1)));
        let hello = Frame {
            kind: Kind::Hello,
            session: 1,
            step: 0,
            payload: vec![0; MAX_HELLO + 1].into(),
            tag: None,
            repeated: false,
        };
        assert_eq!(Frame::decode(&hello.encode()), Err(FrameError::TooLong(MAX_HELLO + 1)));
    }
}
