//! How a command ends that did not do what was asked.

use std::fmt::Display;

/// An error for people: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    messages: Vec<String>,
    hints: Vec<String>,
}

/// The work was tried and did not succeed, or its verdict is no.
const FAILED: u8 = 1;
/// What was asked for cannot be done as asked: a bad file or argument.
const BAD_INPUT: u8 = 2;

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::silent(FAILED).also(message)
    }

    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::silent(BAD_INPUT).also(message)
    }

    /// For what has told everything already: only the exit code is left to give.
    pub fn silent(code: u8) -> Self {
        Self { code, messages: Vec::new(), hints: Vec::new() }
    }

    /// As [`silent`](Self::silent), for bad files and arguments.
    pub fn silent_bad_input() -> Self {
        Self::silent(BAD_INPUT)
    }

    /// One more thing that is wrong.
    pub fn also(mut self, message: impl Into<String>) -> Self {
        self.messages.push(message.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code of a command that ends so.
    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.messages.join("; "))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let message = shell::chain(&error).to_string();
        let told = error.downcast_ref::<telemetry::TelemetryError>();
        let bad_input = told.is_some_and(|told| matches!(told, telemetry::TelemetryError::Setting { .. }));
        if bad_input { Self::bad_input(message) } else { Self::failed(message) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
