//! A run as text: a table for a terminal, plain lines for a pipe, JSON lines for a program.
//!
//! Pure: data in, text out. `view` decides which of them is shown and where.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use serde::Serialize;

use crate::run::verdict::{Kind, Reason};
use crate::snapshot::{Event, LinkRow, LinkState, RecordingRow, Snapshot, StoreRow, Summary};

const HEADINGS: [&str; 12] = [
    "LINK",
    "STATE",
    "LOSS dB",
    "Z /s",
    "X /s",
    "QBERz %",
    "QBERx %",
    "OFFSET us",
    "VIS %",
    "LOOPS",
    "SKR bit/s",
    "POOL bit",
];
const WIDTHS: [u16; 12] = [20, 14, 7, 8, 8, 7, 7, 12, 6, 8, 9, 10];
/// Events shown under the table.
const EVENTS_SHOWN: usize = 8;

/// Colours of the table, or none.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    pub colour: bool,
}

impl Theme {
    fn heading(self) -> Style {
        Style::default().add_modifier(Modifier::BOLD)
    }

    fn state(self, state: LinkState, ready: bool) -> Style {
        let colour = match state {
            LinkState::Locked if ready => Color::Green,
            LinkState::Locked | LinkState::Acquiring => Color::Yellow,
            LinkState::AuthenticationExhausted
            | LinkState::RolledBack
            | LinkState::PeerVersion
            | LinkState::ReservesDiffer => Color::Red,
            LinkState::Connecting | LinkState::Ended => Color::DarkGray,
        };
        if self.colour { Style::default().fg(colour) } else { Style::default() }
    }
}

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, theme: Theme) {
    let rows = snapshot.links.len() as u16 + 1;
    let stores: Vec<Line<'_>> = snapshot.stores.iter().map(|store| Line::from(store_line(store))).collect();
    let rolled_back = snapshot.rolled_back.iter().map(|row| Line::from(clean(&row.to_string())));
    let rolled_back: Vec<Line<'_>> = rolled_back.collect();
    let heights = [
        Constraint::Length(2),
        Constraint::Max(rows),
        Constraint::Max(2 * rolled_back.len() as u16),
        Constraint::Length(2),
        Constraint::Max(stores.len() as u16 + u16::from(!stores.is_empty())),
        Constraint::Min(0),
    ];
    let [head, table, warnings, legend, keys, events] = Layout::vertical(heights).areas(frame.area());
    let alarm = theme.state(LinkState::RolledBack, false);
    frame.render_widget(Paragraph::new(rolled_back).style(alarm).wrap(Wrap { trim: true }), warnings);
    frame.render_widget(Paragraph::new(stores), keys);
    frame.render_widget(Paragraph::new(heading(snapshot)), head);
    let header = Row::new(HEADINGS.iter().enumerate().map(|(column, text)| cell(column, (*text).to_owned())));
    let body = snapshot.links.iter().map(|link| {
        let cells = columns(link);
        Row::new(cells.into_iter().enumerate().map(|(column, text)| {
            let cell = cell(column, text);
            if column == 1 { cell.style(theme.state(link.state, link.ready)) } else { cell }
        }))
    });
    let widget = Table::new(body, WIDTHS).header(header.style(theme.heading())).column_spacing(1);
    frame.render_widget(widget, table);
    let text = "loops: p polarisation, f phase, u pump; = holding, ~ seeking, ! at its limit, - off.  Ctrl-C drains.";
    frame.render_widget(Paragraph::new(vec![Line::default(), Line::from(text)]), legend);
    let shown = snapshot.events.len().saturating_sub(EVENTS_SHOWN.min(usize::from(events.height)));
    let lines: Vec<Line<'_>> = snapshot.events[shown..].iter().map(|event| Line::from(event_line(event))).collect();
    frame.render_widget(Paragraph::new(Text::from(lines)), events);
}

/// A site's key: what it shares with each peer, and what its applications took.
fn store_line(store: &StoreRow) -> String {
    let mut text = format!("{:<20} keys out {:>8}  in {:>8} ", store.site, store.keys_supplied, store.keys_fetched);
    for pool in &store.pools {
        let way = if pool.relayed { " (relayed)" } else { "" };
        let gone = match pool {
            pool if pool.rolled_back => " (rolled back)",
            pool if !pool.peer_version.is_empty() => " (another version)",
            pool if !pool.connected => " (not connected)",
            _ => "",
        };
        let _ = write!(text, "  {} {} bit{way}{gone}", pool.peer, pool.stored_bits);
    }
    text
}

fn heading(snapshot: &Snapshot) -> Line<'static> {
    let mut text = format!("{}  {}", snapshot.topology, clock(snapshot.simulated_s));
    if let Some(target_s) = snapshot.target_s {
        let _ = write!(text, " of {}", clock(target_s));
    }
    let _ = write!(text, " simulated, {} wall ({:.1} x)", clock(snapshot.wall_s), pace(snapshot));
    if snapshot.lag_s > 1.0 {
        let _ = write!(text, ", {:.1} s behind", snapshot.lag_s);
    }
    let _ = write!(text, "  {}", if snapshot.ready() { "key is flowing" } else { "not all links have key yet" });
    if !snapshot.faults.is_empty() {
        let ids: Vec<&str> = snapshot.faults.iter().map(|fault| fault.id.as_str()).collect();
        let _ = write!(text, "  faults: {}", ids.join(" "));
    }
    let mut spans = vec![Span::raw(text)];
    if let Some(seed) = snapshot.seed {
        spans.push(Span::raw(format!("  seed {seed}: keys are worthless")));
    }
    Line::from(spans)
}

fn cell(column: usize, text: String) -> Cell<'static> {
    // Names to the left, numbers to the right.
    let line = Line::from(text);
    Cell::from(if matches!(column, 0 | 1 | 9) { line } else { line.right_aligned() })
}

/// The columns of one link, in the order of the headings.
fn columns(link: &LinkRow) -> [String; 12] {
    [
        link.name.clone(),
        state(link),
        format!("{:.1}", link.loss_db),
        number(link.sifted_z_hz, 0),
        number(link.sifted_x_hz, 0),
        percent(link.qber_z),
        percent(link.qber_x),
        number(link.clock_offset_ps.map(|offset_ps| offset_ps * 1e-6), 4),
        percent(link.visibility),
        link.loops.to_string(),
        number(link.skr_bps, 0),
        link.pool_bits.to_string(),
    ]
}

fn state(link: &LinkRow) -> String {
    match (link.state, link.acquired) {
        (LinkState::Acquiring, Some(share)) => format!("acquiring {:>3.0}%", 100.0 * share.clamp(0.0, 1.0)),
        (state, _) => state.name().to_owned(),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn percent(share: Option<f64>) -> String {
    number(share.map(|share| 100.0 * share), 2)
}

/// Seconds up to two minutes, then minutes and hours.
fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match whole {
        0..120 => format!("{seconds:.1} s"),
        120..3600 => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

fn pace(snapshot: &Snapshot) -> f64 {
    if snapshot.wall_s > 0.0 { snapshot.simulated_s / snapshot.wall_s } else { 0.0 }
}

// === plain lines ===

/// One line per link.
pub fn plain_lines(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .links
        .iter()
        .map(|link| {
            let c = columns(link);
            format!(
                "{:>9.1} s  {}  {}  Z {} /s  X {} /s  QBERz {} %  QBERx {} %  vis {} %  {}  SKR {} bit/s  {} bit",
                snapshot.simulated_s, c[0], c[1], c[3], c[4], c[5], c[6], c[8], c[9], c[10], c[11]
            )
        })
        .chain(snapshot.stores.iter().map(|store| format!("{:>9.1} s  {}", snapshot.simulated_s, store_line(store))))
        .chain(
            snapshot
                .rolled_back
                .iter()
                .map(|row| format!("{:>9.1} s  {}", snapshot.simulated_s, clean(&row.to_string()))),
        )
        .collect()
}

/// An event as one line.
pub fn event_line(event: &Event) -> String {
    let place = [event.link.as_str(), event.site.as_str()];
    let place: Vec<&str> = place.into_iter().filter(|text| !text.is_empty()).collect();
    format!("{:>9.1} s  {}  {}: {}", event.simulated_s, place.join(" "), event.name, clean(&event.message))
}

/// Text from elsewhere must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The end of a run for people.
pub fn summary_text(summary: &Summary) -> String {
    let mut text = format!(
        "\n{} simulated in {} wall time ({:.1} x)\n\n{:<20} {:>10} {:>10} {:>8} {:>8} {:>7} {:>12} {:>7}  keys\n",
        clock(summary.simulated_s),
        clock(summary.wall_s),
        if summary.wall_s > 0.0 { summary.simulated_s / summary.wall_s } else { 0.0 },
        "LINK",
        "SKR bit/s",
        "finite",
        "QBERz %",
        "QBERx %",
        "blocks",
        "key bits",
        "auth %",
    );
    for link in &summary.links {
        let keys = match (link.blocks, keys_fault(summary, &link.name)) {
            (_, Some(Kind::KeysDiffer)) => "DIFFER",
            (_, Some(Kind::KeysUnreadable)) => "UNREADABLE",
            (0, _) => "none",
            _ => "equal",
        };
        let _ = writeln!(
            text,
            "{:<20} {:>10.1} {:>10.1} {:>8.2} {:>8.2} {:>7} {:>12} {:>7.2}  {keys}",
            link.name,
            link.skr_bps,
            link.skr_finite_bps,
            100.0 * link.qber_z,
            100.0 * link.qber_x,
            link.blocks,
            link.key_bits,
            100.0 * link.authentication_fraction,
        );
        if link.blocks_voided + link.blocks_aborted > 0 {
            let _ = writeln!(text, "  {} blocks voided, {} aborted", link.blocks_voided, link.blocks_aborted);
        }
        if link.blocks_undecided > 0 {
            let _ = writeln!(text, "  {} blocks at one end alone, settled at the next start", link.blocks_undecided);
        }
    }
    if !summary.recordings.is_empty() {
        text.push('\n');
    }
    for recording in &summary.recordings {
        recording_text(&mut text, recording);
    }
    if !summary.verdict.is_good() {
        text.push('\n');
    }
    for line in summary.verdict.lines() {
        let _ = writeln!(text, "{}", clean(&line));
    }
    if let Some(seed) = summary.seed {
        let _ = writeln!(text, "\nseed {seed}: this run can be repeated and its keys are worthless");
    }
    text
}

/// What is wrong with the keys of a link.
fn keys_fault(summary: &Summary, link: &str) -> Option<Kind> {
    let of_keys = |reason: &&Reason| matches!(reason.kind, Kind::KeysDiffer | Kind::KeysUnreadable);
    let of_link = |reason: &&Reason| reason.link.as_deref() == Some(link);
    summary.verdict.reasons().iter().filter(of_keys).find(of_link).map(|reason| reason.kind)
}

fn recording_text(text: &mut String, recording: &RecordingRow) {
    let RecordingRow { site, file, format, clicks, lasts_s, used_s, .. } = recording;
    let file = clean(file);
    let _ =
        writeln!(text, "{site}: {file}, {format}, {clicks} clicks in {lasts_s:.3} s, of which {used_s:.3} s are used");
    if recording.skipped > 0 {
        let first = recording.skipped_first_byte.unwrap_or(0);
        let _ = writeln!(text, "  {} damaged entries were left out, the first at byte {first}", recording.skipped);
    }
    for remark in &recording.remarks {
        let _ = writeln!(text, "  {}", clean(remark));
    }
}

// === JSON lines ===

#[derive(Serialize)]
struct Tagged<'a, T> {
    event: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

fn json<T: Serialize>(event: &str, body: &T) -> String {
    // These types have string keys and no failing serialisers.
    serde_json::to_string(&Tagged { event, body }).unwrap_or_default()
}

/// `{"event":"status", ...}`.
pub fn snapshot_json(snapshot: &Snapshot) -> String {
    json("status", snapshot)
}

/// `{"event":"note", ...}`.
pub fn event_json(event: &Event) -> String {
    json("note", event)
}

/// `{"event":"summary", ...}`, the last line of a run.
pub fn summary_json(summary: &Summary) -> String {
    json("summary", summary)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "table_tests.rs"]
mod tests;
