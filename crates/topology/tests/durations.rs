//! Times that must be multiples of each other: judged by the arithmetic of decimals.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use topology::parse;
use topology::plan::{RunOptions, plan};

const GOOD: &str = include_str!("minimal.yaml");
const MS_PS: u64 = 1_000_000_000;
const UNITS: [(&str, u64); 4] = [("ms", MS_PS), ("s", 1000 * MS_PS), ("min", 60_000 * MS_PS), ("h", 3_600_000 * MS_PS)];

fn with(run: &str, of_link: &str) -> String {
    let text = GOOD.replacen("spec:\n", &format!("spec:\n  {run}\n"), 1);
    text.replacen("window: 120 ps", &format!("window: 120 ps\n      {of_link}"), 1)
}

fn text_of((thousandths, unit): (u64, usize)) -> (String, u64) {
    let (symbol, unit_ps) = UNITS[unit];
    (format!("{}.{:03} {symbol}", thousandths / 1000, thousandths % 1000), thousandths * (unit_ps / 1000))
}

#[test]
fn a_round_of_1080_ms_is_54_epochs_of_20_ms() {
    for (round, epoch, epochs) in [
        ("1.08 s", "20 ms", 54),
        ("0.27 s", "0.27 s", 1),
        ("1.1 min", "20 ms", 3300),
        ("8.7 min", "20 ms", 26_100),
        ("2.18 s", "20 ms", 109),
        ("0.017 s", "17 ms", 1),
        ("17 ms", "0.017 s", 1),
    ] {
        let run = format!("run: {{epoch: {epoch}}}");
        let link = format!("round: {round}\n      tracking: {{interval: {epoch}}}\n      acquisition: {{window: 1 s}}");
        let document = parse("net.yaml", with(&run, &link).as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
        let plan = plan(&document.topology, &RunOptions::default());
        assert_eq!(plan.sources().next().unwrap().round_epochs, epochs, "{round}");
    }
}

#[test]
fn a_key_of_8008_bit_may_be_written_in_kbit() {
    let text = with("keyManagement: {keySizeMax: 8.008 kbit}", "round: 60 s");
    let document = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan(&document.topology, &RunOptions::default());
    assert_eq!(plan.key_stores().next().unwrap().supply.key_size_max_bits, 8008);
    assert!(parse("net.yaml", with("keyManagement: {keySizeMax: 8.0081 kbit}", "round: 60 s").as_bytes()).is_err());
}

#[test]
fn a_step_acts_from_the_first_epoch_at_its_time_on() {
    for thousandths in (17..60_000).step_by(17) {
        let at = format!("{}.{:03} s", thousandths / 1000, thousandths % 1000);
        let link = format!(
            "round: 17 s\n      tracking: {{interval: 17 ms}}\n      disturbances: [{{type: pump, at: {at}, factor: 2}}]"
        );
        let document = parse("net.yaml", with("run: {epoch: 17 ms}", &link).as_bytes()).unwrap();
        let plan = plan(&document.topology, &RunOptions::default());
        let source = plan.entangled(&plan.links[0]).unwrap().pairs;
        let start_s = |epoch| photonics::config::epoch_start_s(epoch, plan.links[0].epoch_ps);
        let at_s = source.emitter.steps[0].at_s;
        let epoch = thousandths / 17;
        assert!(start_s(epoch - 1) < at_s && at_s <= start_s(epoch), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_round_is_judged_by_whole_numbers(round in (1u64..100_000, 0usize..4), epoch_ms in 1u64..1000) {
        let (round, round_ps) = text_of(round);
        let epoch_ps = epoch_ms * MS_PS;
        let run = format!("run: {{epoch: {}.{:03} s}}", epoch_ms / 1000, epoch_ms % 1000);
        let link = format!(
            "round: {round}\n      tracking: {{interval: {epoch_ms} ms}}\n      acquisition: {{window: 1 s}}"
        );
        let right = round_ps % epoch_ps == 0 && round_ps <= 3_600_000 * MS_PS;
        let answer = parse("net.yaml", with(&run, &link).as_bytes());
        prop_assert_eq!(answer.is_ok(), right, "{} in epochs of {} ms: {:?}", round, epoch_ms, answer.err());
    }

    /// As above, where most rounds fit.
    #[test]
    fn every_round_of_whole_epochs_is_taken(epochs in 1u64..3000, epoch_ms in 1u64..1000, unit in 0usize..2) {
        let (symbol, unit_ps) = UNITS[unit];
        let thousandths = epochs * epoch_ms * MS_PS / (unit_ps / 1000);
        let round = format!("{}.{:03} {symbol}", thousandths / 1000, thousandths % 1000);
        let link = format!(
            "round: {round}\n      tracking: {{interval: {epoch_ms} ms}}\n      acquisition: {{window: 1 s}}"
        );
        let answer = parse("net.yaml", with(&format!("run: {{epoch: {epoch_ms} ms}}"), &link).as_bytes());
        prop_assert!(answer.is_ok(), "{} in epochs of {} ms: {:?}", round, epoch_ms, answer.err());
    }
}
