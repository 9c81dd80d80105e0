//! Keeps what is in this process's memory inside of it: no core file, no debugger, and no swap where the limit allows.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[path = "guard/inspect.rs"]
mod inspect;

/// Shuts core files and other processes of the same user out (`ptrace`, `/proc/PID/mem`). To be called before there is
/// anything to see. A core file that is piped to a program has no limit of its size: that it is not written is because
/// the process is not dumpable.
pub fn close() -> io::Result<()> {
    if inspect::allowed() {
        return Ok(());
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Why memory may be swapped out.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// The process would be given no more memory as soon as it comes to the limit.
    #[error(
        "RLIMIT_MEMLOCK is {0} bytes: it takes an unlimited one (ulimit -l unlimited, LimitMEMLOCK=infinity, \
         --ulimit memlock=-1) or CAP_IPC_LOCK"
    )]
    Limit(u64),
    #[error("{0}")]
    Failed(io::Error),
}

/// Keeps memory from being swapped out where the limit allows it. Done twice it is done once.
pub fn lock() -> Result<(), NotLocked> {
    if let Some(bytes) = getrlimit(Resource::Memlock).current
        && !may_lock_without_limit()
    {
        return Err(NotLocked::Limit(bytes));
    }
    kernels::program::lock_memory().map_err(NotLocked::Failed)
}

/// Whether the process has CAP_IPC_LOCK.
fn may_lock_without_limit() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|held| held >> CAP_IPC_LOCK & 1 == 1)
}
