//! `qkdnet`: the command line and every service in one binary.

// They panic where nobody reads any more: `style::tell` and `commands::print` do not.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::process::ExitCode;

use clap::Parser;
use runner::{Failure, guard};

mod cli;
mod cluster;
mod commands;
mod style;
mod table;
mod view;

/// Memory is cleared when it is given back: also the buffers of libraries through which key has passed (HTTP/2, TLS,
/// protobuf) must not show up in a core file later.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Files that a process of ours may want to have open: key stores hold thousands of connections.
const OPEN_FILES: u64 = 65_536;

/// Where the system starts programs with few files, but would allow more.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let wanted = limits.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limits.current.is_some_and(|current| current < wanted) {
        // Refused, it stays as it was: fewer connections then fit at once.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limits.maximum });
    }
}

fn main() -> ExitCode {
    if let Err(error) = guard::close() {
        let failure = Failure::failed(format!("cannot keep this process's memory to itself: {error}"));
        return commands::report(&failure);
    }
    allow_open_files();
    let cli = cli::Cli::parse();
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => commands::report(&failure),
    }
}
