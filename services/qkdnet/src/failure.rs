//! How a command ends that did not do what was asked.

use std::fmt::Display;
use std::process::ExitCode;

use crate::style::Style;

/// An error for people: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hints: Vec<String>,
}

/// The work was tried and did not succeed, or its verdict is no.
const FAILED: u8 = 1;
/// What was asked for cannot be done as asked: a bad file or argument.
const BAD_INPUT: u8 = 2;

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), hints: Vec::new() }
    }

    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { code: BAD_INPUT, message: message.into(), hints: Vec::new() }
    }

    /// For what has told everything already: only the exit code is left to give.
    pub fn silent_bad_input() -> Self {
        Self::bad_input("")
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Writes `error:` and `hint:` lines to standard error.
    pub fn report(self) -> ExitCode {
        let style = Style::of_stderr();
        if !self.message.is_empty() {
            eprintln!("{} {}", style.error("error:"), self.message);
        }
        for hint in &self.hints {
            eprintln!("{} {hint}", style.hint("hint:"));
        }
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
