//! The recordings of a link of pulses: the receiver's tags, the sessions beside them, and the transmitter's choices.
//!
//! Numbers of pulses count from the start of a session, so one session is replayed: the longest that both ends
//! recorded.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use detector::{Beginning, Playback};
use photonics::tag::UNIT_PS;
use photonics::tagfile::sessions::{self, Head, Kind, Session};
use topology::plan::{ModuleConfig, Plan, TransmitterConfig};

use super::recordings::{self, Recording};
use super::used::{self, Used};
use super::{Findings, Recordings, Replay};
use crate::failure::Failure;
use crate::{Folders, sessions_path};

/// What a receiver's file of sessions begins with.
pub fn sessions_of_tags(receiver: &ModuleConfig) -> Head {
    Head { kind: Kind::Tags, frame_ps: receiver.protocol.post_processing.framing.frame_ps, transmitter: 0 }
}

/// What a transmitter's file of choices begins with.
pub fn sessions_of_choices(config: &TransmitterConfig) -> Head {
    let frame_ps = config.module.protocol.post_processing.framing.frame_ps;
    Head { kind: Kind::Choices, frame_ps, transmitter: sessions::fingerprint(&config.transmitter) }
}

/// The session that is replayed, as either end has it.
struct Common {
    tags: Session,
    choices: Session,
    frames: u64,
}

pub fn open(
    given: &Recordings,
    plan: &Plan,
    transmitter: &TransmitterConfig,
    folders: &Folders,
) -> Result<(Replay, Findings), Failure> {
    let (link, sender) = (&transmitter.module.link, &transmitter.module.site);
    let receiver = plan.detectors().next().map(|detector| &detector.module);
    let receiver = receiver.ok_or_else(|| Failure::bad_input(format!("link `{link}` has no receiver")))?;
    let choices_path = check(given, link, sender, &receiver.site)?;
    let hint = format!("give `--tags {}=FILE` once", receiver.site);
    let recording = recordings::of_site(given, &receiver.site, "the tags of the receiver are needed", &hint)?;
    used::check(folders, &[&recording], link)?;
    let tags = read(
        &sessions_path(&recording.path),
        &sessions_of_tags(receiver),
        "`up --record` writes it beside the tags and under their name; it says where sessions begin",
    )?;
    let hint = format!("give the file that `up --record` wrote of `{sender}` with this topology, as it was");
    let choices = read(choices_path, &sessions_of_choices(transmitter), &hint)?;
    let frame_ps = receiver.protocol.post_processing.framing.frame_ps;
    let (sessions, common) = longest(tags, choices, last_frame(&recording, frame_ps));
    let Some(Common { tags, choices, frames }) = common else {
        let what = format!("{} and {} have no session in common", recording.path.display(), choices_path.display());
        return Err(Failure::bad_input(what).hint("both files must be of one run"));
    };
    let begins = Beginning::default();
    let playback = Playback::new(recording.frames(frame_ps)?, tags.first, frames, begins.clone());
    let replay = Replay {
        playbacks: [(recording.site.clone(), Arc::new(playback))].into(),
        pulses: Some(Arc::new(transmitter::Playback::new(choices, frames, begins))),
        uses: vec![Used::of(&recording, link)],
        claimed: Default::default(),
    };
    let mut remarks = vec![format!("with the choices of {sender}: {}", choices_path.display())];
    if sessions > 1 {
        remarks.push(format!("the longest of {sessions} sessions is used"));
    }
    Ok((replay, Findings::of_pulses(&recording, frames, frame_ps, remarks)))
}

/// The file of choices, where all else that is asked for fits a link of pulses.
fn check<'a>(given: &'a Recordings, link: &str, sender: &str, receiver: &str) -> Result<&'a Path, Failure> {
    if given.tags.iter().any(|(site, _)| site == sender) {
        let what = format!("`{sender}` has the transmitter of {link}, which records no tags");
        return Err(Failure::bad_input(what).hint("give what it chose: `--choices FILE`"));
    }
    recordings::check_sites(given, &[receiver], link)?;
    if !given.shifts_ps.is_empty() {
        let what = format!("the clocks of {link} are not shifted: what was sent is told by session and frame");
        return Err(Failure::bad_input(what).hint("leave `--shift` away"));
    }
    let missing = || {
        let what = format!("link `{link}` has a transmitter, and clicks make no key without what it chose");
        Failure::bad_input(what).hint(format!("give the file that `up --record` wrote of `{sender}`: `--choices FILE`"))
    };
    given.choices.as_deref().ok_or_else(missing)
}

fn read(path: &Path, head: &Head, hint: &str) -> Result<Vec<Session>, Failure> {
    let refused = |error: String| Failure::bad_input(format!("{}: {error}", path.display())).hint(hint);
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    sessions::read(file, head).map_err(|error| refused(error.to_string()))
}

/// Number of the frame of the last click.
fn last_frame(recording: &Recording, frame_ps: u64) -> u64 {
    u64::try_from(recording.last / i128::from((frame_ps / UNIT_PS).max(1))).unwrap_or(0)
}

/// How many sessions both ends have, and the longest of them.
fn longest(tags: Vec<Session>, choices: Vec<Session>, last_frame: u64) -> (usize, Option<Common>) {
    let mut choices: std::collections::BTreeMap<u64, Session> =
        choices.into_iter().map(|session| (session.number, session)).collect();
    let common = tags.into_iter().filter_map(|tags| {
        let choices = choices.remove(&tags.number)?;
        // Of a run that was killed the clicks say how far it came.
        let received = tags.frames.unwrap_or((last_frame + 1).saturating_sub(tags.first));
        let frames = received.min(choices.frames.unwrap_or(u64::MAX));
        (frames > 0).then_some(Common { tags, choices, frames })
    });
    let common: Vec<Common> = common.collect();
    (common.len(), common.into_iter().max_by_key(|common| common.frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(sessions: &[(u64, u64, Option<u64>)]) -> Vec<Session> {
        let session = |&(number, first, frames): &_| Session { number, first, frames, key: Default::default() };
        sessions.iter().map(session).collect()
    }

    #[test]
    fn the_longest_session_of_both_ends_is_replayed_as_far_as_both_have_it() {
        let tags = sessions(&[(1, 50, Some(10)), (2, 70, Some(100)), (4, 300, None)]);
        let choices = sessions(&[(1, 0, Some(10)), (2, 20, Some(90)), (3, 200, Some(1000)), (4, 250, None)]);
        let (count, longest) = longest(tags.clone(), choices.clone(), 349);
        let longest = longest.expect("a session");
        assert_eq!((count, longest.tags.first, longest.choices.first, longest.frames), (3, 70, 20, 90));
        let (_, killed) = super::longest(tags, choices, 1299);
        assert_eq!(killed.expect("a session").frames, 1000, "the last click of a run that was killed is in frame 1299");
    }

    #[test]
    fn files_of_different_runs_have_no_session_in_common() {
        let (count, longest) = longest(sessions(&[(1, 50, Some(10))]), sessions(&[(2, 0, Some(10))]), 60);
        assert!(count == 0 && longest.is_none());
    }
}
