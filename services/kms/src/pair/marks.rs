//! How far two ends came in a generation, as they tell each other.

use keystore::{Marks, Secret};
use proto::kms::v1::PairMarks;

/// How far the peer said that it came in a generation.
#[derive(Clone, Copy, Default)]
pub struct PeerMarks {
    pub generation: u32,
    pub marks: PairMarks,
    /// It is on the disk.
    pub noted: bool,
}

impl PeerMarks {
    const BYTES: usize = 4 + 5 * 8;

    pub fn encode(&self) -> Secret {
        let PairMarks { supply_drawn_end, relay_drawn_end, supply_redeemed_end, relay_redeemed_end, redeemed_bytes } =
            self.marks;
        let mut bytes = self.generation.to_le_bytes().to_vec();
        for value in [supply_drawn_end, relay_drawn_end, supply_redeemed_end, relay_redeemed_end, redeemed_bytes] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Secret::new(bytes)
    }

    pub fn decode(bytes: &Secret) -> Option<Self> {
        let (generation, rest) = bytes.expose().split_first_chunk::<4>()?;
        if bytes.len() != Self::BYTES {
            return None;
        }
        let value = |at: usize| rest.get(8 * at..).and_then(<[u8]>::first_chunk).map(|b| u64::from_le_bytes(*b));
        let marks = PairMarks {
            supply_drawn_end: value(0)?,
            relay_drawn_end: value(1)?,
            supply_redeemed_end: value(2)?,
            relay_redeemed_end: value(3)?,
            redeemed_bytes: value(4)?,
        };
        Some(Self { generation: u32::from_le_bytes(*generation), marks, noted: true })
    }
}

pub fn wire_marks(marks: &Marks) -> PairMarks {
    PairMarks {
        supply_drawn_end: marks.drawn_end[0],
        relay_drawn_end: marks.drawn_end[1],
        supply_redeemed_end: marks.redeemed_end[0],
        relay_redeemed_end: marks.redeemed_end[1],
        redeemed_bytes: marks.redeemed_bytes,
    }
}
