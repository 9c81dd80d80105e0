//! Deciding which entries of a damaged file are good.

use super::TagFileError;
use super::read::{Entry, What};
use super::units::Unit;

/// The longest time without a click that still counts as one recording.
pub const JUMP_MAX_PS: u128 = 60_000_000_000_000;

/// This many entries in a row that lie behind the last good one are no damage: time goes back.
const BACK_MAX: u64 = 64;

/// Damage is small while at most one entry in this many is skipped ...
const DAMAGED_SHARE: u64 = 8;
/// ... once at least this many were read.
const ENTRIES_JUDGED: u64 = 256;

/// What was skipped of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Entries read.
    pub entries: u64,
    /// Their time lies before that of an entry ahead of them.
    pub behind: u64,
    /// Their time lies after that of most entries that follow.
    pub ahead: u64,
    /// The very click before them once more.
    pub repeated: u64,
    /// They name no detector.
    pub nothing: u64,
    /// Lines that are no time tag.
    pub unreadable: u64,
    /// Byte at which the first of them stands.
    pub first_at: Option<u64>,
}

impl Damage {
    /// Entries that were skipped.
    pub fn skipped(&self) -> u64 {
        self.behind + self.ahead + self.repeated + self.nothing + self.unreadable
    }
}

pub(super) enum Verdict {
    /// The entry's time in ticks, and what of it is new.
    Good(u128, What),
    Skip,
}

/// Follows time over wraps and damage.
pub(super) struct Mender {
    unit: Unit,
    mask: u64,
    jump_max: u128,
    /// Time of the last good entry, as it stands in the file and without wraps.
    last: Option<(u64, u128)>,
    /// Detectors and channel seen at exactly that time.
    seen: (u8, Option<i32>),
    /// Entries in a row behind the last good one: how many, and the first of them.
    back: u64,
    back_first: (u64, u64),
    damage: Damage,
}

impl Mender {
    pub(super) fn new(unit: Unit, mask: u64) -> Self {
        Self {
            unit,
            mask,
            jump_max: unit.units_of_ps(JUMP_MAX_PS),
            last: None,
            seen: (0, None),
            back: 0,
            back_first: (0, 0),
            damage: Damage::default(),
        }
    }

    pub(super) fn damage(&self) -> Damage {
        self.damage
    }

    /// How far `time` is ahead of `from`, over a wrap; `Err` says how far behind it is.
    fn ahead(&self, from: u64, time: u64) -> Result<u64, u64> {
        let ahead = time.wrapping_sub(from) & self.mask;
        if ahead <= self.mask / 2 { Ok(ahead) } else { Err(from.wrapping_sub(time) & self.mask) }
    }

    /// Whether `entry` is good, from what came before it and what follows.
    pub(super) fn judge(&mut self, entry: Entry, following: &[Entry]) -> Result<Verdict, TagFileError> {
        self.damage.entries += 1;
        if entry.what == What::Marker {
            return Ok(Verdict::Skip);
        }
        let Some((from, last)) = self.last else {
            // Nothing came before: the first that what follows agrees with.
            if entry.what == What::Unreadable || !self.fits(entry.time, following, true) {
                self.skip(entry)?;
                return Ok(Verdict::Skip);
            }
            return self.take(entry, u128::from(entry.time));
        };
        if entry.what == What::Unreadable {
            self.skip(entry)?;
            return Ok(Verdict::Skip);
        }
        match self.ahead(from, entry.time) {
            Err(back) => {
                if self.back == 0 {
                    self.back_first = (entry.offset, back);
                }
                self.back += 1;
                if self.back >= BACK_MAX {
                    let (offset, back) = self.back_first;
                    return Err(TagFileError::TimeGoesBack { offset, back_ps: self.unit.ps(u128::from(back)) });
                }
                self.skip(Entry { what: What::Channel(0), ..entry })?;
                Ok(Verdict::Skip)
            }
            Ok(_) if !self.fits(entry.time, following, false) => {
                self.damage.ahead += 1;
                self.skipped_at(entry.offset)?;
                Ok(Verdict::Skip)
            }
            Ok(ahead) if u128::from(ahead) > self.jump_max => {
                Err(TagFileError::TimeJumps { offset: entry.offset, ahead_ps: self.unit.ps(u128::from(ahead)) })
            }
            Ok(ahead) => self.take(entry, last + u128::from(ahead)),
        }
    }

    /// Whether at least half of what follows is not before `time`; at the start of a file, nor long after it.
    fn fits(&self, time: u64, following: &[Entry], closely: bool) -> bool {
        let (mut good, mut bad) = (0, 0);
        for next in following.iter().filter(|next| !matches!(next.what, What::Unreadable | What::Marker)) {
            let fits = self.ahead(time, next.time).is_ok_and(|ahead| !closely || u128::from(ahead) <= self.jump_max);
            if fits {
                good += 1;
            } else {
                bad += 1;
            }
        }
        // A file of one good word and a jump is a file of one good word.
        good >= bad || (closely && good + bad == 1)
    }

    fn take(&mut self, entry: Entry, time: u128) -> Result<Verdict, TagFileError> {
        if entry.what == What::Nothing {
            self.damage.nothing += 1;
            self.skipped_at(entry.offset)?;
            return Ok(Verdict::Skip);
        }
        let again = self.last.is_some_and(|(_, last)| last == time);
        if !again {
            self.seen = (0, None);
        }
        self.back = 0;
        self.last = Some((entry.time, time));
        let new = match entry.what {
            What::Detectors(detectors) => {
                let new = detectors & !self.seen.0;
                self.seen.0 |= detectors;
                (new != 0).then_some(What::Detectors(new))
            }
            What::Channel(channel) => (self.seen.1.replace(channel) != Some(channel)).then_some(entry.what),
            other => Some(other),
        };
        let Some(new) = new else {
            self.damage.repeated += 1;
            self.skipped_at(entry.offset)?;
            return Ok(Verdict::Skip);
        };
        Ok(Verdict::Good(self.unit.ticks(time), new))
    }

    fn skip(&mut self, entry: Entry) -> Result<(), TagFileError> {
        match entry.what {
            What::Unreadable => self.damage.unreadable += 1,
            What::Nothing => self.damage.nothing += 1,
            _ => self.damage.behind += 1,
        }
        self.skipped_at(entry.offset)
    }

    /// Refuses a file that is more damage than recording.
    fn skipped_at(&mut self, offset: u64) -> Result<(), TagFileError> {
        let first = *self.damage.first_at.get_or_insert(offset);
        let (skipped, entries) = (self.damage.skipped(), self.damage.entries);
        if entries >= ENTRIES_JUDGED && skipped * DAMAGED_SHARE > entries {
            return Err(TagFileError::Disorder { offset: first, skipped, entries });
        }
        Ok(())
    }
}
