//! No bytes make the reader panic or run away.

use proptest::prelude::*;
use topology::parse;

const GOOD: &str = include_str!("minimal.yaml");

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("fuzz.yaml", &bytes);
    }

    #[test]
    fn arbitrary_text_gets_an_answer(text in "[-:{}\\[\\]&*!|>'\"%@#,?a-z0-9 \n\t.~µ]{0,300}") {
        let _ = parse("fuzz.yaml", text.as_bytes());
    }

    /// Bytes of a good document replaced, dropped and repeated: mostly valid YAML with strange contents.
    #[test]
    fn a_mutilated_document_gets_an_answer(
        changes in proptest::collection::vec((0..GOOD.len(), 0usize..3, any::<u8>()), 1..12),
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, kind, byte) in changes {
            let at = at % bytes.len();
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, b" \n:-{}[]'\"#&*0123456789e.%"[byte as usize % 26]),
            }
        }
        if let Err(problems) = parse("fuzz.yaml", &bytes) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.to_string().starts_with("fuzz.yaml:"));
        }
    }

    /// A value in place of another one, of any shape.
    #[test]
    fn strange_values_get_an_answer(line in 0usize..20, value in "[-+]?[0-9]{1,4}(e[0-9]{1,3})? ?(km|ps|%|/s|dB|~|\\{\\}|\\[\\])?") {
        let lines: Vec<String> = GOOD
            .lines()
            .enumerate()
            .map(|(index, text)| match text.split_once(": ") {
                Some((key, _)) if index == line => format!("{key}: {value}"),
                _ => text.to_owned(),
            })
            .collect();
        let _ = parse("fuzz.yaml", lines.join("\n").as_bytes());
    }
}
