//! One module per command.

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::wire;

mod collect;
mod completions;
pub mod data;
mod digest;
mod exposure;
mod fault;
pub mod files;
mod key;
mod ledger;
mod operator;
mod plan;
mod render;
pub mod restore;
mod rotate;
mod sae;
mod schema;
mod spans;
mod status;
mod trace;
mod validate;

/// Runs the command that was typed.
pub fn dispatch(cli: Cli) -> Result<(), Failure> {
    let log = cli.log.as_deref();
    match cli.command {
        Command::Up(args) => wire::up(args, log),
        Command::Down(args) => wire::down(args, log),
        Command::Verify(args) => wire::verify(args, log),
        Command::Replay(args) => wire::replay(args, log),
        Command::Plan(args) => plan::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Schema => schema::run(),
        Command::Digest(args) => digest::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Rekey(args) => wire::rekey(args, log),
        Command::Key(command) => key::run(&command),
        Command::Exposure(args) => exposure::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Rotate(args) => rotate::run(&args),
        Command::Sae(command) => sae::run(&command),
        Command::Fault(command) => fault::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Spans(args) => spans::run(&args),
        Command::Health(args) => wire::health(args, log),
        Command::Render(args) => render::run(&args),
        Command::Operator(command) => operator::run(command, log),
        Command::Host(args) => crate::host::run(&args, log),
        Command::Completions(args) => completions::run(&args),
        Command::Source(args) => wire::source(args, log),
        Command::Detector(args) => wire::detector(args, log),
        Command::Transmitter(args) => wire::transmitter(args, log),
        Command::Channel(args) => wire::channel(args, log),
        Command::Kms(args) => wire::kms(args, log),
        Command::Relay(args) => wire::relay(args, log),
        Command::Collect(args) => collect::run(&args, log),
        Command::Reap(args) => wire::reap(args, log),
    }
}

/// Writes to standard output; a reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a value as one line of JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    print(&format!("{text}\n"))
}
