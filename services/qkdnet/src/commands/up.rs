//! `qkdnet up`: run a network until it is stopped or its time is over.

use std::path::{Path, PathBuf};

use runner::containers::Containers;
use runner::verdict::Verdict;
use runner::watch::Asked;
use runner::{Failure, Folders, Place, Recording, Start, continue_after, runtime, same_epochs, start, tags_end, watch};
use topology::document::{Fidelity, Topology, WhenFull};
use topology::plan::twin_field::cannot_run;
use topology::plan::{Plan, RunOptions, counts, plan};

use super::files;
use crate::cli::containers::On;
use crate::cli::{Isolation, RecordArgs, RunArgs, UpArgs};
use crate::style::tell;
use crate::view::View;

/// Spans that may wait for the file where one process has all services of a network.
const SPANS_WAITING: usize = 8192;

/// The plan of a topology file as the command line wants it run, and where its data go.
pub struct Prepared {
    pub plan: Plan,
    pub folders: Folders,
    pub asked: Asked,
}

/// Reads the topology and plans it; a run on data that is there already continues.
pub fn prepare(file: &Path, args: &RunArgs, data: Option<PathBuf>) -> Result<Prepared, Failure> {
    prepare_until(file, args, data, |_| Ok(None))
}

/// As [`prepare`], for a run of which `limit_s` changes the plan and says when a run without `--for` ends.
pub fn prepare_until(
    file: &Path,
    args: &RunArgs,
    data: Option<PathBuf>,
    limit_s: impl FnOnce(&mut Plan) -> Result<Option<f64>, Failure>,
) -> Result<Prepared, Failure> {
    let topology = files::load(file)?;
    let overridden = args.overrides().fidelity.unwrap_or_default();
    check_overrides(&topology, &args.overrides(), &format!("leave `--fidelity {}` away", overridden.name()))?;
    let mut plan = plan(&topology, &args.overrides());
    let data = data.unwrap_or_else(|| args.data_dir(&plan.topology));
    for warning in &plan.warnings {
        tell(&format!("warning: {warning}"));
    }
    if let Some(seconds) = limit_s(&mut plan)? {
        plan.limit_ps.get_or_insert((seconds * 1e12).ceil() as u64);
    }
    same_epochs(&plan, &data)?;
    let seen = continue_after(&mut plan, &data)?;
    if seen.ended {
        let mut verdict = Verdict::default();
        verdict.extend(tags_end(&plan, &data)?);
        verdict.into_result(false)?;
    }
    let asked = Asked {
        seed: args.seed.or(topology.spec.run.seed),
        target_s: plan.end_ps().map(|end_ps| end_ps as f64 * 1e-12),
        beyond_tags: plan.has_tags()
            && plan.end_ps().is_none_or(|end_ps| seen.furthest_ps.saturating_add(end_ps) > plan.tags_end_ps),
        replay: None,
    };
    Ok(Prepared { plan, folders: Folders::of(&data), asked })
}

/// Whether there is a service for every part of a network.
pub fn can_run(topology: &Topology) -> Result<(), Failure> {
    match cannot_run(topology) {
        Some(why) => Err(Failure::bad_input(why).hint("`qkdnet plan` prints what is expected of it")),
        None => Ok(()),
    }
}

/// A document is good by itself; what the command line makes of it may not be.
pub fn check_overrides(topology: &Topology, options: &RunOptions, hint: &str) -> Result<(), Failure> {
    can_run(topology)?;
    if let (Some(seed), WhenFull::Dark) = (options.seed, topology.spec.key_management.when_full) {
        let what = format!(
            "`--seed {seed}` makes a run repeatable, and `keyManagement.whenFull: dark` darkens links at moments of wall time"
        );
        return Err(Failure::bad_input(what).hint("leave `--seed` away, or let a full pool `wait` or `expire`"));
    }
    match counts::refusals(topology, options).as_slice() {
        [] => Ok(()),
        refusals => Err(Failure::bad_input(refusals.join("\n")).hint(hint)),
    }
}

/// Where time tags go, once it is sure that nothing is lost there.
fn recording(args: &RecordArgs, plan: &Plan) -> Result<Option<Recording>, Failure> {
    let Some(folder) = &args.record else { return Ok(None) };
    if let Some(link) = plan.links.iter().find(|link| link.fidelity == Fidelity::Counts) {
        let what = format!("link `{}` has no time tags to record: its light is drawn as counts", link.name);
        return Err(Failure::bad_input(what).hint("record with `--fidelity tags`"));
    }
    let (folder, format, bytes) = (folder.clone(), args.record_format.into(), args.record_limit);
    let (extension, record_for) = (args.record_format.extension(), args.record_for);
    let recording = Recording { folder, format, extension, record_for, bytes };
    recording.refuse_to_overwrite(plan)?;
    shell::files::create_private_folder(&recording.folder)
        .map_err(|error| Failure::bad_input(format!("create {}: {error}", recording.folder.display())))?;
    for module in plan.transmitters().map(|transmitter| &transmitter.module) {
        let path = recording.choices_path(&module.link, &module.site);
        tell(&format!(
            "warning: {} will hold what the transmitter of {} chooses, which is raw key: leave it at {}, and erase it \
             when it is no longer needed",
            path.display(),
            module.link,
            module.site
        ));
    }
    Ok(Some(recording))
}

/// Where services run; an engine has to answer before anything is started.
pub fn place(args: &RunArgs) -> Result<Place, Failure> {
    let containers = &args.containers;
    match (containers.on, args.isolation) {
        (On::Containers, _) => {
            let found = Containers::find(containers.engine.map(Into::into), containers.image.clone())?;
            found.warning.iter().for_each(|warning| tell(warning));
            Ok(Place::Containers(found))
        }
        (On::Machine, Isolation::Tasks) => Ok(Place::Tasks),
        (On::Machine, Isolation::Process) => Ok(Place::Process),
    }
}

pub fn run(args: &UpArgs, log: Option<&str>) -> Result<(), Failure> {
    let Prepared { plan, folders, asked } = prepare(&args.file, &args.run, None)?;
    let recording = recording(&args.record, &plan)?;
    let place = place(&args.run)?;
    let mut view = View::new(args.run.output.output);
    // A screen and log lines would spoil each other.
    let log = if view.is_screen() { Some("off") } else { log.or(Some("warn")) };
    let mut telemetry = runtime::telemetry("qkdnet", &plan.topology, Some(folders.spans.clone()), log);
    telemetry.spans_waiting = SPANS_WAITING;
    let (mut report, lost) = runtime::block_on_told(&telemetry, async {
        let anchors = args.run.state.anchors();
        let started = Start { plan: &plan, folders: &folders, place, recording, replay: None, anchors };
        let running = start(&started).await?;
        watch(running, &plan, &folders, &asked, &mut view, |_| false).await
    })?;
    report.summary.verdict.extend(lost);
    view.conclude(report.summary)
}
