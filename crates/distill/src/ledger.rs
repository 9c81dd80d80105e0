//! Where every bit of a block went, from announced clicks to delivered key, in sums that must be exact.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What became of the clicks of one end. Every click is in exactly one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clicks {
    /// All clicks of the round.
    pub clicks: u64,
    /// No partner inside the coincidence window.
    pub unmatched: u64,
    /// More than one possible partner.
    pub ambiguous: u64,
    /// Matched, in different bases.
    pub basis_mismatch: u64,
    /// Detectors of both bases fired at once.
    pub cross_double: u64,
    /// Of two kept events within a dead time the second.
    pub dead_time_dropped: u64,
    /// Clicks while the clocks were not locked.
    pub unlocked: u64,
    /// Further clicks of the same basis in one coincidence window: one event with a random bit is made of them.
    pub merged: u64,
    /// Words of a tag stream that no detector belongs to.
    pub invalid: u64,
    pub sifted_x: u64,
    pub sifted_z: u64,
}

/// The ledger of one block, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockLedger {
    /// Blocks that ended with stored key, by the check basis or for want of key, and by a lost session.
    pub blocks_stored: u64,
    pub blocks_aborted: u64,
    pub blocks_voided: u64,
    pub announcer: Clicks,
    pub matcher: Clicks,
    /// Of `sifted_x`: compared in public, or thrown away with the rest of a voided round.
    pub disclosed_x: u64,
    pub voided_x: u64,
    /// Differing bits among `disclosed_x`.
    pub errors_x: u64,
    /// Bits of the key basis: all of them are in exactly one line from here to `delivered`.
    pub sifted_z: u64,
    /// Corrected bits among those that verified.
    pub errors_z: u64,
    /// In rounds that did not end: session lost, tag wrong, reserve empty.
    pub voided: u64,
    /// In blocks from which no key could be made.
    pub aborted: u64,
    /// In Cascade frames that did not verify.
    pub failed_frames: u64,
    /// Paid for disclosed parities.
    pub leaked: u64,
    /// Paid for verification hashes.
    pub verification: u64,
    /// Paid for the phase errors and, with a finite bound, for statistics.
    pub amplification: u64,
    /// Key that went into the authentication reserve.
    pub authentication: u64,
    /// Key that was handed over.
    pub delivered: u64,
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

impl Clicks {
    fn parts(&self) -> [u64; 10] {
        [
            self.unmatched,
            self.ambiguous,
            self.basis_mismatch,
            self.cross_double,
            self.dead_time_dropped,
            self.unlocked,
            self.merged,
            self.invalid,
            self.sifted_x,
            self.sifted_z,
        ]
    }

    /// Adds another round of the same end.
    pub fn add(&mut self, other: &Clicks) {
        let Clicks {
            clicks,
            unmatched,
            ambiguous,
            basis_mismatch,
            cross_double,
            dead_time_dropped,
            unlocked,
            merged,
            invalid,
            sifted_x,
            sifted_z,
        } = other;
        add(&mut self.clicks, *clicks);
        add(&mut self.unmatched, *unmatched);
        add(&mut self.ambiguous, *ambiguous);
        add(&mut self.basis_mismatch, *basis_mismatch);
        add(&mut self.cross_double, *cross_double);
        add(&mut self.dead_time_dropped, *dead_time_dropped);
        add(&mut self.unlocked, *unlocked);
        add(&mut self.merged, *merged);
        add(&mut self.invalid, *invalid);
        add(&mut self.sifted_x, *sifted_x);
        add(&mut self.sifted_z, *sifted_z);
    }
}

impl BlockLedger {
    /// Books a block that gave key. `sifted_z` must be set; amplification gets what the other lines leave.
    pub fn settle(&mut self, s: Settlement) -> Result<(), LedgerError> {
        let paid = sum("sifted_z", &[s.failed_frames, s.leaked, s.verification, s.key])?;
        let Some(amplification) = self.sifted_z.checked_sub(paid) else {
            return Err(LedgerError::Sum { total: "sifted_z", stated: self.sifted_z, parts: paid });
        };
        part_of("authentication", s.authentication, "key", s.key)?;
        self.failed_frames = s.failed_frames;
        self.leaked = s.leaked;
        self.verification = s.verification;
        self.amplification = amplification;
        self.authentication = s.authentication;
        self.delivered = s.key - s.authentication;
        self.blocks_stored = 1;
        Ok(())
    }

    /// Books a block of which no key could be made.
    pub fn abort(&mut self) {
        self.aborted = self.sifted_z;
        self.blocks_aborted = 1;
    }

    /// Books a round that did not end. Nothing of it is kept, and nothing of its check bits counts.
    pub fn void(&mut self) {
        self.voided = self.sifted_z;
        add(&mut self.voided_x, self.disclosed_x);
        self.disclosed_x = 0;
        self.errors_x = 0;
        self.errors_z = 0;
        self.blocks_voided = 1;
    }

    /// Adds another block, for totals. Counters stop at their largest value, which `check` then reports.
    pub fn add(&mut self, other: &BlockLedger) {
        let BlockLedger {
            blocks_stored,
            blocks_aborted,
            blocks_voided,
            announcer,
            matcher,
            disclosed_x,
            voided_x,
            errors_x,
            sifted_z,
            errors_z,
            voided,
            aborted,
            failed_frames,
            leaked,
            verification,
            amplification,
            authentication,
            delivered,
        } = other;
        self.announcer.add(announcer);
        self.matcher.add(matcher);
        add(&mut self.blocks_stored, *blocks_stored);
        add(&mut self.blocks_aborted, *blocks_aborted);
        add(&mut self.blocks_voided, *blocks_voided);
        add(&mut self.disclosed_x, *disclosed_x);
        add(&mut self.voided_x, *voided_x);
        add(&mut self.errors_x, *errors_x);
        add(&mut self.sifted_z, *sifted_z);
        add(&mut self.errors_z, *errors_z);
        add(&mut self.voided, *voided);
        add(&mut self.aborted, *aborted);
        add(&mut self.failed_frames, *failed_frames);
        add(&mut self.leaked, *leaked);
        add(&mut self.verification, *verification);
        add(&mut self.amplification, *amplification);
        add(&mut self.authentication, *authentication);
        add(&mut self.delivered, *delivered);
    }

    /// Whether every sum is exact. One end alone does not know the other's clicks: an end whose clicks are all zero
    /// is not compared.
    pub fn check(&self) -> Result<(), LedgerError> {
        for (clicks, name) in [(&self.announcer, "announcer"), (&self.matcher, "matcher")] {
            if *clicks == Clicks::default() {
                continue;
            }
            equals(name, clicks.clicks, &clicks.parts())?;
            equals("sifted_z", self.sifted_z, &[clicks.sifted_z])?;
            equals("sifted_x", clicks.sifted_x, &[self.disclosed_x, self.voided_x])?;
        }
        part_of("errors_x", self.errors_x, "disclosed_x", self.disclosed_x)?;
        part_of("errors_z", self.errors_z, "sifted_z", self.sifted_z)?;
        equals("sifted_z", self.sifted_z, &self.key_parts())
    }

    fn key_parts(&self) -> [u64; 8] {
        [
            self.voided,
            self.aborted,
            self.failed_frames,
            self.leaked,
            self.verification,
            self.amplification,
            self.authentication,
            self.delivered,
        ]
    }

    /// Share of the key that authentication used up.
    pub fn authentication_fraction(&self) -> f64 {
        let key = self.authentication.saturating_add(self.delivered);
        if key == 0 { 0.0 } else { self.authentication as f64 / key as f64 }
    }

    /// The ledger as a table for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let stored = [self.blocks_stored, self.blocks_aborted, self.blocks_voided];
        line(&mut text, "blocks stored", stored[0], None);
        line(&mut text, "blocks aborted", stored[1], None);
        line(&mut text, "blocks voided", stored[2], None);
        for (clicks, name) in [(&self.announcer, "announcer clicks"), (&self.matcher, "matcher clicks")] {
            if *clicks != Clicks::default() {
                render_clicks(&mut text, name, clicks);
            }
        }
        line(&mut text, "sifted X", self.disclosed_x.saturating_add(self.voided_x), None);
        let whole = Some(self.disclosed_x.saturating_add(self.voided_x));
        line(&mut text, "  disclosed", self.disclosed_x, whole);
        line(&mut text, "  voided", self.voided_x, whole);
        line(&mut text, "  (errors)", self.errors_x, Some(self.disclosed_x));
        line(&mut text, "sifted Z", self.sifted_z, None);
        const NAMES: [&str; 8] = [
            "  voided",
            "  aborted",
            "  failed frames",
            "  leaked",
            "  verification",
            "  amplification",
            "  authentication",
            "  delivered",
        ];
        for (name, value) in NAMES.iter().zip(self.key_parts()) {
            line(&mut text, name, value, Some(self.sifted_z));
        }
        line(&mut text, "  (errors)", self.errors_z, Some(self.sifted_z));
        let verdict = match self.check() {
            Ok(()) => "sums exact".to_owned(),
            Err(error) => format!("SUMS WRONG: {error}"),
        };
        text.push_str(&verdict);
        text.push('\n');
        text
    }
}

fn render_clicks(text: &mut String, name: &str, clicks: &Clicks) {
    const NAMES: [&str; 10] = [
        "  unmatched",
        "  ambiguous",
        "  basis mismatch",
        "  cross-basis double",
        "  within dead time",
        "  not locked",
        "  merged doubles",
        "  invalid words",
        "  sifted X",
        "  sifted Z",
    ];
    line(text, name, clicks.clicks, None);
    for (part, value) in NAMES.iter().zip(clicks.parts()) {
        line(text, part, value, Some(clicks.clicks));
    }
}

fn line(text: &mut String, name: &str, value: u64, whole: Option<u64>) {
    // Writing to a string cannot fail.
    let _ = match whole {
        Some(whole) if whole > 0 => {
            writeln!(text, "{name:<22}{value:>20}  {:>8.3} %", 100.0 * value as f64 / whole as f64)
        }
        _ => writeln!(text, "{name:<22}{value:>20}"),
    };
}

fn add(total: &mut u64, value: u64) {
    *total = total.saturating_add(value);
}

fn sum(total: &'static str, parts: &[u64]) -> Result<u64, LedgerError> {
    parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part)).ok_or(LedgerError::Overflow { total })
}

fn equals(total: &'static str, stated: u64, parts: &[u64]) -> Result<(), LedgerError> {
    let parts = sum(total, parts)?;
    if parts == stated { Ok(()) } else { Err(LedgerError::Sum { total, stated, parts }) }
}

fn part_of(part: &'static str, value: u64, whole: &'static str, limit: u64) -> Result<(), LedgerError> {
    if value <= limit { Ok(()) } else { Err(LedgerError::PartExceedsWhole { part, value, whole, limit }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A consistent ledger out of arbitrary parts.
    fn ledger(parts: [u64; 18], fate: u8) -> BlockLedger {
        let clicks = |offset: usize, sifted_x, sifted_z| {
            let p = &parts[offset..offset + 8];
            Clicks {
                clicks: p.iter().sum::<u64>() + sifted_x + sifted_z,
                unmatched: p[0],
                ambiguous: p[1],
                basis_mismatch: p[2],
                cross_double: p[3],
                dead_time_dropped: p[4],
                unlocked: p[5],
                merged: p[6],
                invalid: p[7],
                sifted_x,
                sifted_z,
            }
        };
        let (x, z) = (parts[16], parts[17]);
        let mut ledger = BlockLedger {
            announcer: clicks(0, x, z),
            matcher: clicks(8, x, z),
            disclosed_x: x,
            errors_x: x / 20,
            sifted_z: z,
            errors_z: z / 20,
            ..BlockLedger::default()
        };
        match fate % 3 {
            0 => ledger.void(),
            1 => ledger.abort(),
            _ => {
                let (leaked, key) = (z / 4, z / 2);
                ledger
                    .settle(Settlement {
                        failed_frames: z / 10,
                        leaked,
                        verification: z / 100,
                        key,
                        authentication: key / 50,
                    })
                    .unwrap();
            }
        }
        ledger
    }

    proptest! {
        #[test]
        fn every_fate_of_a_block_sums_exactly(parts in prop::array::uniform18(0u64..1 << 40), fate: u8) {
            ledger(parts, fate).check().unwrap();
        }

        #[test]
        fn totals_sum_exactly(blocks in prop::collection::vec((prop::array::uniform18(0u64..1 << 40), any::<u8>()), 0..20)) {
            let mut total = BlockLedger::default();
            for (parts, fate) in &blocks {
                total.add(&ledger(*parts, *fate));
            }
            total.check().unwrap();
            prop_assert_eq!(total.blocks_stored + total.blocks_aborted + total.blocks_voided, blocks.len() as u64);
        }

        #[test]
        fn any_single_wrong_line_is_found(parts in prop::array::uniform18(1u64..1 << 40), fate: u8, line in 0usize..30, by in 1u64..1 << 40) {
            let good = ledger(parts, fate);
            let mut json = serde_json::to_value(good).unwrap();
            let paths: Vec<String> = ["announcer", "matcher"].iter()
                .flat_map(|end| ["clicks", "unmatched", "ambiguous", "basis_mismatch", "cross_double", "dead_time_dropped", "unlocked","merged","invalid", "sifted_x", "sifted_z"]
                    .map(|part| format!("/{end}/{part}")))
                .chain(["voided", "aborted", "failed_frames", "leaked", "verification", "amplification", "authentication", "delivered"].map(|p| format!("/{p}")))
                .collect();
            let value = json.pointer_mut(&paths[line]).unwrap();
            *value = (value.as_u64().unwrap() + by).into();
            let wrong: BlockLedger = serde_json::from_value(json).unwrap();
            prop_assert!(wrong.check().is_err());
        }
    }

    #[test]
    fn json_round_trip() {
        let ledger = ledger([7; 18], 2);
        let json = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<BlockLedger>(&json).unwrap(), ledger);
    }

    #[test]
    fn a_block_cannot_spend_more_than_it_has() {
        let mut ledger = BlockLedger { sifted_z: 100, ..BlockLedger::default() };
        let spend = Settlement { failed_frames: 0, leaked: 50, verification: 30, key: 21, authentication: 0 };
        assert_eq!(ledger.settle(spend), Err(LedgerError::Sum { total: "sifted_z", stated: 100, parts: 101 }));
        assert_eq!(ledger.blocks_stored, 0);
        let spend = Settlement { key: 20, authentication: 21, ..spend };
        assert!(matches!(ledger.settle(spend), Err(LedgerError::PartExceedsWhole { .. })));
    }

    #[test]
    fn hostile_numbers_overflow_into_an_error() {
        let ledger = BlockLedger { sifted_z: 1, leaked: u64::MAX, delivered: 2, ..BlockLedger::default() };
        assert_eq!(ledger.check(), Err(LedgerError::Overflow { total: "sifted_z" }));
    }

    #[test]
    fn table_shows_every_line_and_the_verdict() {
        let text = ledger([1000; 18], 2).render();
        assert!(text.contains("cross-basis double") && text.contains("delivered") && text.ends_with("sums exact\n"));
        let wrong = BlockLedger { sifted_z: 1, ..BlockLedger::default() };
        assert!(wrong.render().contains("SUMS WRONG"));
    }
}
