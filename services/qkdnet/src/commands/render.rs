//! `qkdnet render`: the objects of a topology as text.

use operator::render::{Rendering, render};
use operator::settings::{RENDER, Settings};
use runner::Failure;

use super::{files, operator as settings_of, print};
use crate::cli::RenderArgs;

pub fn run(args: &RenderArgs) -> Result<(), Failure> {
    let topology = files::load(&args.file)?;
    super::up::can_run(&topology)?;
    let own = topology.metadata.namespace.as_ref().map(ToString::to_string);
    let rendering = Rendering {
        namespace: args.namespace.clone().or(own).unwrap_or_else(|| "default".to_owned()),
        with_namespace: args.create_namespace,
        without_secrets: args.without_secrets,
    };
    // Without an operator nobody tells running services: whatever changes restarts them.
    let settings = Settings { manager: RENDER, tells: false, ..settings_of::settings(&args.pods) };
    print(&render(&topology, &rendering, &settings).map_err(|error| Failure::failed(error.to_string()))?)
}
