//! Which clicks a data folder has used: a list of recordings that is longer-lived than a replay.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use photonics::tagfile::{Prints, SHARED_MIN};
use serde::{Deserialize, Serialize};
use shell::files;

use super::recordings::Recording;
use crate::Folders;
use crate::failure::Failure;

/// Recordings that one data folder remembers.
const REMEMBERED_MAX: usize = 2000;

/// A recording that was used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Used {
    sha256: String,
    link: String,
    site: String,
    file: PathBuf,
    clicks: u64,
    prints: Prints,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct List {
    recordings: Vec<Used>,
}

impl Used {
    pub fn of(recording: &Recording, link: &str) -> Self {
        Self {
            sha256: recording.sha256.clone(),
            link: link.to_owned(),
            site: recording.site.clone(),
            file: recording.path.clone(),
            clicks: recording.clicks,
            prints: recording.prints.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        (&self.sha256, &self.link, &self.site) == (&other.sha256, &other.link, &other.site)
    }

    /// Whether both have clicks in common.
    fn meets(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 || self.prints.shared(&other.prints) >= SHARED_MIN
    }
}

fn path(folders: &Folders) -> PathBuf {
    folders.data.join(".qkdnet").join("recordings.json")
}

fn read(folders: &Folders) -> Result<List> {
    let path = path(folders);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(List::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn write(folders: &Folders, list: &List) -> Result<()> {
    let text = serde_json::to_vec(list).context("write the list of recordings")?;
    let path = path(folders);
    files::write_durably(&path, &text).with_context(|| format!("write {}", path.display()))
}

/// A recording in the list that has clicks of one of `new`.
fn met<'l>(list: &'l List, new: &[Used]) -> Option<(usize, &'l Used)> {
    new.iter().enumerate().find_map(|(index, new)| Some((index, list.recordings.iter().find(|old| old.meets(new))?)))
}

/// Refuses recordings whose clicks were used in this data folder before.
pub fn check(folders: &Folders, ends: &[&Recording], link: &str) -> Result<(), Failure> {
    let list = read(folders)?;
    let new: Vec<Used> = ends.iter().map(|recording| Used::of(recording, link)).collect();
    let Some((index, old)) = met(&list, &new) else { return Ok(()) };
    let (path, data) = (ends[index].path.display(), folders.data.display());
    let what = if old.sha256 == new[index].sha256 { "it was" } else { "clicks of it were" };
    let of = format!("{} of {} on link {}", old.file.display(), old.site, old.link);
    Err(Failure::bad_input(format!("{path}: {what} distilled in {data} already (then {of})"))
        .hint("a click makes key once; to start from nothing, give another `--data` directory"))
}

/// Enters recordings, durably, under the lock of the data folder.
pub fn claim(folders: &Folders, new: &[Used]) -> Result<()> {
    let mut list = read(folders)?;
    if let Some((_, old)) = met(&list, new) {
        bail!("clicks of {} were distilled in {} already", old.file.display(), folders.data.display());
    }
    if list.recordings.len() + new.len() > REMEMBERED_MAX {
        bail!("{} remembers {REMEMBERED_MAX} recordings: give another `--data` directory", folders.data.display());
    }
    list.recordings.extend_from_slice(new);
    write(folders, &list)
}

/// Takes recordings off the list again.
pub fn release(folders: &Folders, unused: &[Used]) -> Result<()> {
    let mut list = read(folders)?;
    list.recordings.retain(|old| !unused.iter().any(|unused| unused.is(old)));
    write(folders, &list)
}
