//! Names of objects: readable where they fit, cut and told apart by a hash where they do not.

use sha2::{Digest, Sha256};

/// A StatefulSet names its pods' revision `<name>-<10 characters>` in a label, which holds 63.
pub const STATEFUL_SET_CHARS: usize = 52;
/// A Service is a DNS label.
pub const SERVICE_CHARS: usize = 63;
/// Everything else is a DNS subdomain; what a label must repeat stays shorter.
pub const OBJECT_CHARS: usize = 253;

/// Characters of the hash and of the hyphen before it.
const HASH_CHARS: usize = 8;

/// `<topology>-<part>`, in at most `most` characters.
pub fn object(topology: &str, part: &str, most: usize) -> String {
    let whole = format!("{topology}-{part}");
    if whole.len() <= most {
        return whole;
    }
    // The hash covers what was cut off, so that equal beginnings do not make equal names.
    let hash = &hex(&Sha256::digest(whole.as_bytes()))[..HASH_CHARS];
    let kept = whole[..most - HASH_CHARS - 1].trim_end_matches('-');
    format!("{kept}-{hash}")
}

/// SHA-256 of a text, short enough for an annotation.
pub fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))[..32].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_are_left_alone() {
        assert_eq!(object("nice", "site-valrose", STATEFUL_SET_CHARS), "nice-site-valrose");
    }

    #[test]
    fn names_that_do_not_fit_are_cut_and_stay_distinct() {
        let topology = "t".repeat(63);
        let (a, b) = (object(&topology, "site-a", 52), object(&topology, "site-b", 52));
        assert_eq!((a.len(), b.len()), (52, 52));
        assert_ne!(a, b);
        assert_eq!(a, object(&topology, "site-a", 52), "the same at every reconcile");
        let hyphen = object(&format!("{}-", "t".repeat(42)), "aaaaaaaaaaaaaaa", 52);
        assert!(!hyphen.contains("--"), "{hyphen}");
    }
}
