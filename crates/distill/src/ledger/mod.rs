//! Where every bit of a block went, from clicks to delivered key: an account of named lines, in sums that must be
//! exact.
//!
//! Which lines there are is said in `line` alone: what a protocol accounts for is a book there, and everything here is
//! written for any of them.

mod form;
mod line;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;

pub use self::line::{Book, Item, Line};

/// The account of one block, or the sum of several. A line that was never booked is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockLedger {
    /// Without zeros.
    lines: BTreeMap<Line, u64>,
}

/// Which sum does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("{total} is {stated} but its parts make {parts}")]
    Sum { total: &'static str, stated: u64, parts: u64 },
    #[error("the parts of {total} exceed 2^64")]
    Overflow { total: &'static str },
    #[error("{part} is {value}, more than the {whole} it is part of ({limit})")]
    PartExceedsWhole { part: &'static str, value: u64, whole: &'static str, limit: u64 },
}

/// What a block that gave key is made of; see [`BlockLedger::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub failed_frames: u64,
    pub leaked: u64,
    pub verification: u64,
    /// Length that privacy amplification kept.
    pub key: u64,
    /// Of `key`: what goes into the authentication reserve.
    pub authentication: u64,
}

impl BlockLedger {
    pub fn get(&self, line: Line) -> u64 {
        self.lines.get(&line).copied().unwrap_or(0)
    }

    pub fn set(&mut self, line: Line, value: u64) {
        if value == 0 {
            self.lines.remove(&line);
        } else {
            self.lines.insert(line, value);
        }
    }

    /// Adds to a line. It stops at its largest value, which `check` then reports.
    pub fn book(&mut self, line: Line, value: u64) {
        self.set(line, self.get(line).saturating_add(value));
    }

    /// Every line of today's accounts in order. Lines of one end alone are there where they are not 0.
    pub fn lines(&self) -> impl Iterator<Item = (Line, u64)> {
        let shown = |line: &Line| line.0.sheet().name.is_none() || self.lines.contains_key(line);
        Book::ALL.into_iter().flat_map(Book::lines).filter(shown).map(|line| (line, self.get(line)))
    }

    /// Books a block that gave key. The sifted key must be booked; amplification gets what the other lines leave.
    pub fn settle(&mut self, s: Settlement) -> Result<(), LedgerError> {
        let (total, sifted) = (Item::SiftedKey.name(), self.get(Line::SIFTED_KEY));
        let paid = sum(total, [s.failed_frames, s.leaked, s.verification, s.key])?;
        let Some(amplification) = sifted.checked_sub(paid) else {
            return Err(LedgerError::Sum { total, stated: sifted, parts: paid });
        };
        part_of(Item::Authentication.name(), s.authentication, "key", s.key)?;
        self.set(Line::FAILED_FRAMES, s.failed_frames);
        self.set(Line::LEAKED, s.leaked);
        self.set(Line::VERIFICATION, s.verification);
        self.set(Line::AMPLIFICATION, amplification);
        self.set(Line::AUTHENTICATION, s.authentication);
        self.set(Line::DELIVERED, s.key - s.authentication);
        self.set(Line::BLOCKS_STORED, 1);
        Ok(())
    }

    /// Books a block of which no key could be made.
    pub fn abort(&mut self) {
        self.set(Line::ABORTED, self.get(Line::SIFTED_KEY));
        self.set(Line::BLOCKS_ABORTED, 1);
    }

    /// Books a round that did not end, or a block that was given up after it was settled. Nothing of it is kept, and
    /// nothing of its check bits counts.
    pub fn void(&mut self) {
        let sifted = self.get(Line::SIFTED_KEY);
        self.lines.retain(|line, _| !matches!(line.0, Book::Blocks | Book::Key));
        self.set(Line::SIFTED_KEY, sifted);
        self.set(Line::VOIDED, sifted);
        self.book(Line::CHECK_VOIDED, self.get(Line::CHECK_DISCLOSED));
        self.set(Line::CHECK_DISCLOSED, 0);
        self.set(Line::CHECK_ERRORS, 0);
        self.set(Line::BLOCKS_VOIDED, 1);
    }

    /// Adds another block, for totals.
    pub fn add(&mut self, other: &BlockLedger) {
        for (line, value) in &other.lines {
            self.book(*line, *value);
        }
    }

    /// Whether every sum is exact. One end alone does not know the other's clicks: an end whose clicks are all zero
    /// is not compared.
    pub fn check(&self) -> Result<(), LedgerError> {
        for book in Book::ALL {
            let sheet = book.sheet();
            if sheet.name.is_some() && self.is_blank(book) {
                continue;
            }
            if let Some(whole) = sheet.whole {
                equals(book.total(), self.get(Line(book, whole)), self.parts(book)?)?;
            }
            for (item, into) in sheet.carried {
                equals(item.name(), self.total(*into)?, self.get(Line(book, *item)))?;
            }
            if let Some((item, of)) = sheet.among {
                let (value, limit) = (self.get(Line(book, item)), self.get(Line(book, of)));
                part_of(item.name(), value, of.name(), limit)?;
            }
        }
        Ok(())
    }

    fn is_blank(&self, book: Book) -> bool {
        !self.lines.keys().any(|line| line.0 == book)
    }

    /// What the parts of a book make.
    fn parts(&self, book: Book) -> Result<u64, LedgerError> {
        sum(book.total(), book.sheet().parts.iter().map(|item| self.get(Line(book, *item))))
    }

    /// The sum of a book as it is stated, or else as its parts make it.
    fn total(&self, book: Book) -> Result<u64, LedgerError> {
        match book.sheet().whole {
            Some(whole) => Ok(self.get(Line(book, whole))),
            None => self.parts(book),
        }
    }

    /// Share of the key that authentication used up.
    pub fn authentication_fraction(&self) -> f64 {
        let authentication = self.get(Line::AUTHENTICATION);
        let key = authentication.saturating_add(self.get(Line::DELIVERED));
        if key == 0 { 0.0 } else { authentication as f64 / key as f64 }
    }
}

fn sum(total: &'static str, parts: impl IntoIterator<Item = u64>) -> Result<u64, LedgerError> {
    parts.into_iter().try_fold(0u64, u64::checked_add).ok_or(LedgerError::Overflow { total })
}

fn equals(total: &'static str, stated: u64, parts: u64) -> Result<(), LedgerError> {
    if parts == stated { Ok(()) } else { Err(LedgerError::Sum { total, stated, parts }) }
}

fn part_of(part: &'static str, value: u64, whole: &'static str, limit: u64) -> Result<(), LedgerError> {
    if value <= limit { Ok(()) } else { Err(LedgerError::PartExceedsWhole { part, value, whole, limit }) }
}
