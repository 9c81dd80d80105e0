//! One module per command.

use std::process::ExitCode;

use runner::runtime::{self, ServiceArgs};
use runner::{Failure, containers, hosted};

use crate::cli::{self, Cli, Command};
use crate::style::{Style, tell};

mod collect;
mod completions;
mod control;
pub mod data;
mod digest;
mod down;
mod exposure;
mod fault;
pub mod files;
mod key;
mod ledger;
mod operator;
mod plan;
mod render;
mod replay;
pub mod restore;
mod rotate;
mod sae;
mod schema;
mod spans;
mod status;
mod trace;
mod up;
mod validate;
mod verify;

/// Runs the command that was typed.
pub fn dispatch(cli: Cli) -> Result<(), Failure> {
    let log = cli.log.as_deref();
    match cli.command {
        Command::Up(args) => up::run(&args, log),
        Command::Down(args) => down::run(&args),
        Command::Verify(args) => verify::run(&args, log),
        Command::Replay(args) => replay::run(&args, log),
        Command::Plan(args) => plan::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Schema => schema::run(),
        Command::Digest(args) => digest::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Rekey(args) => control::rekey(&args),
        Command::Key(command) => key::run(&command),
        Command::Exposure(args) => exposure::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Rotate(args) => rotate::run(&args),
        Command::Sae(command) => sae::run(&command),
        Command::Fault(command) => fault::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Spans(args) => spans::run(&args),
        Command::Health(args) => control::health(&args),
        Command::Render(args) => render::run(&args),
        Command::Operator(command) => operator::run(command, log),
        Command::Host(args) => hosted::run(&args.config, args.folder.as_deref(), log),
        Command::Completions(args) => completions::run(&args),
        Command::Source(args) => runtime::source(service(&args), log),
        Command::Detector(args) => runtime::detector(service(&args), log),
        Command::Transmitter(args) => runtime::transmitter(service(&args), log),
        Command::Channel(args) => runtime::channel(service(&args), log),
        Command::Kms(args) => runtime::kms(service(&args), log),
        Command::Relay(args) => runtime::relay(service(&args), log),
        Command::Pacer(args) => runtime::pacer(service(&args), log),
        Command::Collect(args) => collect::run(&args, log),
        Command::Reap(args) => containers::reap(args.engine.into(), &args.run, tell),
    }
}

fn service(args: &cli::ServiceArgs) -> ServiceArgs<'_> {
    ServiceArgs { config: &args.config, tied: args.tied }
}

/// Writes `error:` and `hint:` lines to standard error.
pub fn report(failure: &Failure) -> ExitCode {
    let style = Style::of_stderr();
    for message in failure.messages() {
        tell(&format!("{} {message}", style.error("error:")));
    }
    for hint in failure.hints() {
        tell(&format!("{} {hint}", style.hint("hint:")));
    }
    ExitCode::from(failure.code())
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
