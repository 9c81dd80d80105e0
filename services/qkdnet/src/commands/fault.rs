//! `qkdnet fault`: what goes wrong on purpose in a running network.

mod client;
mod orders;

use std::fmt::Write as _;
use std::path::Path;

use proto::fault::v1::{FaultState, Phase};
use runner::roster::Roster;
use runner::{Failure, runtime};
use serde::Serialize;
use telemetry::TelemetryConfig;
use topology::quantity::Duration;

use self::client::{Clients, Times};
use self::orders::{Ordered, orders};
use super::{print, print_json};
use crate::cli::fault::{FaultCommand, LastingArgs, NetworkArgs, SimulatedArgs};
use crate::cli::{Output, Place};
use crate::cluster;
use crate::commands::status::running;
use crate::style::tell;

pub fn run(command: &FaultCommand) -> Result<(), Failure> {
    match command {
        FaultCommand::Cut(args) => {
            let ordered = Ordered::Cut { link: &args.link, arm: args.arm.as_deref() };
            simulated(&args.when, &ordered)
        }
        FaultCommand::Loss(args) => {
            let ordered = Ordered::Loss { link: &args.link, arm: args.arm.as_deref(), loss: args.loss };
            simulated(&args.when, &ordered)
        }
        FaultCommand::StepClock(args) => {
            simulated(&args.when, &Ordered::StepClock { link: &args.link, site: &args.site, by: args.by })
        }
        FaultCommand::StopClock(args) => {
            lasting(&args.lasting, &Ordered::StopClock { link: &args.link, site: &args.site })
        }
        FaultCommand::FillDisk(args) => {
            let ordered = Ordered::FillDisk { what: args.what, site: &args.site, link: args.link.as_deref() };
            lasting(&args.lasting, &ordered)
        }
        FaultCommand::Partition(args) => {
            lasting(&args.lasting, &Ordered::Partition { site: &args.site, other: &args.other })
        }
        FaultCommand::Stop(args) => lasting(&args.lasting, &Ordered::Stop { service: &args.service }),
        FaultCommand::Attack(args) => {
            let (link, site, attack) = (args.link.as_str(), args.site.as_str(), args.attack);
            let ordered = Ordered::Attack { link, site, attack, frames: args.frames, by: args.by };
            inject(&args.network, &ordered, &Times { id: name(None)?, at_ps: 0, duration_ps: 0 })
        }
        FaultCommand::List(args) => list(&args.network),
        FaultCommand::Clear(args) => clear(&args.network, |id| args.all || args.ids.iter().any(|known| known == id)),
    }
}

fn simulated(when: &SimulatedArgs, ordered: &Ordered<'_>) -> Result<(), Failure> {
    let at_ps = when.at.as_ref().map_or(0, Duration::rounded);
    let times = Times { at_ps, ..times(&when.lasting)? };
    inject(&when.lasting.network, ordered, &times)
}

fn lasting(args: &LastingArgs, ordered: &Ordered<'_>) -> Result<(), Failure> {
    inject(&args.network, ordered, &times(args)?)
}

fn times(args: &LastingArgs) -> Result<Times, Failure> {
    let duration_ps = args.duration.as_ref().map_or(0, Duration::rounded);
    Ok(Times { id: name(args.id.as_deref())?, at_ps: 0, duration_ps })
}

/// The name that was given, or one that nobody has thought of.
fn name(given: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let bytes = shell::entropy()?;
    Ok(bytes[..3].iter().fold("f".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

/// Whom to tell in the network that runs on this data.
fn roster(data: &Path) -> Result<Roster, Failure> {
    let network = running(data)?;
    network.roster.ok_or_else(|| {
        Failure::bad_input(format!("the topology {} allows no faults", network.topology)).hint(
            "write `faults: {allowed: true}` under `spec` and start the network again: it cannot be allowed later",
        )
    })
}

/// Does something with whoever is to be told.
fn told<T>(network: &NetworkArgs, work: impl AsyncFnOnce(&Roster) -> anyhow::Result<T>) -> Result<T, Failure> {
    match network.place.place() {
        Place::Data(data) => {
            let roster = roster(data)?;
            Ok(runtime::block_on(&TelemetryConfig::new("qkdnet"), async { work(&roster).await })?)
        }
        Place::Cluster(place) => cluster::run(place, async |there| {
            let control = there.control().await?;
            anyhow::ensure!(
                control.topology.spec.faults.allowed,
                "the topology {} allows no faults: write `faults: {{allowed: true}}` under `spec` and apply it again",
                there.topology
            );
            work(&control.roster).await
        }),
    }
}

fn inject(network: &NetworkArgs, ordered: &Ordered<'_>, times: &Times) -> Result<(), Failure> {
    let states = told(network, async |roster| match orders(roster, ordered) {
        Ok(orders) => Ok(Ok(Clients::new(roster).inject(&orders, times).await?)),
        Err(error) => Ok(Err(Failure::bad_input(error.to_string()))),
    })??;
    show(network, &states)
}

fn list(network: &NetworkArgs) -> Result<(), Failure> {
    let (faults, silent) = told(network, async |roster| Ok(Clients::new(roster).list().await))?;
    for (server, why) in &silent {
        tell(&format!("warning: {server} does not answer: {why}"));
    }
    if faults.is_empty() && network.output.output == Output::Text {
        return print("no faults\n");
    }
    show(network, &faults)
}

fn clear(network: &NetworkArgs, wanted: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let cleared = told(network, async |roster| Clients::new(roster).clear(wanted).await)?;
    if cleared.is_empty() {
        return Err(Failure::failed("there is no such fault").hint("`qkdnet fault list` says which there are"));
    }
    show(network, &cleared)
}

/// A fault of the network, as all its services tell of it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    what: String,
    state: &'static str,
    services: Vec<String>,
    /// Where it goes by simulated time and has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_first: Option<u64>,
    /// First epoch in which it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated_s: Option<f64>,
    /// Where it goes by wall time and has an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_unix_ms: Option<u64>,
}

fn shown(states: &[FaultState]) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for state in states {
        if let Some(known) = all.iter_mut().find(|known| known.id == state.id) {
            known.services.push(state.service.clone());
            continue;
        }
        let begun = state.epoch_first > 0 || state.epoch_end > 0;
        let open = |number: u64| (number > 0).then_some(number);
        all.push(Shown {
            id: state.id.clone(),
            what: state.description.clone(),
            state: match state.phase() {
                Phase::Waiting => "waiting",
                Phase::Active => "active",
                Phase::Over | Phase::Unspecified => "over",
            },
            services: vec![state.service.clone()],
            epoch_first: begun.then_some(state.epoch_first),
            epoch_end: open(state.epoch_end),
            simulated_s: begun.then_some(state.simulated_s),
            ends_unix_ms: open(state.ends_unix_ms),
        });
    }
    all
}

fn show(network: &NetworkArgs, states: &[FaultState]) -> Result<(), Failure> {
    let all = shown(states);
    if network.output.output == Output::Json {
        return print_json(&all);
    }
    let mut text = String::new();
    for fault in &all {
        let _ = write!(text, "{}  {}  {}", fault.id, fault.state, fault.what);
        if let (Some(epoch), Some(simulated_s)) = (fault.epoch_first, fault.simulated_s) {
            let _ = write!(text, ", from epoch {epoch} on ({simulated_s:.2} s simulated)");
        }
        if let Some(end) = fault.epoch_end {
            let _ = write!(text, " to before epoch {end}");
        }
        let _ = writeln!(text, "  [{}]", fault.services.join(" "));
    }
    print(&text)
}
