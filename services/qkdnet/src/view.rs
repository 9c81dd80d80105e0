//! Where a run is shown: a table on a terminal, lines into a pipe, JSON where asked for.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use runner::Failure;
use runner::snapshot::{Event, Snapshot, Summary};
use runner::verdict::{Kind as Why, Reason};
use runner::watch::Audience;

use crate::cli::Output;
use crate::style::{Style, tell};
use crate::table::{self, Theme};

/// How often plain lines are written; the table is drawn as often as it is updated.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Shows a run on standard output. That nobody takes it is never a reason to end the run with an error.
pub struct View {
    kind: Kind,
    last_plain: Option<Instant>,
    broken: Option<Broken>,
}

/// Why nothing is shown any more.
enum Broken {
    /// Whoever read has gone: a closed pipe (`| head`), a terminal that hung up.
    Closed,
    /// What was to be kept is not, such as a file on a full disk.
    Failed(String),
}

impl Broken {
    fn of(error: &io::Error) -> Self {
        let hung_up = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ if hung_up => Self::Closed,
            _ => Self::Failed(error.to_string()),
        }
    }
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
        Self { kind, last_plain: None, broken: None }
    }

    /// For commands whose standard output is something else: progress on standard error, and no summary.
    pub fn progress() -> Self {
        Self { kind: Kind::Progress, last_plain: None, broken: None }
    }

    /// Whether the view owns the terminal, so that nothing else may write to it.
    pub fn is_screen(&self) -> bool {
        matches!(self.kind, Kind::Screen(_))
    }

    /// Why the output is not whole, where somebody wanted it.
    pub fn failure(&self) -> Option<&str> {
        match &self.broken {
            Some(Broken::Failed(why)) => Some(why),
            _ => None,
        }
    }

    fn keep(&mut self, shown: io::Result<()>) {
        if let Err(error) = shown {
            self.broken.get_or_insert_with(|| Broken::of(&error));
        }
    }

    fn show(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        match &mut self.kind {
            Kind::Json => line(&table::snapshot_json(snapshot)),
            Kind::Screen(screen) => screen.draw(snapshot),
            Kind::Plain | Kind::Progress => {
                if self.last_plain.is_some_and(|last| last.elapsed() < PLAIN_INTERVAL) {
                    return Ok(());
                }
                self.last_plain = Some(Instant::now());
                let progress = matches!(self.kind, Kind::Progress);
                for text in table::plain_lines(snapshot) {
                    if progress {
                        tell(&text);
                    } else {
                        line(&text)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Gives the terminal back and prints the summary, the verdict included; then the verdict is what the command
    /// returns.
    pub fn conclude(mut self, mut summary: Summary) -> Result<(), Failure> {
        let said = self.is_screen() && self.broken.is_none();
        if let Some(why) = self.failure() {
            let reason = Reason::new(Why::SideOutput, format!("the output was not written: {why}"));
            summary.verdict.add(reason);
        }
        if self.broken.is_none() {
            let shown = self.finish(&summary);
            // A reader that has gone by now misses the summary alone.
            if let Err(error) = shown
                && let Broken::Failed(why) = Broken::of(&error)
            {
                let reason = Reason::new(Why::SideOutput, format!("the summary was not written: {why}"));
                summary.verdict.add(reason);
                return summary.verdict.into_result(false);
            }
        }
        summary.verdict.into_result(said)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        match std::mem::replace(&mut self.kind, Kind::Progress) {
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

impl Audience for View {
    fn update(&mut self, snapshot: &Snapshot) {
        if self.broken.is_none() {
            let shown = self.show(snapshot);
            self.keep(shown);
        }
    }

    /// Says at once what happened; a screen shows it with the next update, from the snapshot.
    fn event(&mut self, event: &Event) {
        if self.broken.is_some() {
            return;
        }
        let shown = match &self.kind {
            Kind::Json => line(&table::event_json(event)),
            Kind::Plain => line(&table::event_line(event)),
            Kind::Progress | Kind::Screen(_) => Ok(()),
        };
        self.keep(shown);
    }

    /// Whether whoever read has gone.
    fn is_closed(&self) -> bool {
        matches!(self.broken, Some(Broken::Closed))
    }
}

fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
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
