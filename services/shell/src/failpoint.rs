//! Places where a test may crash the process, to see what a restart makes of what was persisted.
//!
//! A service names the place (`failpoint::hit("block.prepared")`) between two persisting steps. Nothing happens there
//! unless the configuration allows faults and `QKDNET_FAILPOINTS` arms the place: `block.prepared=3` aborts at
//! the third hit.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the environment variable that arms failpoints.
pub const VARIABLE: &str = "QKDNET_FAILPOINTS";

static ARMED: OnceLock<BTreeMap<String, AtomicU64>> = OnceLock::new();

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FailpointError {
    #[error("failpoint `{0}`: expected `name=hit`, with the hit counted from 1")]
    Malformed(String),
    #[error("failpoints are armed, but the topology does not allow faults")]
    NotAllowed,
    #[error("failpoints were armed before")]
    AlreadyArmed,
}

/// Arms what the environment names. An armed environment where faults are not allowed is an error, not ignored.
pub fn arm_from_environment(faults_allowed: bool) -> Result<(), FailpointError> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => arm(&text, faults_allowed),
        _ => Ok(()),
    }
}

/// Arms what `text` names, such as `block.prepared=3,tag.sent=1`. Once per process.
pub fn arm(text: &str, faults_allowed: bool) -> Result<(), FailpointError> {
    let points = parse(text)?;
    if !faults_allowed {
        return Err(FailpointError::NotAllowed);
    }
    ARMED.set(points).map_err(|_| FailpointError::AlreadyArmed)
}

fn parse(text: &str) -> Result<BTreeMap<String, AtomicU64>, FailpointError> {
    let point = |item: &str| {
        let malformed = || FailpointError::Malformed(item.to_owned());
        let (name, hit) = item.split_once('=').ok_or_else(malformed)?;
        let hit: u64 = hit.trim().parse().map_err(|_| malformed())?;
        if name.trim().is_empty() || hit == 0 {
            return Err(malformed());
        }
        Ok((name.trim().to_owned(), AtomicU64::new(hit)))
    };
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(point).collect()
}

/// Aborts the process, without unwinding or flushing, if this is the armed hit of the place.
pub fn hit(name: &str) {
    let Some(left) = ARMED.get().and_then(|points| points.get(name)) else { return };
    // 1 means: this hit. 0 means: passed, which cannot be, as the process would be gone.
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if before == Ok(1) {
        eprintln!("failpoint `{name}`: aborting");
        std::process::abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_lists_are_taken() {
        let points = parse("block.prepared=3, tag.sent=1,").unwrap();
        assert_eq!(points.keys().collect::<Vec<_>>(), ["block.prepared", "tag.sent"]);
        for bad in ["block", "block=", "block=0", "=1", "block=-1", "a=1,b"] {
            assert!(matches!(parse(bad), Err(FailpointError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn nothing_is_armed_where_faults_are_not_allowed() {
        assert_eq!(arm("block.prepared=1", false), Err(FailpointError::NotAllowed));
        hit("block.prepared");
    }
}
