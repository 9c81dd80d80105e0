use proptest::prelude::*;

use super::*;

const ENDS: [Book; 2] = [Book::Announcer, Book::Matcher];

/// A consistent ledger out of arbitrary parts.
fn ledger(parts: [u64; 18], fate: u8) -> BlockLedger {
    let mut ledger = BlockLedger::default();
    let (check, key) = (parts[16], parts[17]);
    for (book, parts) in ENDS.into_iter().zip(parts.chunks(8)) {
        let sifted = [(Item::SiftedCheck, check), (Item::SiftedKey, key)];
        let lost = book.sheet().parts.iter().copied().zip(parts.iter().copied());
        ledger.book(Line(book, Item::Clicks), parts.iter().sum::<u64>() + check + key);
        lost.chain(sifted).for_each(|(item, value)| ledger.book(Line(book, item), value));
    }
    ledger.set(Line::CHECK_DISCLOSED, check);
    ledger.set(Line::CHECK_ERRORS, check / 20);
    ledger.set(Line::SIFTED_KEY, key);
    ledger.set(Line::KEY_ERRORS, key / 20);
    match fate % 3 {
        0 => ledger.void(),
        1 => ledger.abort(),
        _ => {
            let kept = key / 2;
            ledger
                .settle(Settlement {
                    failed_frames: key / 10,
                    leaked: key / 4,
                    verification: key / 100,
                    key: kept,
                    authentication: kept / 50,
                })
                .unwrap();
        }
    }
    ledger
}

/// Every line that is in a sum.
fn summed() -> Vec<Line> {
    let ends = ENDS.into_iter().flat_map(Book::lines);
    let key = Book::Key.sheet().parts.iter().map(|item| Line(Book::Key, *item));
    ends.chain(key).collect()
}

proptest! {
    #[test]
    fn every_fate_of_a_block_sums_exactly(parts in prop::array::uniform18(0u64..1 << 40), fate: u8) {
        ledger(parts, fate).check().unwrap();
    }

    #[test]
    fn totals_sum_exactly(
        blocks in prop::collection::vec((prop::array::uniform18(0u64..1 << 40), any::<u8>()), 0..20),
    ) {
        let mut total = BlockLedger::default();
        for (parts, fate) in &blocks {
            total.add(&ledger(*parts, *fate));
        }
        total.check().unwrap();
        let fates = [Line::BLOCKS_STORED, Line::BLOCKS_ABORTED, Line::BLOCKS_VOIDED];
        prop_assert_eq!(fates.map(|line| total.get(line)).iter().sum::<u64>(), blocks.len() as u64);
    }

    #[test]
    fn any_single_wrong_line_is_found(
        parts in prop::array::uniform18(1u64..1 << 40), fate: u8, line in 0usize..30, by in 1u64..1 << 40,
    ) {
        let mut wrong = ledger(parts, fate);
        prop_assert_eq!(summed().len(), 30);
        wrong.book(summed()[line], by);
        prop_assert!(wrong.check().is_err());
    }

    #[test]
    fn what_is_written_is_read(parts in prop::array::uniform18(0u64..1 << 40), fate: u8) {
        let ledger = ledger(parts, fate);
        let json = serde_json::to_string(&ledger).unwrap();
        prop_assert_eq!(serde_json::from_str::<BlockLedger>(&json).unwrap(), ledger);
    }
}

/// A block of a data folder of release 0.1.
const STORED: &str = concat!(
    r#"{"blocks_stored":1,"blocks_aborted":0,"blocks_voided":0,"announcer":{"clicks":107224,"#,
    r#""unmatched":92243,"ambiguous":0,"basis_mismatch":7509,"cross_double":0,"dead_time_dropped":2,"#,
    r#""unlocked":0,"merged":0,"invalid":0,"sifted_x":3771,"sifted_z":3699},"matcher":{"clicks":0,"#,
    r#""unmatched":0,"ambiguous":0,"basis_mismatch":0,"cross_double":0,"dead_time_dropped":0,"unlocked":0,"#,
    r#""merged":0,"invalid":0,"sifted_x":0,"sifted_z":0},"disclosed_x":3771,"voided_x":0,"errors_x":35,"#,
    r#""sifted_z":3699,"errors_z":11,"voided":0,"aborted":0,"failed_frames":0,"leaked":345,"#,
    r#""verification":64,"amplification":282,"authentication":258,"delivered":2750}"#,
);

#[test]
fn accounts_of_release_0_1_are_read_and_written_alike() {
    let ledger: BlockLedger = serde_json::from_str(STORED).unwrap();
    ledger.check().unwrap();
    assert_eq!((ledger.get(Line::SIFTED_KEY), ledger.get(Line::DELIVERED)), (3699, 2750));
    assert_eq!(serde_json::to_string(&ledger).unwrap(), STORED);
}

#[test]
fn an_account_that_is_cut_or_has_other_lines_is_refused() {
    let refused = |from: &str, to: &str| {
        assert!(STORED.contains(from), "{from}");
        serde_json::from_str::<BlockLedger>(&STORED.replacen(from, to, 1)).unwrap_err().to_string()
    };
    assert_eq!(refused(r#","leaked":345"#, ""), "the line `leaked` is missing");
    assert_eq!(refused(r#""clicks":107224,"#, ""), "the line `announcer.clicks` is missing");
    assert_eq!(refused(r#""matcher":{"#, r#""other":{"#), "the lines of `matcher` are missing");
    assert_eq!(refused(r#""leaked":"#, r#""told":1,"leaked":"#), "there is no line `told`");
    assert_eq!(refused(r#""clicks":"#, r#""told":1,"clicks":"#), "there is no line `told`");
    assert!(serde_json::from_str::<BlockLedger>("{}").is_err());
}

#[test]
fn clicks_of_a_receiver_are_stored_where_there_are_any_and_older_accounts_are_read() {
    let mut account = BlockLedger::default();
    let without = serde_json::to_string(&account).unwrap();
    assert!(!without.contains("receiver"), "{without}");
    assert_eq!(serde_json::from_str::<BlockLedger>(&without).unwrap(), account);
    for (item, value) in [(Item::Clicks, 9), (Item::Preamble, 4), (Item::OutsideGate, 2), (Item::SiftedKey, 3)] {
        account.set(Line(Book::Receiver, item), value);
    }
    account.set(Line::SIFTED_KEY, 3);
    account.abort();
    account.check().unwrap();
    let stored = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<BlockLedger>(&stored).unwrap(), account);
    let cut = stored.replace("\"outside_gate\":2,", "");
    let refused = serde_json::from_str::<BlockLedger>(&cut).unwrap_err().to_string();
    assert!(refused.contains("the line `receiver.outside_gate` is missing"), "{refused}");
    account.set(Line(Book::Receiver, Item::OutsideGate), 3);
    assert!(account.check().is_err());
}

#[test]
fn no_two_lines_have_one_name() {
    let names: Vec<String> = Book::ALL.into_iter().flat_map(Book::lines).map(Line::name).collect();
    let mut once = names.clone();
    once.sort();
    once.dedup();
    assert_eq!((names.len(), once.len()), (49, 49));
}

#[test]
fn a_settled_block_that_is_given_up_keeps_what_was_sifted_alone() {
    let mut ledger: BlockLedger = serde_json::from_str(STORED).unwrap();
    ledger.void();
    ledger.check().unwrap();
    let lines: Vec<(String, u64)> =
        ledger.lines().filter(|(_, value)| *value > 0).map(|(l, v)| (l.name(), v)).collect();
    let kept = lines.iter().filter(|(name, _)| !name.starts_with("announcer.")).map(|(n, v)| (n.as_str(), *v));
    let expected = [("blocks_voided", 1), ("voided_x", 3771), ("sifted_z", 3699), ("voided", 3699)];
    assert_eq!(kept.collect::<Vec<_>>(), expected);
}

#[test]
fn a_block_cannot_spend_more_than_it_has() {
    let mut ledger = BlockLedger::default();
    ledger.set(Line::SIFTED_KEY, 100);
    let spend = Settlement { failed_frames: 0, leaked: 50, verification: 30, key: 21, authentication: 0 };
    assert_eq!(ledger.settle(spend), Err(LedgerError::Sum { total: "sifted_z", stated: 100, parts: 101 }));
    assert_eq!(ledger.get(Line::BLOCKS_STORED), 0);
    let spend = Settlement { key: 20, authentication: 21, ..spend };
    assert!(matches!(ledger.settle(spend), Err(LedgerError::PartExceedsWhole { .. })));
}

#[test]
fn hostile_numbers_overflow_into_an_error() {
    let mut ledger = BlockLedger::default();
    for (line, value) in [(Line::SIFTED_KEY, 1), (Line::LEAKED, u64::MAX), (Line::DELIVERED, 2)] {
        ledger.set(line, value);
    }
    assert_eq!(ledger.check(), Err(LedgerError::Overflow { total: "sifted_z" }));
}

#[test]
fn the_table_shows_every_line_and_the_verdict() {
    insta::assert_snapshot!(ledger([1000; 18], 2).render());
    let mut wrong = BlockLedger::default();
    wrong.set(Line::SIFTED_KEY, 1);
    assert!(wrong.render().contains("SUMS WRONG"));
}
