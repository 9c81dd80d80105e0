//! `qkdnet`: the command line and every service in one binary.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod commands;
mod failure;
mod host;
mod run;
mod snapshot;
mod style;
mod table;
mod view;
mod wire;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
