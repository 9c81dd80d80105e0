//! `qkdnet completions SHELL`.

use clap::CommandFactory;
use runner::Failure;

use super::print;
use crate::cli::{Cli, CompletionsArgs};

pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qkdnet", &mut script);
    print(&String::from_utf8_lossy(&script))
}
