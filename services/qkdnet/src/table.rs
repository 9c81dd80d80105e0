//! A run as text: a table for a terminal, plain lines for a pipe, JSON lines for a program.
//!
//! Pure: data in, text out. `view` decides which of them is shown and where.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use runner::snapshot::{Event, LinkRow, LinkState, LinkSummary, RecordingRow, Snapshot, StoreRow, Summary};
use runner::verdict::{Kind as Fault, Reason};
use serde::Serialize;
use topology::document::Fidelity;
use topology::figure::Figure;

/// A column that every link has.
struct Column {
    heading: &'static str,
    width: u16,
    /// Names to the left, numbers to the right.
    is_text: bool,
    cell: fn(&LinkRow) -> String,
}

/// Columns before and after the figures of a kind of link.
const FIRST: [Column; 3] = [
    Column { heading: "LINK", width: 20, is_text: true, cell: |link| link.name.clone() },
    Column { heading: "STATE", width: 14, is_text: true, cell: state },
    Column { heading: "LOSS dB", width: 7, is_text: false, cell: |link| format!("{:.1}", link.loss_db) },
];
const LAST: [Column; 3] = [
    Column { heading: "LOOPS", width: 8, is_text: true, cell: |link| link.loops.to_string() },
    Column { heading: "SKR bit/s", width: 9, is_text: false, cell: key_rate },
    Column { heading: "POOL bit", width: 10, is_text: false, cell: |link| link.pool_bits.to_string() },
];
/// Place of the state among the columns.
const STATE: usize = 1;
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
    let kinds = by_kind(&snapshot.links, |link| link.listing.columns);
    // A heading for each kind of link, and a line between them.
    let rows = snapshot.links.len() + (2 * kinds.len()).max(2) - 1;
    let stores: Vec<Line<'_>> = snapshot.stores.iter().map(|store| Line::from(store_line(store))).collect();
    let rolled_back = snapshot.rolled_back.iter().map(|row| Line::from(clean(&row.to_string())));
    let rolled_back: Vec<Line<'_>> = rolled_back.collect();
    let heights = [
        Constraint::Length(2),
        Constraint::Max(rows as u16),
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
    draw_links(frame, table, &kinds, theme);
    let text = "loops: p polarisation, f phase, u pump; = holding, ~ seeking, ! at its limit, - off.  Ctrl-C drains.";
    frame.render_widget(Paragraph::new(vec![Line::default(), Line::from(text)]), legend);
    let shown = snapshot.events.len().saturating_sub(EVENTS_SHOWN.min(usize::from(events.height)));
    let lines: Vec<Line<'_>> = snapshot.events[shown..].iter().map(|event| Line::from(event_line(event))).collect();
    frame.render_widget(Paragraph::new(Text::from(lines)), events);
}

/// Figures that some rows show, and these rows.
type Kind<'a, T> = (&'static [Figure], Vec<&'a T>);

/// Rows with equal figures together, in the order in which the first of each comes.
fn by_kind<T>(rows: &[T], figures: impl Fn(&T) -> &'static [Figure]) -> Vec<Kind<'_, T>> {
    let mut kinds: Vec<Kind<'_, T>> = Vec::new();
    for row in rows {
        let figures = figures(row);
        match kinds.iter_mut().find(|(known, _)| *known == figures) {
            Some((_, rows)) => rows.push(row),
            None => kinds.push((figures, vec![row])),
        }
    }
    kinds
}

/// A table for each kind of link, under the headings of its figures.
fn draw_links(frame: &mut Frame<'_>, area: Rect, kinds: &[Kind<'_, LinkRow>], theme: Theme) {
    let heights = kinds.iter().map(|(_, links)| Constraint::Length(links.len() as u16 + 1));
    let areas = Layout::vertical(heights).spacing(1).flex(Flex::Start).split(area);
    for ((figures, links), area) in kinds.iter().zip(areas.iter()) {
        let columns = FIRST.iter().map(|column| (column.heading.to_owned(), column.width, column.is_text));
        let columns = columns.chain(figures.iter().map(|figure| (figure.heading(), figure.width(), false)));
        let columns =
            columns.chain(LAST.iter().map(|column| (column.heading.to_owned(), column.width, column.is_text)));
        let columns: Vec<(String, u16, bool)> = columns.collect();
        let cells = |texts: Vec<String>| -> Vec<Cell<'static>> {
            texts.into_iter().zip(&columns).map(|(text, (_, _, is_text))| cell(text, *is_text)).collect()
        };
        let body = links.iter().map(|link| {
            let mut cells = cells(texts(link, figures));
            cells[STATE] = std::mem::take(&mut cells[STATE]).style(theme.state(link.state, link.ready));
            Row::new(cells)
        });
        let header = Row::new(cells(columns.iter().map(|(heading, ..)| heading.clone()).collect()));
        let widths = columns.iter().map(|(_, width, _)| *width);
        let widget = Table::new(body, widths).header(header.style(theme.heading())).column_spacing(1);
        frame.render_widget(widget, *area);
    }
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
            pool if pool.waiting_bits > 0 => " (full: its links wait)",
            _ => "",
        };
        let _ = write!(text, "  {} {} bit{way}{gone}", pool.peer, pool.stored_bits);
        if pool.expired_bits > 0 {
            let _ = write!(text, " (expired: {})", pool.expired_bits);
        }
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
    if let Some(time) = &snapshot.network_time {
        let _ = write!(text, ", {time}");
    }
    let _ = write!(text, "  {}", if snapshot.ready() { "key is flowing" } else { "not all links have key yet" });
    if let Some((name, first)) = first_block(snapshot) {
        let _ = write!(text, ", {name}: {first}");
    }
    if !snapshot.faults.is_empty() {
        let ids: Vec<&str> = snapshot.faults.iter().map(|fault| fault.id.as_str()).collect();
        let _ = write!(text, "  faults: {}", ids.join(" "));
    }
    let counted = counted(snapshot.links.iter().map(|link| (link.name.as_str(), link.fidelity)));
    if let Some(counted) = counted {
        let _ = write!(text, "  {counted}");
    }
    let mut spans = vec![Span::raw(text)];
    if let Some(seed) = snapshot.seed {
        spans.push(Span::raw(format!("  seed {seed}: keys are worthless")));
    }
    Line::from(spans)
}

/// The link whose first block is expected last, and when.
fn first_block(snapshot: &Snapshot) -> Option<(&str, String)> {
    let expected = snapshot.links.iter().filter_map(|link| Some((link, link.figures.value(Figure::FirstBlock)?)));
    let (link, expected_s) = expected.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let (left_s, pace) = ((expected_s - snapshot.simulated_s).max(0.0), pace(snapshot));
    let wall = if pace > 0.0 { format!(", {} from now at this pace", clock(left_s / pace)) } else { String::new() };
    Some((&link.name, format!("first block expected at {}{wall}", clock(expected_s))))
}

/// Which links' light is drawn as counts.
fn counted<'a>(links: impl Iterator<Item = (&'a str, Fidelity)>) -> Option<String> {
    let links: Vec<(&str, Fidelity)> = links.collect();
    let names: Vec<&str> =
        links.iter().filter(|(_, fidelity)| *fidelity == Fidelity::Counts).map(|(name, _)| *name).collect();
    match names.len() {
        0 => None,
        count if count == links.len() => Some("fidelity: counts".to_owned()),
        _ => Some(format!("fidelity: counts on {}", names.join(", "))),
    }
}

fn cell(text: String, is_text: bool) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(if is_text { line } else { line.right_aligned() })
}

/// The columns of one link.
fn texts(link: &LinkRow, figures: &[Figure]) -> Vec<String> {
    let of_figures = figures.iter().map(|figure| figure.number(link.figures.value(*figure)));
    let fixed = |columns: &'static [Column]| columns.iter().map(|column| (column.cell)(link));
    fixed(&FIRST).chain(of_figures).chain(fixed(&LAST)).collect()
}

fn key_rate(link: &LinkRow) -> String {
    Figure::SecretKeyRate.number(link.figures.value(Figure::SecretKeyRate))
}

fn state(link: &LinkRow) -> String {
    match (link.state, link.acquired) {
        (LinkState::Acquiring, Some(share)) => format!("acquiring {:>3.0}%", 100.0 * share.clamp(0.0, 1.0)),
        (state, _) => state.name().to_owned(),
    }
}

/// When the first block comes, where that is late.
fn expected(link: &LinkRow) -> String {
    let expected_s = link.figures.value(Figure::FirstBlock);
    expected_s.map_or_else(String::new, |s| format!(", first block at {}", clock(s)))
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
            let figures = link.listing.columns.iter();
            let figures: String = figures.map(|figure| figure.sentence(link.figures.value(*figure)) + "  ").collect();
            format!(
                "{:>9.1} s  {}  {}{}  {figures}{}  {}  {} bit",
                snapshot.simulated_s,
                link.name,
                state(link),
                expected(link),
                link.loops,
                Figure::SecretKeyRate.sentence(link.figures.value(Figure::SecretKeyRate)),
                link.pool_bits
            )
        })
        .chain(snapshot.stores.iter().map(|store| format!("{:>9.1} s  {}", snapshot.simulated_s, store_line(store))))
        .chain(
            snapshot
                .rolled_back
                .iter()
                .map(|row| format!("{:>9.1} s  {}", snapshot.simulated_s, clean(&row.to_string()))),
        )
        .chain(
            snapshot
                .network_time
                .iter()
                .filter(|time| time.wants_a_word())
                .map(|time| format!("{:>9.1} s  {time}", snapshot.simulated_s)),
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
        "\n{} simulated in {} wall time ({:.1} x)",
        clock(summary.simulated_s),
        clock(summary.wall_s),
        if summary.wall_s > 0.0 { summary.simulated_s / summary.wall_s } else { 0.0 },
    );
    if let Some(time) = &summary.network_time {
        let _ = write!(text, ", network time {}", clock(time.s));
    }
    text.push('\n');
    for (figures, links) in by_kind(&summary.links, |link| link.listing.brief) {
        let columns = figures.iter().map(|figure| (figure.heading(), usize::from(figure.width()).max(8)));
        let columns: Vec<(String, usize)> = columns.collect();
        let _ = write!(text, "\n{:<20} {:>10} {:>10}", "LINK", "SKR bit/s", "finite");
        for (heading, width) in &columns {
            let _ = write!(text, " {heading:>width$}");
        }
        let _ = writeln!(text, " {:>7} {:>12} {:>7}  keys", "blocks", "key bits", "auth %");
        for link in links {
            let value = |figure| link.figures.value(figure).unwrap_or(0.0);
            let rates = [Figure::SecretKeyRate, Figure::SecretKeyRateFinite].map(value);
            let _ = write!(text, "{:<20} {:>10.1} {:>10.1}", link.name, rates[0], rates[1]);
            for (figure, (_, width)) in figures.iter().zip(&columns) {
                let _ = write!(text, " {:>width$}", figure.number(Some(value(*figure))));
            }
            summary_line_end(&mut text, summary, link);
        }
    }
    if let Some(counted) = counted(summary.links.iter().map(|link| (link.name.as_str(), link.fidelity))) {
        let _ = writeln!(text, "\n{counted}");
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

fn summary_line_end(text: &mut String, summary: &Summary, link: &LinkSummary) {
    let keys = match (link.blocks, keys_fault(summary, &link.name)) {
        (_, Some(Fault::KeysDiffer)) => "DIFFER",
        (_, Some(Fault::KeysUnreadable)) => "UNREADABLE",
        (0, _) => "none",
        _ => "equal",
    };
    let share = Figure::AuthenticationShare;
    let share = share.number(Some(link.figures.value(share).unwrap_or(0.0)));
    let _ = writeln!(text, " {:>7} {:>12} {share:>7}  {keys}", link.blocks, link.key_bits);
    if link.blocks_voided + link.blocks_aborted > 0 {
        let _ = writeln!(text, "  {} blocks voided, {} aborted", link.blocks_voided, link.blocks_aborted);
    }
    let [restarts, interventions, available] =
        [Figure::Restarts, Figure::Interventions, Figure::Availability].map(|figure| link.figures.value(figure));
    let of_run = [restarts, interventions, available.map(|available| 1.0 - available)];
    if of_run.into_iter().flatten().any(|figure| figure > 0.0) {
        let restarts = Figure::Restarts.sentence(restarts);
        let interventions = Figure::Interventions.sentence(interventions);
        let _ = writeln!(text, "  {restarts}, {interventions}, {}", Figure::Availability.sentence(available));
    }
    if link.blocks_undecided > 0 {
        let _ = writeln!(text, "  {} blocks at one end alone, settled at the next start", link.blocks_undecided);
    }
}

/// What is wrong with the keys of a link.
fn keys_fault(summary: &Summary, link: &str) -> Option<Fault> {
    let of_keys = |reason: &&Reason| matches!(reason.kind, Fault::KeysDiffer | Fault::KeysUnreadable);
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
