//! `qkdnet replay`: distils key from recordings as if they were light.

use runner::watch::Asked;
use runner::{Failure, Folders, Place, Start, replay, runtime, start, watch};
use topology::document::Fidelity;
use topology::plan::{RunOptions, plan};

use super::files;
use crate::cli::ReplayArgs;
use crate::view::View;

pub fn run(args: &ReplayArgs, log: Option<&str>) -> Result<(), Failure> {
    let topology = files::load(&args.file)?;
    // Recordings are of tags, whatever the document would simulate.
    let options = RunOptions { seed: args.seed, fidelity: Some(Fidelity::Tags), ..RunOptions::default() };
    super::up::check_overrides(&topology, &options, "recordings are of clicks: a link of them is one at `tags`")?;
    let mut plan = plan(&topology, &options);
    let folders = Folders::of(&args.data);
    let (replay, findings) = replay::open(&args.recordings(), &mut plan, &folders)?;
    if let Some(reserve) = &args.reserve {
        replay::copy_secrets(&plan, reserve, &args.data)?;
    }
    let asked = Asked {
        seed: args.seed.or(topology.spec.run.seed),
        target_s: None,
        beyond_tags: false,
        replay: Some(findings),
    };
    let mut view = View::new(args.output.output);
    let log = if view.is_screen() { Some("off") } else { log.or(Some("warn")) };
    let telemetry = runtime::telemetry("qkdnet", &plan.topology, Some(folders.spans.clone()), log);
    let (place, anchors) = (Place::Tasks, args.state.anchors());
    let started = Start { plan: &plan, folders: &folders, place, recording: None, replay: Some(replay), anchors };
    let (mut report, lost) = runtime::block_on_told(&telemetry, async {
        let running = start(&started).await?;
        watch(running, &plan, &folders, &asked, &mut view, |_| false).await
    })?;
    if let Some(replay) = &started.replay {
        replay.release_unused(&report.links, &folders)?;
    }
    report.summary.verdict.extend(lost);
    view.conclude(report.summary)
}
