//! Where a run is shown: a table on a terminal, lines into a pipe, JSON where asked for.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};

use crate::cli::Output;
use crate::snapshot::{Event, Snapshot, Summary};
use crate::style::Style;
use crate::table::{self, Theme};

/// How often plain lines are written; the table is drawn as often as it is updated.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Shows a run on standard output.
pub struct View {
    kind: Kind,
    last_plain: Option<Instant>,
}

enum Kind {
    Progress,
    Json,
    Plain,
    Screen(Screen),
}

impl View {
    /// A table where standard output is a terminal, otherwise lines.
    pub fn new(output: Output) -> Self {
        let kind = match output {
            Output::Json => Kind::Json,
            Output::Text if io::stdout().is_terminal() => Screen::open().map_or(Kind::Plain, Kind::Screen),
            Output::Text => Kind::Plain,
        };
        Self { kind, last_plain: None }
    }

    /// For commands whose standard output is something else: progress on standard error, and no summary.
    pub fn progress() -> Self {
        Self { kind: Kind::Progress, last_plain: None }
    }

    /// Whether the view owns the terminal, so that nothing else may write to it.
    pub fn is_screen(&self) -> bool {
        matches!(self.kind, Kind::Screen(_))
    }

    pub fn update(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        match &mut self.kind {
            Kind::Json => line(&table::snapshot_json(snapshot)),
            Kind::Screen(screen) => screen.draw(snapshot),
            Kind::Plain | Kind::Progress => {
                if self.last_plain.is_some_and(|last| last.elapsed() < PLAIN_INTERVAL) {
                    return Ok(());
                }
                self.last_plain = Some(Instant::now());
                let progress = matches!(self.kind, Kind::Progress);
                table::plain_lines(snapshot).iter().try_for_each(|text| if progress { note(text) } else { line(text) })
            }
        }
    }

    /// Says at once what happened; a screen shows it with the next update, from the snapshot.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        match &self.kind {
            Kind::Json => line(&table::event_json(event)),
            Kind::Plain => line(&table::event_line(event)),
            Kind::Progress | Kind::Screen(_) => Ok(()),
        }
    }

    /// Gives the terminal back and prints the summary.
    pub fn finish(self, summary: &Summary) -> io::Result<()> {
        match self.kind {
            Kind::Progress => Ok(()),
            Kind::Json => line(&table::summary_json(summary)),
            Kind::Plain => line(table::summary_text(summary).trim_end()),
            Kind::Screen(screen) => {
                drop(screen);
                line(table::summary_text(summary).trim_end())
            }
        }
    }
}

fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{text}")
}

/// The alternate screen, without raw mode: Ctrl-C stays a signal.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(Self { terminal, theme: Theme { colour: Style::of_stdout().colour } })
    }

    fn draw(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.terminal.draw(|frame| table::draw(frame, snapshot, self.theme)).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Also on a panic: the shell must get its screen and cursor back. There is nobody to tell of a failure.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    }
}
