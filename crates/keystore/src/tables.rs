//! The tables of the database and their rows.

use redb::TableDefinition;

use crate::codec::{Reader, Row};
use crate::types::SPAN_BYTES;
use crate::{StoreError, Use};

/// Version of everything below, and of the journal.
pub(crate) const FORMAT: u32 = 5;
/// The oldest one that is read: its offered blocks have no time, its pools no count of abandoned blocks. That of 2
/// knows nothing that was taken in advance. That of 3 has no progress and no marks, that of 4 does not tell relayed
/// blocks from others.
pub(crate) const FORMAT_OLDEST: u32 = 1;

/// Pool, generation, position in the stream.
pub(crate) type Place = (u32, u32, u64);

/// Facts of the store: `format`, `instance`, `data_key`, `journal_epoch`, `progress`, and of what was put back (the whole
/// store, or the pool of a peer) `rolled-back` and `rolled-back/PEER`.
pub(crate) const STORE: TableDefinition<&str, &[u8]> = TableDefinition::new("store");
/// Peer to [`PoolRow`].
pub(crate) const POOLS: TableDefinition<&str, &[u8]> = TableDefinition::new("pools");
/// Pool and block to [`BlockRow`].
pub(crate) const BLOCKS: TableDefinition<(u32, u128), &[u8]> = TableDefinition::new("blocks");
/// Sealed bytes of offered blocks.
pub(crate) const OFFERED: TableDefinition<(u32, u128), &[u8]> = TableDefinition::new("offered");
/// Pool and order of decision to block: what to forget first.
pub(crate) const DECIDED: TableDefinition<(u32, u64), u128> = TableDefinition::new("decided");
/// Sealed bytes of the stream, in chunks that never cross a grant's border.
pub(crate) const STREAM: TableDefinition<Place, &[u8]> = TableDefinition::new("stream");
/// Consumption of a chunk that was partly redeemed, one bit per byte.
pub(crate) const TAKEN: TableDefinition<Place, &[u8]> = TableDefinition::new("taken");
/// Pool, generation, number to [`GrantRow`].
pub(crate) const GRANTS: TableDefinition<Place, &[u8]> = TableDefinition::new("grants");
/// Start of a block in the stream to [`OriginRow`].
pub(crate) const ORIGINS: TableDefinition<Place, &[u8]> = TableDefinition::new("origins");
pub(crate) const META: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("meta");
pub(crate) const DEPOSITS: TableDefinition<u128, &[u8]> = TableDefinition::new("deposits");
/// Expiry (wall ms) and deposit: what to erase first.
pub(crate) const DEPOSIT_EXPIRY: TableDefinition<(u64, u128), ()> = TableDefinition::new("deposit_expiry");

/// Longest stretch of stream in one record: sealed it fills one page of the database.
pub(crate) const CHUNK_BYTES: usize = 3968;

/// Bytes of one use that are gone or assigned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UseCounters {
    pub granted: u64,
    pub handed_out: u64,
    pub wasted: u64,
    pub expired: u64,
}

/// Bytes of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub offered: u64,
    /// Of what was offered: brought by relays.
    pub relayed: u64,
    pub pending: u64,
    pub pending_blocks: u64,
    pub confirmed: u64,
    pub deducted: u64,
    pub quarantined: u64,
    pub voided: u64,
    pub abandoned: u64,
    pub uses: [UseCounters; 4],
}

/// In [`PoolRow::leased`]: a row of a format that did not say.
pub(crate) const LEASED_UNKNOWN: u64 = u64::MAX;

/// A pool as it is on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolRow {
    pub id: u32,
    pub generation: u32,
    pub stream_end: u64,
    pub granted_end: u64,
    pub next_seq: u64,
    /// Decided blocks that are remembered: the numbers from `decided_first` up to `decided_next`.
    pub decided_first: u64,
    pub decided_next: u64,
    pub counters: Counters,
    /// By use: on lease, neither drawn nor wasted when this row was written. Wasted if found at opening.
    pub on_lease: [u64; 4],
    /// By lane: end of what was handed out for certain, and of what was on lease.
    pub drawn: [u64; 2],
    pub leased: [u64; 2],
    /// Supply, then relay: end of what was redeemed because somebody asked for it, as of the last checkpoint.
    pub redeemed: [u64; 2],
}

impl PoolRow {
    pub fn encode(&self) -> Vec<u8> {
        let c = &self.counters;
        let mut row = Row::default().u32(self.id).u32(self.generation).u64(self.stream_end).u64(self.granted_end);
        row = row.u64(self.next_seq).u64(self.decided_first).u64(self.decided_next);
        row = row.u64(c.offered).u64(c.pending).u64(c.pending_blocks).u64(c.confirmed).u64(c.deducted);
        row = row.u64(c.quarantined).u64(c.voided);
        for (use_, on_lease) in c.uses.iter().zip(self.on_lease) {
            row = row.u64(use_.granted).u64(use_.handed_out).u64(use_.wasted).u64(use_.expired).u64(on_lease);
        }
        row = row.u64(c.abandoned);
        for end in [self.drawn, self.leased, self.redeemed].into_iter().flatten() {
            row = row.u64(end);
        }
        row.u64(c.relayed).0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let mut pool = Self {
            id: r.u32()?,
            generation: r.u32()?,
            stream_end: r.u64()?,
            granted_end: r.u64()?,
            next_seq: r.u64()?,
            decided_first: r.u64()?,
            decided_next: r.u64()?,
            ..Self::default()
        };
        let c = &mut pool.counters;
        (c.offered, c.pending, c.pending_blocks) = (r.u64()?, r.u64()?, r.u64()?);
        (c.confirmed, c.deducted, c.quarantined, c.voided) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        for (use_, on_lease) in c.uses.iter_mut().zip(&mut pool.on_lease) {
            *use_ = UseCounters { granted: r.u64()?, handed_out: r.u64()?, wasted: r.u64()?, expired: r.u64()? };
            *on_lease = r.u64()?;
        }
        if !r.is_at_end() {
            c.abandoned = r.u64()?;
        }
        if r.is_at_end() {
            // Of format 3 or older: nothing is certain. The marks of the grants say how far it may have come.
            pool.leased = [LEASED_UNKNOWN; 2];
        } else {
            for ends in [&mut pool.drawn, &mut pool.leased, &mut pool.redeemed] {
                *ends = [r.u64()?, r.u64()?];
            }
            if !r.is_at_end() {
                pool.counters.relayed = r.u64()?;
            }
        }
        r.end()?;
        Ok(pool)
    }
}

/// How often the store was written to: more than any copy of it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Commits of the database.
    pub commits: u64,
    /// Records in the journals before the present epoch, and with it those that were on the disk at this commit.
    pub records_before: u64,
    pub records: u64,
}

impl Progress {
    pub fn encode(&self) -> Vec<u8> {
        Row::default().u64(self.commits).u64(self.records_before).u64(self.records).0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let progress = Self { commits: r.u64()?, records_before: r.u64()?, records: r.u64()? };
        r.end()?;
        Ok(progress)
    }
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Offered { origin: String, span: [u8; SPAN_BYTES], offered_ms: u64 },
    Confirmed { generation: u32, start: u64, deducted: u64 },
    Quarantined { reason: String },
    Abandoned { reason: String },
}

#[derive(Clone, Debug)]
pub(crate) struct BlockRow {
    pub bytes: u64,
    /// Keyed, so that a late re-offer can be compared when the bytes are gone.
    pub digest: [u8; 32],
    pub fate: Fate,
}

impl BlockRow {
    pub fn encode(&self) -> Vec<u8> {
        let row = Row::default().u64(self.bytes).raw(&self.digest);
        let row = match &self.fate {
            Fate::Offered { origin, span, offered_ms } => row.u8(3).raw(span).bytes(origin.as_bytes()).u64(*offered_ms),
            Fate::Confirmed { generation, start, deducted } => row.u8(1).u32(*generation).u64(*start).u64(*deducted),
            Fate::Quarantined { reason } => row.u8(2).bytes(reason.as_bytes()),
            Fate::Abandoned { reason } => row.u8(4).bytes(reason.as_bytes()),
        };
        row.0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let (bytes, digest) = (r.u64()?, r.array()?);
        let fate = match r.u8()? {
            // Of format 1.
            0 => {
                let span = r.array()?;
                Fate::Offered { origin: r.text()?, span, offered_ms: 0 }
            }
            1 => Fate::Confirmed { generation: r.u32()?, start: r.u64()?, deducted: r.u64()? },
            2 => Fate::Quarantined { reason: r.text()? },
            3 => {
                let span = r.array()?;
                Fate::Offered { origin: r.text()?, span, offered_ms: r.u64()? }
            }
            4 => Fate::Abandoned { reason: r.text()? },
            _ => return Err(StoreError::corrupt("a block has no known state")),
        };
        r.end()?;
        Ok(Self { bytes, digest, fate })
    }
}

/// A grant and how far it is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrantRow {
    pub use_: Use,
    pub active: bool,
    /// Nothing is left of it: its key is erased.
    pub done: bool,
    pub start: u64,
    pub bytes: u64,
    pub granted_ms: u64,
    /// Out: nothing below this position is ever drawn again.
    pub mark: u64,
    /// In: bytes redeemed as of the last checkpoint.
    pub taken: u64,
}

impl GrantRow {
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Of an Out grant, behind its mark.
    pub fn left_to_draw(&self) -> u64 {
        self.end() - self.mark
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.active) | u8::from(self.done) << 1;
        let row = Row::default().u8(self.use_.index() as u8).u8(flags).u64(self.start).u64(self.bytes);
        row.u64(self.granted_ms).u64(self.mark).u64(self.taken).0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let use_ = Use::of_index(r.u8()?).ok_or_else(|| StoreError::corrupt("a grant has no known use"))?;
        let flags = r.u8()?;
        let (start, bytes, granted_ms) = (r.u64()?, r.u64()?, r.u64()?);
        let (mark, taken) = (r.u64()?, r.u64()?);
        r.end()?;
        let fits = start.checked_add(bytes).is_some_and(|end| (start..=end).contains(&mark)) && taken <= bytes;
        if !fits {
            return Err(StoreError::corrupt("a grant is used up beyond its end"));
        }
        Ok(Self { use_, active: flags & 1 != 0, done: flags & 2 != 0, start, bytes, granted_ms, mark, taken })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct OriginRow {
    pub bytes: u64,
    pub block: u128,
    pub span: [u8; SPAN_BYTES],
    pub origin: String,
}

impl OriginRow {
    pub fn encode(&self) -> Vec<u8> {
        let row = Row::default().u64(self.bytes).raw(&self.block.to_be_bytes()).raw(&self.span);
        row.bytes(self.origin.as_bytes()).0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let (bytes, block) = (r.u64()?, u128::from_be_bytes(r.array()?));
        let span = r.array()?;
        let origin = r.text()?;
        r.end()?;
        Ok(Self { bytes, block, span, origin })
    }
}

/// A deposit: sealed key and who has still to take it.
#[derive(Clone, Debug)]
pub(crate) struct DepositRow {
    pub expires_ms: u64,
    pub master: String,
    /// Name, and whether it has taken the key.
    pub slaves: Vec<(String, bool)>,
    pub origin: String,
    pub digest: [u8; 32],
    pub sealed: Vec<u8>,
}

impl DepositRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Row::default().u64(self.expires_ms).bytes(self.master.as_bytes()).bytes(self.origin.as_bytes());
        row = row.raw(&self.digest).bytes(&self.sealed).u32(self.slaves.len() as u32);
        for (name, has_it) in &self.slaves {
            row = row.bytes(name.as_bytes()).u8(u8::from(*has_it));
        }
        row.0
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let (expires_ms, master, origin) = (r.u64()?, r.text()?, r.text()?);
        let (digest, sealed) = (r.array()?, r.bytes()?.to_vec());
        let slaves = (0..r.u32()?).map(|_| Ok((r.text()?, r.u8()? != 0))).collect::<Result<_, StoreError>>()?;
        r.end()?;
        Ok(Self { expires_ms, master, slaves, origin, digest, sealed })
    }
}
