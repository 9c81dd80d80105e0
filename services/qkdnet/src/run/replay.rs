//! `qkdnet replay`: two recordings of raw time tags in place of light; everything after the click is as in a run.

use std::collections::BTreeMap;

use topology::plan::{RunOptions, plan};

use super::watch::Asked;
use super::{Folders, Place, Start, start, watch};
use crate::cli::ReplayArgs;
use crate::commands::files;
use crate::failure::Failure;
use crate::view::View;
use crate::wire;

pub fn run(args: &ReplayArgs, log: Option<&str>) -> Result<(), Failure> {
    let topology = files::load(&args.file)?;
    let mut plan = plan(&topology, &RunOptions { seed: args.seed, ..RunOptions::default() });
    let link = link(args, &plan)?;
    plan.without_key_management();
    plan.links.retain(|planned| planned.name == link);
    plan.services.retain(|service| service.link.as_deref() == Some(&link));
    let mut tags: BTreeMap<String, std::path::PathBuf> = BTreeMap::new();
    for (site, file) in &args.tags {
        if !plan.detectors().any(|detector| detector.site == *site) {
            return Err(Failure::bad_input(format!("link `{link}` has no end at `{site}`")));
        }
        if !file.is_file() {
            return Err(Failure::bad_input(format!("{} is not a file", file.display())));
        }
        tags.insert(site.clone(), file.clone());
    }
    if tags.len() != 2 {
        return Err(Failure::bad_input("the tags of both ends are needed").hint("give `--tags SITE=FILE` twice"));
    }
    let folders = Folders::of(&args.data);
    if let Some(reserve) = &args.reserve {
        copy_secrets(&plan, reserve, &args.data)?;
    }
    let asked = Asked { seed: args.seed.or(topology.spec.run.seed), target_s: None, beyond_tags: false };
    let mut view = View::new(args.output.output);
    let log = if view.is_screen() { Some("off") } else { log.or(Some("warn")) };
    let telemetry = wire::telemetry("qkdnet", &plan.topology, Some(folders.spans.clone()), log);
    let anchors = args.state.anchors();
    let (mut report, lost) = wire::block_on_told(&telemetry, async {
        let (folders, place) = (&folders, Place::Tasks);
        let started = Start { plan: &plan, folders, place, recording: None, replay: tags, anchors };
        let running = start(&started).await?;
        watch(running, &plan, folders, &asked, &mut view, |_| false).await
    })?;
    report.summary.verdict.extend(lost);
    view.conclude(report.summary)
}

fn link(args: &ReplayArgs, plan: &topology::plan::Plan) -> Result<String, Failure> {
    let names: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    let hint = format!("links: {}", names.join(", "));
    match (&args.link, &names[..]) {
        (Some(name), _) if names.contains(&name.as_str()) => Ok(name.clone()),
        (Some(name), _) => Err(Failure::bad_input(format!("there is no link `{name}`")).hint(hint)),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(Failure::bad_input("whose tags these are is not said").hint(format!("add `--link`; {hint}"))),
    }
}

/// Takes the first authentication secrets of another run.
fn copy_secrets(plan: &topology::plan::Plan, from: &std::path::Path, to: &std::path::Path) -> Result<(), Failure> {
    for config in plan.channels() {
        let source = channel::secret_path(from, &config.site, &config.link);
        let target = channel::secret_path(to, &config.site, &config.link);
        let secret = std::fs::read(&source)
            .map_err(|error| Failure::bad_input(format!("cannot read {}: {error}", source.display())))?;
        if let Some(folder) = target.parent() {
            shell::files::create_private_folder(folder)?;
        }
        shell::files::write_durably(&target, &secret)?;
    }
    Ok(())
}
