//! An error and what caused it, as one line.

use std::fmt::{Display, Formatter, Result};

/// The causes of an error behind it, each once. Many errors end with the words of their cause already; to print the
/// cause as well would say the same twice.
pub fn chain(error: &anyhow::Error) -> Chain<'_> {
    Chain(error)
}

/// See [`chain`].
#[derive(Clone, Copy, Debug)]
pub struct Chain<'e>(&'e anyhow::Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut said = String::new();
        for cause in self.0.chain() {
            let text = cause.to_string();
            if said.is_empty() {
                said = text;
            } else if !said.ends_with(&text) {
                said.push_str(": ");
                said.push_str(&text);
            }
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write into {folder}: {source}")]
    struct Repeats {
        folder: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_whose_words_stand_there_already_is_not_said_again() {
        let repeats = Repeats { folder: "/spans", source: io::Error::from_raw_os_error(21) };
        let error = Err::<(), _>(repeats).context("start telemetry").unwrap_err();
        let expected = "start telemetry: cannot write into /spans: Is a directory (os error 21)";
        assert_eq!(chain(&error).to_string(), expected);
    }

    #[test]
    fn every_cause_with_words_of_its_own_is_said() {
        let error = anyhow::anyhow!("refused").context("dial").context("reach the peer");
        assert_eq!(chain(&error).to_string(), "reach the peer: dial: refused");
    }
}
