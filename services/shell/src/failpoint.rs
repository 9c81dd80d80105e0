//! Places where a test may crash or stop the process, to see what a restart makes of what was persisted.
//!
//! A service names the place (`failpoint::hit("block.prepared")`) between two persisting steps. Nothing happens there
//! unless the configuration allows faults and the place is armed: `block.prepared=3` aborts at the third hit, `block.prepared=3:stop` asks the process to end there as SIGTERM
//! does. What arms places is `QKDNET_FAILPOINTS`, or for one service alone the file `<service>.failpoints` beside its address
//! file. A service takes that file away when it starts, so that it is armed once: killed and started again by whoever
//! keeps it running, it crashes once more, in the place that was named, and then goes on.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the environment variable that arms failpoints.
pub const VARIABLE: &str = "QKDNET_FAILPOINTS";

/// Places of a module, whatever instrument it stands behind.
const MODULE: &[&str] = &[
    "epoch.leased",
    "block.prepared",
    "block.refilled",
    "block.committed",
    "block.delivered",
    "block.marked",
    "stretch.kept",
    "stretch.settled",
    "stretch.spent",
];

/// Every place there is, by the kind of the service that comes to it.
pub const PLACES: [(&str, &[&str]); 5] = [
    ("detector", MODULE),
    ("transmitter", MODULE),
    ("channel", &["tag.persisted", "reserve.refilled", "reserve.cut", "reserve.rekeyed"]),
    (
        "kms",
        &[
            "ingest.offered",
            "pair.followed",
            "pair.confirmed",
            "pair.grant-followed",
            "pair.granted",
            "pair.activated",
            "store.committed",
            "store.redeemed",
            "store.checkpointed",
            "key.drawn",
            "key.redeemed",
            "pad.drawn",
            "share.kept",
            "share.offered",
            "share.released",
        ],
    ),
    ("relay", &["relay.persisted"]),
];

static ARMED: OnceLock<BTreeMap<String, Armed>> = OnceLock::new();

/// A place that is armed.
struct Armed {
    /// Hits until it happens.
    left: AtomicU64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Abort,
    Stop,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FailpointError {
    #[error("failpoint `{0}`: expected `name=hit` or `name=hit:stop`, with the hit counted from 1")]
    Malformed(String),
    #[error("there is no failpoint `{0}`")]
    Unknown(String),
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
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

/// The file that arms one service at its next start.
pub fn file(run_dir: &Path, service: &str) -> PathBuf {
    run_dir.join(format!("{service}.failpoints"))
}

/// Arms what the file of a service names, and takes the file away; without one, what the environment names.
pub fn arm_service(run_dir: &Path, service: &str, faults_allowed: bool) -> Result<(), FailpointError> {
    let path = file(run_dir, service);
    let failed = |error: io::Error| FailpointError::File { path: path.clone(), why: error.to_string() };
    match std::fs::read_to_string(&path) {
        Ok(_) if !faults_allowed => Err(FailpointError::NotAllowed),
        Ok(text) => {
            std::fs::remove_file(&path).map_err(failed)?;
            arm(&text, faults_allowed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => arm_from_environment(faults_allowed),
        Err(error) => Err(failed(error)),
    }
}

/// Arms what `text` names, such as `block.prepared=3,tag.persisted=1`. Once per process.
pub fn arm(text: &str, faults_allowed: bool) -> Result<(), FailpointError> {
    let points = parse(text)?;
    let known = |name: &str| PLACES.iter().any(|(_, places)| places.contains(&name));
    if let Some(unknown) = points.keys().find(|name| !known(name)) {
        return Err(FailpointError::Unknown(unknown.clone()));
    }
    if !faults_allowed {
        return Err(FailpointError::NotAllowed);
    }
    ARMED.set(points).map_err(|_| FailpointError::AlreadyArmed)
}

fn parse(text: &str) -> Result<BTreeMap<String, Armed>, FailpointError> {
    let point = |item: &str| {
        let malformed = || FailpointError::Malformed(item.to_owned());
        let (name, hit) = item.split_once('=').ok_or_else(malformed)?;
        let (hit, what) = match hit.trim().strip_suffix(":stop") {
            Some(hit) => (hit, What::Stop),
            None => (hit.trim(), What::Abort),
        };
        let hit: u64 = hit.parse().map_err(|_| malformed())?;
        if name.trim().is_empty() || hit == 0 {
            return Err(malformed());
        }
        Ok((name.trim().to_owned(), Armed { left: AtomicU64::new(hit), what }))
    };
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(point).collect()
}

/// Aborts the process, without unwinding or flushing, or asks it to end, if this is the armed hit of the place.
pub fn hit(name: &str) {
    let Some(armed) = ARMED.get().and_then(|points| points.get(name)) else { return };
    // 1 means: this hit. 0 means: passed.
    let before = armed.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if before != Ok(1) {
        return;
    }
    // Whether anybody reads it or not, it comes.
    let said = match armed.what {
        What::Abort => "aborting",
        What::Stop => "stopping",
    };
    let _ = writeln!(std::io::stderr().lock(), "failpoint `{name}`: {said}");
    match armed.what {
        What::Abort => std::process::abort(),
        // A process that cannot send itself a signal goes on, which the test that waits for its end tells.
        What::Stop => drop(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)),
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
        let stops = parse("block.prepared=2:stop").unwrap();
        let armed = &stops["block.prepared"];
        assert_eq!((armed.left.load(Ordering::Relaxed), armed.what), (2, What::Stop));
        for bad in ["block=1:halt", "block=:stop", "block", "block=", "block=0", "=1", "block=-1", "a=1,b"] {
            assert!(matches!(parse(bad), Err(FailpointError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn the_file_of_a_service_arms_it_once_and_only_where_faults_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "kms-a");
        std::fs::write(&path, "block.prepaired=1").unwrap();
        assert_eq!(arm_service(folder.path(), "kms-a", false), Err(FailpointError::NotAllowed));
        assert!(path.exists(), "a service that may not crash says so at every start");
        let unknown = Err(FailpointError::Unknown("block.prepaired".to_owned()));
        assert_eq!(arm_service(folder.path(), "kms-a", true), unknown);
        assert!(!path.exists());
        assert_eq!(arm_service(folder.path(), "kms-b", true), Ok(()));
    }

    #[test]
    fn nothing_is_armed_where_faults_are_not_allowed() {
        assert_eq!(arm("block.prepared=1", false), Err(FailpointError::NotAllowed));
        hit("block.prepared");
    }
}
