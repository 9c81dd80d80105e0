//! `qkdnet`: the command line and every service in one binary.

// They panic where nobody reads any more: `style::tell` and `commands::print` do not.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod cluster;
mod commands;
mod failure;
mod guard;
mod host;
mod run;
mod snapshot;
mod style;
mod table;
mod view;
mod wire;

/// Memory is cleared when it is given back: also the buffers of libraries through which key has passed (HTTP/2, TLS,
/// protobuf) must not show up in a core file later.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    if let Err(error) = guard::close() {
        return failure::Failure::failed(format!("cannot keep this process's memory to itself: {error}")).report();
    }
    let cli = cli::Cli::parse();
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
