//! Colour, where it is wanted: never with `NO_COLOR`, never into a file or pipe.

use std::io::IsTerminal;

/// Whether text may carry escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
}

impl Style {
    pub fn of_stdout() -> Self {
        Self { colour: wanted() && std::io::stdout().is_terminal() }
    }

    pub fn of_stderr() -> Self {
        Self { colour: wanted() && std::io::stderr().is_terminal() }
    }

    pub fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub fn hint(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// <https://no-color.org>: present and not empty means no colour.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line on standard error. That nobody reads it any more is no reason to end: what is told there is beside the work.
pub fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// As [`tell`], for what brings its own ends of lines.
pub fn tell_all(lines: &impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = write!(std::io::stderr().lock(), "{lines}");
}
