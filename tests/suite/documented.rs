//! The commands that the documents name, as they stand there. Shared with the suite on a cluster.

use std::path::{Path, PathBuf};

/// Programs whose lines in a document are commands of this project.
const PROGRAMS: [&str; 6] = ["qkdnet", "make", "helm", "kubectl", "curl", "docker"];

/// A command and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    pub file: String,
    pub line: usize,
    pub text: String,
    /// It stands in a sentence, not in a block.
    pub in_sentence: bool,
}

impl Documented {
    /// A sentence speaks of the command, and does not say what it is to be run with.
    #[allow(dead_code, reason = "the suite on a cluster does not ask")]
    pub fn is_name(&self) -> bool {
        self.in_sentence && self.text.split_whitespace().count() <= 2
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document for people: those at the top, and `docs`.
pub fn documents() -> Vec<PathBuf> {
    let markdown = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    let mut found = Vec::new();
    for folder in [repository(), repository().join("docs")] {
        let entries = std::fs::read_dir(folder).expect("list the documents");
        found.extend(entries.map(|entry| entry.expect("an entry").path()).filter(|path| markdown(path)));
    }
    // What changed once is history, not an instruction.
    found.retain(|path| !path.ends_with("CHANGELOG.md"));
    found.sort();
    found
}

/// All commands of all documents.
pub fn commands() -> Vec<Documented> {
    documents().iter().flat_map(|path| commands_of(path)).collect()
}

/// Commands in the blocks of a document, and those that its sentences name in backquotes.
pub fn commands_of(path: &Path) -> Vec<Documented> {
    let text = std::fs::read_to_string(path).expect("read a document");
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (mut found, mut inside, mut begun) = (Vec::new(), false, None::<(usize, String)>);
    let mut sentences = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            let (number, whole) = match begun.take() {
                Some((number, before)) => (number, format!("{before} {}", line.trim())),
                None => (at + 1, line.trim().to_owned()),
            };
            match whole.strip_suffix('\\') {
                Some(before) => begun = Some((number, before.trim_end().to_owned())),
                None => found.extend(command(&whole).map(|text| Documented {
                    file: file.clone(),
                    line: number,
                    text,
                    in_sentence: false,
                })),
            }
        } else {
            sentences.extend(line.chars().map(|c| (at + 1, c)).chain([(at + 1, ' ')]));
        }
    }
    found.extend(named_in(&sentences).into_iter().map(|(line, text)| {
        // A command may be broken over two lines.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Documented { file: file.clone(), line, text, in_sentence: true }
    }));
    found
}

/// What stands in backquotes and is a command, with its line.
fn named_in(sentences: &[(usize, char)]) -> Vec<(usize, String)> {
    let quoted = sentences.split(|(_, c)| *c == '`').skip(1).step_by(2);
    let named = quoted.filter_map(|part| {
        let text: String = part.iter().map(|(_, c)| *c).collect();
        Some((part.first()?.0, command(&text)?))
    });
    named.filter(|(_, text)| text.contains(' ')).collect()
}

/// The commands of the first block of a document that contains something, one a line.
#[allow(dead_code, reason = "the suite on a cluster asks")]
pub fn block(file: &str, containing: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(file)).expect("read a document");
    let found = text.split("```").find(|block| block.contains(containing));
    let found = found.unwrap_or_else(|| panic!("no block of {file} has `{containing}`"));
    found.lines().map(without_words).filter(|line| !line.is_empty()).collect()
}

/// A line that is a command, without the prompt before it and the words behind it.
fn command(line: &str) -> Option<String> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let text = without_words(line);
    let program = without_assignments(&text).split_whitespace().next()?;
    (PROGRAMS.contains(&program) || program.starts_with("scripts/")).then_some(text)
}

/// A command without the `NAME=value` before its program.
pub fn without_assignments(text: &str) -> &str {
    match text.split_once(' ') {
        Some((first, rest)) if is_assignment(first) => without_assignments(rest.trim_start()),
        _ => text,
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// What a document says about a command stands two spaces behind it, or behind a `#`.
fn without_words(line: &str) -> String {
    let line = line.split("  ").map(str::trim).find(|part| !part.is_empty()).unwrap_or_default();
    line.split(" #").next().unwrap_or_default().trim().to_owned()
}
