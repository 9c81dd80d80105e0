//! What a scanner stumbles over, told at the character that is wrong and with what to do.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::diagnostic::{Diagnostic, Position};

pub(crate) fn error(text: &str, error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let told = Position { line: marker.line().max(1), column: marker.col() + 1 };
    if let Some(tab) = tab_behind(text, told, error.kind()) {
        return Diagnostic::error(tab, "", "not valid YAML: a tab as indentation")
            .expected("indentation by blanks")
            .hint("replace the tab by blanks");
    }
    let diagnostic = Diagnostic::error(told, "", format!("not valid YAML: {}", error.info()));
    match error.kind() {
        ErrorKind::UnknownAnchor => diagnostic.expected("an anchor (&name) above the alias (*name)"),
        ErrorKind::RecursionLimitExceeded => diagnostic.expected("the nesting of a topology"),
        ErrorKind::BomInsideDocument => diagnostic
            .expected("a byte order mark at the beginning of the file alone")
            .hint("two files were joined; remove the invisible character U+FEFF here"),
        ErrorKind::UnclosedQuotedScalar => diagnostic.expected("a quote at the end of the text"),
        ErrorKind::UnclosedFlowCollection { open } => {
            diagnostic.expected(format!("a {} behind what {open} opens here", closing(*open)))
        }
        ErrorKind::MappingValueNotAllowed => {
            diagnostic.expected("one field a line").hint("put a text with a colon and a blank in quotes")
        }
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::ExpectedBlockMappingKey => {
            diagnostic.expected("what belongs to one block to begin in one column")
        }
        ErrorKind::BlockEntryInFlowCollection => {
            diagnostic.expected("lists in brackets between { and }").hint("a { or [ further up is not closed")
        }
        ErrorKind::UnexpectedCharacter { character: character @ ('@' | '`' | '%') } => {
            diagnostic.expected("a value").hint(format!("put a text that begins with {character} in quotes"))
        }
        _ => diagnostic,
    }
}

fn closing(open: char) -> char {
    if open == '{' { '}' } else { ']' }
}

/// The tab that is the reason for an error. The scanner tells some at the beginning of the value before the tab, or at
/// the character behind it.
fn tab_behind(text: &str, told: Position, kind: &ErrorKind) -> Option<Position> {
    let named = matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    let mut lines = lines(text).enumerate().skip(told.line - 1);
    let in_indentation = |(index, line): (usize, &str)| {
        let column = line.chars().take_while(|character| matches!(character, ' ' | '\t')).position(|c| c == '\t')?;
        Some(Position { line: index + 1, column: column + 1 })
    };
    let first = lines.next()?;
    // A line that an error is told of and that a tab indents is wrong because of the tab.
    if let Some(tab) = in_indentation(first).filter(|tab| tab.column <= told.column) {
        return Some(tab);
    }
    if !named {
        return None;
    }
    let here = first.1.chars().enumerate().skip(told.column.saturating_sub(2)).find(|(_, c)| *c == '\t');
    let behind_text = here.map(|(column, _)| Position { line: told.line, column: column + 1 });
    // In a value of several lines, the line that a tab indents comes after the one where the value begins.
    match kind {
        ErrorKind::TabInPlainScalar => lines.find_map(in_indentation).or(behind_text),
        _ => behind_text.or_else(|| lines.find_map(in_indentation)),
    }
}

/// Lines as YAML breaks them: LF, CR LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}
