//! Recordings in place of light; everything after the click is as in a run. A link of entangled pairs
//! has time tags of both ends, a link of pulses those of its receiver and the choices of its transmitter.
//!
//! All recordings are surveyed from end to end before anything is started: what is wrong with them is a plain answer
//! and touches nothing. Clicks that a data folder has distilled once are never distilled there again.

mod alignment;
mod pulses;
mod recordings;
mod used;
mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use detector::{Beginning, Playback};
use distill::config::Entangled;
use photonics::tag::UNIT_PS;
use photonics::tagfile::Format;
use tokio_util::sync::CancellationToken;
use topology::plan::Plan;

pub use self::pulses::{sessions_of_choices, sessions_of_tags};
use self::recordings::Recording;
use self::used::Used;
pub use self::verdict::Findings;
use super::Folders;
use super::watch::LinkReport;
use crate::failure::Failure;

/// Something that holds for one site's recording, or for both.
pub type ForSite<T> = (Option<String>, T);

/// What is said of the recordings of a link.
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    /// Needed where the topology has several links.
    pub link: Option<String>,
    /// By site.
    pub tags: Vec<(String, PathBuf)>,
    /// What the transmitter of a link of pulses chose.
    pub choices: Option<PathBuf>,
    /// What the recordings are, where that does not show.
    pub formats: Vec<ForSite<Format>>,
    /// Channels that are the detectors.
    pub channels: Vec<ForSite<Vec<i32>>>,
    /// What to add to the time of a site's tags, in picoseconds.
    pub shifts_ps: Vec<(String, i128)>,
}

/// Recordings, ready to be played.
pub struct Replay {
    playbacks: BTreeMap<String, Arc<Playback>>,
    /// What a transmitter sent, on a link of pulses.
    pulses: Option<Arc<transmitter::Playback>>,
    uses: Vec<Used>,
    claimed: Mutex<bool>,
}

impl Replay {
    fn open(ends: [&Recording; 2], frame_ps: u64, spans: &alignment::Alignment, link: &str) -> Result<Self> {
        let begins = Beginning::default();
        let mut playbacks = BTreeMap::new();
        for (recording, span) in ends.into_iter().zip(&spans.spans) {
            let frames = recording.frames(frame_ps)?.starting_at(span.origin);
            let playback = Playback::new(frames, span.first, span.frames, begins.clone());
            playbacks.insert(recording.site.clone(), Arc::new(playback));
        }
        let uses = ends.map(|recording| Used::of(recording, link)).into();
        Ok(Self { playbacks, pulses: None, uses, claimed: Mutex::new(false) })
    }

    /// The recording of a site.
    pub fn of(&self, site: &str) -> Result<Arc<Playback>> {
        self.playbacks.get(site).cloned().with_context(|| format!("there is no recording of {site}"))
    }

    /// What the transmitter sent.
    pub fn pulses(&self) -> Result<Arc<transmitter::Playback>> {
        self.pulses.clone().context("there is no recording of a transmitter")
    }

    /// Ends early when the run is drained.
    pub fn end_with(&self, drain: &CancellationToken) {
        self.playbacks.values().for_each(|playback| playback.end_with(drain.clone()));
        self.pulses.iter().for_each(|playback| playback.end_with(drain.clone()));
    }

    /// Notes in the data folder that these clicks are used, before any of them is.
    pub fn claim(&self, folders: &Folders) -> Result<()> {
        used::claim(folders, &self.uses)?;
        *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }

    /// Takes that back where no click of these recordings was matched with another.
    pub fn release_unused(&self, links: &[LinkReport], folders: &Folders) -> Result<()> {
        let nothing_used = links.iter().all(|link| !link.locked && link.status.blocks == 0);
        if nothing_used { self.release(folders) } else { Ok(()) }
    }

    fn release(&self, folders: &Folders) -> Result<()> {
        if std::mem::take(&mut *self.claimed.lock().unwrap_or_else(PoisonError::into_inner)) {
            let _lock = super::lock::Lock::take(folders)?;
            used::release(folders, &self.uses)?;
        }
        Ok(())
    }
}

/// Surveys the recordings, and leaves of the plan the link that they are of.
pub fn open(given: &Recordings, plan: &mut Plan, folders: &Folders) -> Result<(Replay, Findings), Failure> {
    let link = link(given, plan)?;
    restrict(plan, &link);
    match plan.transmitters().next() {
        Some(transmitter) => pulses::open(given, plan, transmitter, folders),
        None => pairs(given, plan, &link, folders),
    }
}

/// The recordings of both ends of a link of entangled pairs.
fn pairs(given: &Recordings, plan: &Plan, link: &str, folders: &Folders) -> Result<(Replay, Findings), Failure> {
    if given.choices.is_some() {
        return Err(Failure::bad_input(format!("link `{link}` has no transmitter whose choices `--choices` could be"))
            .hint("give `--tags SITE=FILE` of both ends alone"));
    }
    let recordings = recordings::open(given, plan, link)?;
    let ends = [&recordings[0], &recordings[1]];
    used::check(folders, &ends, link)?;
    let config = plan.modules().next().ok_or_else(|| Failure::bad_input(format!("link `{link}` has no ends")))?;
    let frame_ps = config.protocol.post_processing.framing.frame_ps;
    let Some(Entangled { acquisition, .. }) = config.protocol.sifting.entangled() else {
        return Err(Failure::bad_input(format!("recordings of link `{link}` are not replayed")));
    };
    let alignment = alignment::align(ends, frame_ps, acquisition)?;
    let replay = Replay::open(ends, frame_ps, &alignment, link)?;
    Ok((replay, Findings::of_pairs(ends, &alignment, frame_ps, acquisition)))
}

/// One link alone, without key stores, and without an end but that of its recordings.
fn restrict(plan: &mut Plan, link: &str) {
    plan.without_key_management();
    plan.links.retain(|planned| planned.name == link);
    plan.retain(|service| service.link.as_deref() == Some(link));
    let modules = plan.services.iter_mut().filter_map(|service| service.config.module_mut());
    modules.for_each(|module| module.epochs_limit = None);
}

fn link(given: &Recordings, plan: &Plan) -> Result<String, Failure> {
    let names: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    let hint = format!("links: {}", names.join(", "));
    match (&given.link, &names[..]) {
        (Some(name), _) if names.contains(&name.as_str()) => Ok(name.clone()),
        (Some(name), _) => Err(Failure::bad_input(format!("there is no link `{name}`")).hint(hint)),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(Failure::bad_input("whose tags these are is not said").hint(format!("add `--link`; {hint}"))),
    }
}

/// Takes the authentication secrets that were placed in another folder, and that no run has taken yet.
pub fn copy_secrets(plan: &Plan, from: &std::path::Path, to: &std::path::Path) -> Result<(), Failure> {
    for config in plan.channels() {
        let source = channel::secret_path(from, &config.site, &config.link);
        let target = channel::secret_path(to, &config.site, &config.link);
        let secret = std::fs::read(&source).map_err(|error| {
            Failure::bad_input(format!("cannot read {}: {error}", source.display())).hint(
                "a run erases the secret that it takes: leave `--reserve` away, and the replay draws one of its own",
            )
        })?;
        let secret = zeroize::Zeroizing::new(secret);
        if let Some(folder) = target.parent() {
            shell::files::create_private_folder(folder)?;
        }
        shell::files::write_durably(&target, &secret)?;
    }
    Ok(())
}

/// Ticks in seconds.
fn seconds(ticks: i128) -> f64 {
    ticks as f64 * UNIT_PS as f64 * 1e-12
}
