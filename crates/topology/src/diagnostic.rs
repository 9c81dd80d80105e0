//! What is wrong with a file, where, what would be right.

use std::fmt;

use serde::Serialize;

use crate::quantity::shortened;

/// Problems listed one by one; the rest are only counted.
const LISTED_MAX: usize = 100;
/// Places of a definition that are listed.
const RELATED_MAX: usize = 3;
/// Problems collected at all: a hostile file must not fill the memory.
pub(crate) const COLLECTED_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Error,
    Warning,
}

/// A place in a file, both numbers from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };
}

/// One problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    #[serde(flatten)]
    pub position: Position,
    /// Field path of the value, such as `spec.links[0].arms[1].fibre.length`; empty for the file as a whole.
    pub path: Box<str>,
    /// What was found.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Other places that it has to do with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// A place that a problem has to do with: of a definition the places that use it, of a place the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Related {
    pub what: Relation,
    #[serde(flatten)]
    pub position: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The definition that is used is here.
    Defined,
    /// The definition is used here.
    Used,
}

impl Diagnostic {
    pub fn error(position: Position, path: impl Into<Box<str>>, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            position,
            path: path.into(),
            message: message.into(),
            expected: None,
            hint: None,
            related: Vec::new(),
        }
    }

    pub fn warning(position: Position, path: impl Into<Box<str>>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(position, path, message) }
    }

    pub fn expected(mut self, expected: impl Into<Box<str>>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Where the definition is that this has to do with.
    pub(crate) fn defined_at(mut self, position: Position) -> Self {
        self.related.push(Related { what: Relation::Defined, position });
        self
    }

    /// From where the definition is used in which this stands.
    pub(crate) fn used_at(mut self, position: Position) -> Self {
        self.also_used_at(position);
        self
    }

    pub(crate) fn also_used_at(&mut self, position: Position) {
        self.related.push(Related { what: Relation::Used, position });
    }

    pub fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(Into::into).or(self.hint);
        self
    }
}

/// Every problem of one file, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    pub file: String,
    pub diagnostics: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn new(file: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| (a.position, &a.path, &a.message).cmp(&(b.position, &b.path, &b.message)));
        // A block that aliases repeat is wrong in one place.
        diagnostics.dedup_by(|a, b| {
            let same =
                (a.severity, a.position, &a.message, &a.expected) == (b.severity, b.position, &b.message, &b.expected);
            if same {
                b.related.append(&mut a.related);
            }
            same
        });
        for diagnostic in &mut diagnostics {
            diagnostic.related.sort();
            diagnostic.related.dedup();
        }
        Diagnostics { file: file.to_owned(), diagnostics }
    }

    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }
}

/// `file:line:column: error: message`, then indented `expected:` and `hint:` lines.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.diagnostics.iter().take(LISTED_MAX) {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let Position { line, column } = diagnostic.position;
            writeln!(f, "{}:{line}:{column}: {severity}: {}", self.file, diagnostic.message)?;
            if let Some(expected) = &diagnostic.expected {
                writeln!(f, "  expected: {expected}")?;
            }
            if let Some(hint) = &diagnostic.hint {
                writeln!(f, "  hint: {hint}")?;
            }
            for (what, verb) in [(Relation::Defined, "defined"), (Relation::Used, "used")] {
                let all = || diagnostic.related.iter().filter(|related| related.what == what);
                for Related { position: Position { line, column }, .. } in all().take(RELATED_MAX) {
                    writeln!(f, "  {verb}: {}:{line}:{column}", self.file)?;
                }
                match all().count().saturating_sub(RELATED_MAX) {
                    0 => {}
                    more => writeln!(f, "  {verb}: and in {more} more places")?,
                }
            }
        }
        if self.diagnostics.len() > LISTED_MAX {
            writeln!(f, "{}: and {} more", self.file, self.diagnostics.len() - LISTED_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A text of the file in quotes, as it may stand in a message.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}
