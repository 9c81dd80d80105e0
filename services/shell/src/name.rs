//! Names of services. A name is a DNS name, as it stands in the certificate.

/// Longest name that a certificate's subject alternative name and a host name allow.
pub const LIMIT_CHARS: usize = 253;

/// What every certificate holds beside the service's name, and therefore names nobody.
pub const LOOPBACK: &str = "localhost";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` cannot name a service: {why}")]
pub struct NameError {
    pub name: String,
    pub why: &'static str,
}

/// Accepts lower-case DNS names (RFC 1123) that are not `localhost` nor an address.
pub fn check(name: &str) -> Result<(), NameError> {
    let fail = |why| Err(NameError { name: name.chars().take(80).collect(), why });
    if name.is_empty() || name.len() > LIMIT_CHARS {
        return fail("expected 1 to 253 characters");
    }
    if name == LOOPBACK {
        return fail("every machine has this name");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return fail("between dots, expected 1 to 63 characters");
        }
        if !label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return fail("expected only a-z, 0-9, `-` and `.`");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return fail("`-` cannot stand at an end");
        }
    }
    // An all-numeric last label would read as an address.
    if name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return fail("the last part cannot be a number");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn dns_names_are_taken_and_nothing_else() {
        for good in ["source-nice-50", "a", "detector.valrose", "7-a"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "localhost", "Source", "a_b", "-a", "a-", "a..b", "127.0.0.1", "a/b", "../a", "a b", &long] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
