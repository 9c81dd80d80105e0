use ratatui::Terminal;
use ratatui::backend::TestBackend;
use runner::snapshot::{
    BlockFigures, LoopState, Loops, NetworkTimeRow, PaceState, PacedLinkRow, PacerState, PoolRow, RolledBackRow,
};
use topology::document::Protocol;
use topology::figure::{Figures, Listing, Measured};

use super::*;

fn snapshot() -> Snapshot {
    let holding = Loops { polarisation: LoopState::Holding, phase: LoopState::Seeking, pump: LoopState::Limited };
    let locked = LinkRow {
        name: "valrose-sophia".into(),
        state: LinkState::Locked,
        ready: true,
        loss_db: 33.5,
        figures: Figures::of([
            (Figure::SiftedRateZ, 15_551.6),
            (Figure::SiftedRateX, 15_549.2),
            (Figure::QberZ, 0.04302),
            (Figure::QberX, 0.0470),
            (Figure::ClockOffset, -3_141_592_653.0),
            (Figure::ClockResidual, 2.5),
            (Figure::Visibility, 0.9865),
            (Figure::PeakWidth, 91.7),
            (Figure::Pump, 1.02),
            (Figure::SecretKeyRate, 7069.4),
            (Figure::SecretKeyRateFinite, 5230.0),
        ]),
        listing: Listing::of(Protocol::Bbm92EnergyTime),
        loops: holding,
        blocks: 12,
        key_bits: 848_280,
        pool_bits: 848_280,
        reserve_tags: 480,
        ..LinkRow::default()
    };
    let acquiring = LinkRow {
        name: "valrose-calern".into(),
        state: LinkState::Acquiring,
        acquired: Some(0.42),
        loss_db: 45.0,
        figures: Figures::of([(Figure::SiftedRateZ, f64::NAN), (Figure::Pump, 1.0)]),
        listing: Listing::of(Protocol::Bbm92EnergyTime),
        ..LinkRow::default()
    };
    Snapshot {
        topology: "nice".into(),
        simulated_s: 123.4,
        target_s: Some(600.0),
        wall_s: 10.0,
        lag_s: 0.0,
        seed: Some(7),
        links: vec![locked, acquiring],
        network_time: None,
        stores: Vec::new(),
        rolled_back: Vec::new(),
        faults: Vec::new(),
        events: vec![event()],
    }
}

fn event() -> Event {
    Event {
        simulated_s: 1.5,
        link: "valrose-sophia".into(),
        site: "sophia".into(),
        name: "locked".into(),
        message: "clock found at -3.14 ms\u{1b}[2J".into(),
        block: None,
    }
}

fn summary() -> Summary {
    let link = LinkSummary {
        name: "valrose-sophia".into(),
        ready: true,
        figures: Figures::of([
            (Figure::SecretKeyRate, 7071.25),
            (Figure::SecretKeyRateFinite, 5230.5),
            (Figure::QberZ, 0.0430),
            (Figure::QberX, 0.0471),
            (Figure::AuthenticationShare, 0.0038),
        ]),
        listing: Listing::of(Protocol::Bbm92EnergyTime),
        blocks: 60,
        blocks_aborted: 1,
        key_bits: 4_242_750,
        keys_equal: true,
        ..LinkSummary::default()
    };
    Summary {
        recordings: vec![],
        simulated_s: 600.0,
        wall_s: 60.0,
        seed: None,
        network_time: None,
        links: vec![link],
        verdict: Default::default(),
        rolled_back: Vec::new(),
    }
}

fn screen(width: u16, height: u16, snapshot: &Snapshot) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, snapshot, Theme { colour: false })).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_table_shows_every_figure_of_a_link() {
    let expected = "\
nice  2 min 03 s of 10 min 00 s simulated, 10.0 s wall (12.3 x)  not all links have key yet  seed 7: keys are worthless

LINK                 STATE          LOSS dB     Z /s     X /s QBERz % QBERx %    OFFSET us  VIS % LOOPS    SKR bit/s   POOL bit
valrose-sophia       locked            33.5    15552    15549    4.30    4.70   -3141.5927  98.65 p= f~ u!      7069     848280
valrose-calern       acquiring  42%    45.0        -        -       -       -            -      - p- f- u-         -          0

loops: p polarisation, f phase, u pump; = holding, ~ seeking, ! at its limit, - off.  Ctrl-C drains.
      1.5 s  valrose-sophia sophia  locked: clock found at -3.14 ms [2J
";
    assert_eq!(screen(132, 8, &snapshot()), expected);
}

#[test]
fn the_one_time_of_links_is_shown_and_that_nobody_keeps_it() {
    let links = vec![PacedLinkRow { link: "valrose-calern".into(), state: PaceState::Waiting, s: Some(123.5) }];
    let mut time = NetworkTimeRow { s: 122.96, skew_s: 1.0, pacer: PacerState::Running, links };
    let mut snapshot = Snapshot { network_time: Some(time.clone()), ..snapshot() };
    let head = |snapshot: &Snapshot| screen(220, 8, snapshot).lines().next().unwrap().to_owned();
    assert!(head(&snapshot).contains("wall (12.3 x), network time 123.0 s  not all"), "{}", head(&snapshot));
    let json: serde_json::Value = serde_json::from_str(&snapshot_json(&snapshot)).unwrap();
    let expected = serde_json::json!({
        "s": 122.96, "skew_s": 1.0, "pacer": "running",
        "links": [{"link": "valrose-calern", "state": "waiting", "s": 123.5}],
    });
    assert_eq!(json["networkTime"], expected);
    let summary = Summary { network_time: Some(time.clone()), ..summary() };
    assert!(
        summary_text(&summary).contains("wall time (10.0 x), network time 2 min 02 s\n"),
        "{}",
        summary_text(&summary)
    );
    assert_eq!(plain_lines(&snapshot).len(), 2);
    let absent = |link: &str, state| PacedLinkRow { link: link.into(), state, s: None };
    let mut waits = time.clone();
    waits.links.extend([absent("a-b", PaceState::Missing), absent("c-d", PaceState::Expected)]);
    waits.links.push(absent("e-f", PaceState::Missing));
    snapshot.network_time = Some(waits);
    let words = "network time 123.0 s, waits for c-d, goes on without a-b and 1 more";
    assert!(plain_lines(&snapshot).iter().any(|line| line.contains(words)), "{:?}", plain_lines(&snapshot));
    time.pacer = PacerState::Away;
    snapshot.network_time = Some(time);
    let stands = "network time 123.0 s stands: the pacer is away, and light waits 1 s ahead";
    assert!(head(&snapshot).contains(stands), "{}", head(&snapshot));
    assert!(plain_lines(&snapshot).iter().any(|line| line.contains(stands)));
}

/// A kind of link that no protocol of today is.
static PULSED: Listing =
    Listing { columns: &[Figure::QberX, Figure::Pump], brief: &[Figure::QberX], averaged: &[], beside: &[] };

/// A link of that kind between those of another one.
fn mixed() -> Snapshot {
    let mut snapshot = snapshot();
    let figures = Figures::of([(Figure::QberX, 0.031), (Figure::Pump, 0.98), (Figure::QberZ, 0.5)]);
    let pulsed = LinkRow { name: "trel-cape".into(), loss_db: 12.0, figures, listing: &PULSED, ..LinkRow::default() };
    snapshot.links.insert(1, pulsed);
    snapshot
}

#[test]
fn links_of_different_kinds_stand_under_headings_of_their_own() {
    let expected = "\
nice  2 min 03 s of 10 min 00 s simulated, 10.0 s wall (12.3 x)  not all links have key yet  seed 7: keys are worthless

LINK                 STATE          LOSS dB     Z /s     X /s QBERz % QBERx %    OFFSET us  VIS % LOOPS    SKR bit/s   POOL bit
valrose-sophia       locked            33.5    15552    15549    4.30    4.70   -3141.5927  98.65 p= f~ u!      7069     848280
valrose-calern       acquiring  42%    45.0        -        -       -       -            -      - p- f- u-         -          0

LINK                 STATE          LOSS dB QBERx %    PUMP LOOPS    SKR bit/s   POOL bit
trel-cape            connecting        12.0    3.10   0.980 p- f- u-         -          0

loops: p polarisation, f phase, u pump; = holding, ~ seeking, ! at its limit, - off.  Ctrl-C drains.
      1.5 s  valrose-sophia sophia  locked: clock found at -3.14 ms [2J
";
    assert_eq!(screen(132, 11, &mixed()), expected);
    let lines = plain_lines(&mixed());
    assert_eq!(lines[1], "    123.4 s  trel-cape  connecting  QBERx 3.10 %  pump 0.980  p- f- u-  SKR - bit/s  0 bit");
    let mut summary = summary();
    let figures = Figures::of([(Figure::SecretKeyRate, 2.5e6), (Figure::QberX, 0.031)]);
    summary.links.push(LinkSummary { name: "trel-cape".into(), figures, listing: &PULSED, ..LinkSummary::default() });
    let expected = "
LINK                  SKR bit/s     finite  QBERx %  blocks     key bits  auth %  keys
trel-cape             2500000.0        0.0     3.10       0            0    0.00  none
";
    assert!(summary_text(&summary).ends_with(expected), "{}", summary_text(&summary));
}

#[test]
fn figures_that_only_a_newer_version_knows_are_in_json_by_their_name_and_harm_nobody() {
    let mut snapshot = snapshot();
    snapshot.links[0].figures.hear("heraldingRatio", "1", Measured::Value(0.0048));
    let json: serde_json::Value = serde_json::from_str(&snapshot_json(&snapshot)).unwrap();
    assert_eq!(json["links"][0]["figures"]["heraldingRatio"], 0.0048);
    assert_eq!(screen(132, 8, &snapshot), screen(132, 8, &self::snapshot()));
}

#[test]
fn a_block_has_its_figures_and_the_counts_behind_them() {
    let mut figures = Figures::default();
    figures.set(Figure::QberZ, Measured::ratio(43, 1000));
    let block = Some(BlockFigures { number: 3, key_bits: 500, figures });
    let json: serde_json::Value = serde_json::from_str(&event_json(&Event { block, ..event() })).unwrap();
    let expected = serde_json::json!({
        "number": 3, "key_bits": 500, "qber_z": 0.043, "qber_x": 0.0,
        "sifted_z": 1000, "errors_z": 43, "sifted_x": 0, "errors_x": 0, "figures": {"qberZ": 0.043},
    });
    assert_eq!(json["block"], expected);
}

#[test]
fn a_small_terminal_shows_what_fits_and_never_panics() {
    for (width, height) in [(1, 1), (10, 2), (40, 3), (80, 5), (200, 60)] {
        screen(width, height, &snapshot());
        screen(width, height, &Snapshot::default());
        screen(width, height, &mixed());
    }
}

#[test]
fn plain_lines_hold_one_link_each() {
    let lines = plain_lines(&snapshot());
    assert_eq!(
        lines[0],
        "    123.4 s  valrose-sophia  locked  Z 15552 /s  X 15549 /s  QBERz 4.30 %  QBERx 4.70 %  \
         offset -3141.5927 us  vis 98.65 %  p= f~ u!  SKR 7069 bit/s  848280 bit"
    );
    assert!(lines[1].contains("acquiring  42%  Z - /s"));
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_message_cannot_steer_the_terminal() {
    assert!(event_line(&event()).chars().all(|c| !c.is_control()));
    let json = event_json(&event());
    assert!(json.chars().all(|c| !c.is_control()), "{json}");
}

#[test]
fn json_lines_have_the_fields_programs_rely_on() {
    let status: serde_json::Value = serde_json::from_str(&snapshot_json(&snapshot())).unwrap();
    assert_eq!(status["event"], "status");
    assert_eq!(status["links"][0]["state"], "locked");
    assert_eq!(status["links"][0]["loops"]["pump"], "limited");
    assert_eq!(status["links"][1]["sifted_z_hz"], serde_json::Value::Null);
    assert_eq!(status["links"][0]["qber_z"], status["links"][0]["figures"]["qberZ"]);
    assert_eq!((&status["links"][0]["pump"], &status["links"][1]["pump"]), (&1.02.into(), &1.0.into()));
    let line = summary_json(&summary());
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(
        line.starts_with("{\"event\":\"summary\",\"simulated_s\":600.0,\"wall_s\":60.0,\"seed\":null,\"links\":[{")
    );
    for key in ["name", "skr_bps", "qber_z", "qber_x", "blocks", "key_bits"] {
        assert!(!value["links"][0][key].is_null(), "{key}");
    }
    assert!(!line.contains('\n'));
}

#[test]
fn the_summary_says_what_came_out() {
    let expected = "
10 min 00 s simulated in 60.0 s wall time (10.0 x)

LINK                  SKR bit/s     finite  QBERz %  QBERx %  blocks     key bits  auth %  keys
valrose-sophia           7071.2     5230.5     4.30     4.71      60      4242750    0.38  equal
  0 blocks voided, 1 aborted
";
    assert_eq!(summary_text(&summary()), expected);
}

#[test]
fn the_summary_says_why_a_run_is_not_good_and_which_keys_differ() {
    let mut summary = summary();
    let reason = Reason::of_link(Fault::KeysDiffer, "valrose-sophia", "the two ends hold\u{1b}[2J different key");
    summary.verdict.add(reason.hint("keep the data"));
    let text = summary_text(&summary);
    assert!(text.contains("0.38  DIFFER\n"), "{text}");
    assert!(
        text.ends_with("\nerror: valrose-sophia: the two ends hold [2J different key\nhint: keep the data\n"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&summary_json(&summary)).unwrap();
    assert_eq!(json["verdict"]["exit_code"], 1);
    assert_eq!(json["verdict"]["reasons"][0]["kind"], "keys-differ");
}

#[test]
fn a_store_that_was_put_back_is_named_wherever_one_looks() {
    let row = RolledBackRow {
        site: "valrose".into(),
        store: "key store".into(),
        since: "2026-11-29T12:00:00Z".into(),
        message: "it is 3 chunks behind;\u{1b} run `qkdnet restore DIR`".into(),
    };
    let said = "key store of valrose was rolled back (since 2026-11-29T12:00:00Z): it is 3 chunks behind;  run `qkdnet restore DIR`";
    let pool = PoolRow { peer: "valrose".into(), rolled_back: true, ..PoolRow::default() };
    let mut snapshot = snapshot();
    snapshot.links[0].state = LinkState::RolledBack;
    snapshot.stores = vec![StoreRow { site: "sophia".into(), pools: vec![pool], ..StoreRow::default() }];
    snapshot.rolled_back = vec![row.clone()];
    let shown = screen(160, 14, &snapshot);
    assert!(shown.contains("valrose-sophia       rolled-back") && shown.contains(said), "{shown}");
    let lines = plain_lines(&snapshot);
    assert!(lines[0].contains("valrose-sophia  rolled-back") && lines[2].contains("(rolled back)"), "{lines:?}");
    assert!(lines[3].ends_with(said), "{lines:?}");
    let json: serde_json::Value = serde_json::from_str(&snapshot_json(&snapshot)).unwrap();
    assert_eq!(
        (&json["rolled_back"][0]["site"], &json["rolled_back"][0]["store"]),
        (&"valrose".into(), &"key store".into())
    );
}
