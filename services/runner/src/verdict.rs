//! Whether a command did what it was asked for: one value that gives the exit code, the words and the JSON.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::failure::Failure;

/// Reasons that are kept; a network of many links that fail alike does not fill a screen.
const REASONS_MAX: usize = 32;

/// What kind of no a reason is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What was given cannot be used, such as a recording that is none.
    BadInput,
    /// The two ends of a link hold different key.
    KeysDiffer,
    /// The key of an end cannot be read back.
    KeysUnreadable,
    /// There was light, and no link made key of it.
    NoKey,
    RolledBack,
    PeerVersion,
    /// The authentication reserves of the two ends of a link seem not to fit together.
    ReservesDiffer,
    AuthenticationExhausted,
    /// Something beside the key was not written: a recording, spans, metrics, the status file, the output itself.
    SideOutput,
    ServiceFailed,
    /// Ended before the blocks under way were finished.
    CutShort,
    /// A time tag cannot count further.
    TagsEnd,
    /// Measured and published figures do not agree.
    Disagrees,
}

impl Kind {
    fn exit_code(self) -> u8 {
        match self {
            Self::BadInput => 2,
            _ => 1,
        }
    }
}

/// One reason why the verdict is no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Reason {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, link: None, site: None, message: message.into(), hint: None }
    }

    pub fn of_link(kind: Kind, link: &str, message: impl Into<String>) -> Self {
        Self::new(kind, message).on(link)
    }

    pub fn on(self, link: &str) -> Self {
        Self { link: Some(link.to_owned()), ..self }
    }

    pub fn at(self, site: &str) -> Self {
        Self { site: Some(site.to_owned()), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// As one line: where, then what.
    pub fn line(&self) -> String {
        let place: Vec<&str> = [&self.link, &self.site].into_iter().flatten().map(String::as_str).collect();
        if place.is_empty() { self.message.clone() } else { format!("{}: {}", place.join(" "), self.message) }
    }
}

/// Good until there is a reason why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    reasons: Vec<Reason>,
    /// Reasons beyond those that are kept.
    more: usize,
}

impl Verdict {
    /// Adds a reason that is not there yet.
    pub fn add(&mut self, reason: Reason) {
        if self.reasons.contains(&reason) {
            return;
        }
        // What decides the exit code is always kept.
        let decides = reason.kind.exit_code() > self.exit_code();
        if self.reasons.len() < REASONS_MAX || decides {
            self.reasons.push(reason);
        } else {
            self.more += 1;
        }
    }

    pub fn extend(&mut self, reasons: impl IntoIterator<Item = Reason>) {
        reasons.into_iter().for_each(|reason| self.add(reason));
    }

    pub fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// 0 where all is good, 2 where what was given is at fault, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        self.reasons.iter().map(|reason| reason.kind.exit_code()).max().unwrap_or(0)
    }

    /// Every reason as a line, and what to do about it as one more: once, after the last reason that it helps.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, reason) in self.reasons.iter().enumerate() {
            lines.push(format!("error: {}", reason.line()));
            let again = self.reasons[index + 1..].iter().any(|later| later.hint == reason.hint);
            lines.extend(reason.hint.iter().filter(|_| !again).map(|hint| format!("hint: {hint}")));
        }
        if self.more > 0 {
            lines.push(format!("error: and {} more reasons", self.more));
        }
        lines
    }

    /// What a command returns. `said`: the reasons are on standard error already.
    pub fn into_result(self, said: bool) -> Result<(), Failure> {
        if self.is_good() {
            return Ok(());
        }
        let code = self.exit_code();
        if said {
            return Err(Failure::silent(code));
        }
        let mut failure = Failure::silent(code);
        for reason in &self.reasons {
            failure = failure.also(reason.line());
            if let Some(hint) = &reason.hint {
                failure = failure.hint(hint.clone());
            }
        }
        if self.more > 0 {
            failure = failure.also(format!("and {} more reasons", self.more));
        }
        Err(failure)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut verdict = serializer.serialize_struct("Verdict", 4)?;
        verdict.serialize_field("good", &self.is_good())?;
        verdict.serialize_field("exit_code", &self.exit_code())?;
        verdict.serialize_field("reasons", &self.reasons)?;
        if self.more > 0 {
            verdict.serialize_field("more_reasons", &self.more)?;
        }
        verdict.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn without_a_reason_the_verdict_is_good() {
        let verdict = Verdict::default();
        assert_eq!((verdict.is_good(), verdict.exit_code()), (true, 0));
        assert_eq!(serde_json::to_string(&verdict).unwrap(), r#"{"good":true,"exit_code":0,"reasons":[]}"#);
        assert!(verdict.into_result(false).is_ok());
    }

    #[test]
    fn bad_input_decides_the_exit_code_however_many_reasons_came_before_it() {
        let mut verdict = Verdict::default();
        verdict.extend((0..100).map(|n| Reason::of_link(Kind::KeysDiffer, &format!("link-{n}"), "differ")));
        assert_eq!(verdict.exit_code(), 1);
        verdict.add(Reason::new(Kind::BadInput, "tags.a1: byte 7: half a word"));
        assert_eq!(verdict.exit_code(), 2);
        assert_eq!(verdict.lines().len(), REASONS_MAX + 2);
        assert!(verdict.lines().last().unwrap().contains("68 more"));
    }

    #[test]
    fn a_reason_is_said_once_with_its_place_and_what_to_do() {
        let mut verdict = Verdict::default();
        let reason = Reason::of_link(Kind::RolledBack, "a-b", "was put back").at("a").hint("run `qkdnet restore`");
        verdict.extend([reason.clone(), reason.clone()]);
        assert_eq!(verdict.lines(), ["error: a-b a: was put back", "hint: run `qkdnet restore`"]);
        verdict.add(reason.on("b-c"));
        let lines = ["error: a-b a: was put back", "error: b-c a: was put back", "hint: run `qkdnet restore`"];
        assert_eq!(verdict.lines(), lines, "what to do is said once");
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["reasons"][0]["kind"], "rolled-back");
        assert_eq!(json["exit_code"], 1);
    }
}
