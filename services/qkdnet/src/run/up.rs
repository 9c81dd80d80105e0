//! `qkdnet up`: run a network until it is stopped or its time is over.

use std::path::{Path, PathBuf};

use topology::plan::{Plan, plan};

use super::watch::Asked;
use super::{Folders, Outcome, Place, Recording, Start, continue_after, start, tags_end, watch};
use crate::cli::{RunArgs, UpArgs};
use crate::commands::files;
use crate::failure::Failure;
use crate::view::View;
use crate::wire;

/// Spans that may wait for the file where one process has all services of a network.
const SPANS_WAITING: usize = 8192;

/// The plan of a topology file as the command line wants it run, and where its data go.
pub struct Prepared {
    pub plan: Plan,
    pub folders: Folders,
    pub asked: Asked,
    /// More was asked for than time tags hold.
    pub beyond_tags: bool,
}

/// Reads the topology and plans it; a run on data that is there already continues.
pub fn prepare(file: &Path, args: &RunArgs, data: Option<PathBuf>) -> Result<Prepared, Failure> {
    let topology = files::load(file)?;
    let mut plan = plan(&topology, &args.overrides());
    let data = data.unwrap_or_else(|| args.data_dir(&plan.topology));
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    let epochs = plan.epochs_limit;
    let seen = continue_after(&mut plan, &data)?;
    if seen >= plan.tag_epochs {
        tags_end(&plan, &data)?;
    }
    let asked = Asked {
        seed: args.seed.or(topology.spec.run.seed),
        target_s: epochs.map(|epochs| epochs as f64 * plan.epoch_ps as f64 * 1e-12),
    };
    let beyond_tags = epochs.is_none_or(|epochs| seen.saturating_add(epochs) > plan.tag_epochs);
    Ok(Prepared { plan, folders: Folders::of(&data), asked, beyond_tags })
}

pub fn run(args: &UpArgs, log: Option<&str>) -> Result<(), Failure> {
    let Prepared { plan, folders, asked, beyond_tags } = prepare(&args.file, &args.run, None)?;
    let recording = match &args.record.record {
        Some(folder) => {
            shell::files::create_private_folder(folder)?;
            let frames = args.record.record_for.rounded().div_ceil(plan.epoch_ps);
            Some(Recording { folder: folder.clone(), frames, bytes: args.record.record_limit })
        }
        None => None,
    };
    let place = Place::of(&args.run)?;
    let view = View::new(args.run.output.output);
    // A screen and log lines would spoil each other.
    let log = if view.is_screen() { Some("off") } else { log.or(Some("warn")) };
    let mut telemetry = wire::telemetry("qkdnet", &plan.topology, Some(folders.spans.clone()), log);
    telemetry.spans_waiting = SPANS_WAITING;
    let report = wire::block_on(&telemetry, async {
        let started = Start { plan: &plan, folders: &folders, place, recording, replay: Default::default() };
        let running = start(&started).await?;
        watch(running, &plan, &folders, &asked, view).await
    })?;
    match report.outcome {
        Outcome::Complete if beyond_tags => tags_end(&plan, &folders.data),
        Outcome::Complete => Ok(()),
        Outcome::Cut => Err(Failure::failed("the run was cut short")),
    }
}
