//! Who keeps the ceilings of a run's stores: a folder of the person who runs it, outside the data.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::anchor::{Anchor, FolderAnchor, Unanchored};
use anyhow::{Context, Result};
use shell::launch::Anchoring;

/// A store that nobody has opened or closed for so long is forgotten, and of more stores those that rested longest.
const REST: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
const STORES_MAX: usize = 20_000;

/// Where ceilings are kept.
#[derive(Clone, Debug)]
pub enum Anchors {
    Folder(PathBuf),
    /// Nowhere, because the data do not outlive the run.
    NotNeeded,
    /// Nowhere, and why.
    Missing(String),
}

impl Anchors {
    /// In the state folder of the person who runs this, or in another one that was named.
    pub fn find(state_dir: Option<&Path>) -> Self {
        let folder = match state_dir {
            Some(folder) => folder.to_owned(),
            None => match state_folder(env::var_os("XDG_STATE_HOME"), env::var_os("HOME")) {
                Some(folder) => folder,
                None => return Self::Missing("neither HOME nor XDG_STATE_HOME names a folder".to_owned()),
            },
        };
        let opened = std::path::absolute(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))
            .and_then(|folder| open(folder.join("anchors")));
        opened.map_or_else(Self::Missing, Self::Folder)
    }

    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::NotNeeded | Self::Missing(_) => None,
        }
    }

    /// What a person has to know, where ceilings should be kept and are not.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Missing(why) => Some(why),
            Self::Folder(_) | Self::NotNeeded => None,
        }
    }

    /// For services in this process.
    pub fn open(&self) -> Result<Arc<dyn Anchor>> {
        Ok(match self.folder() {
            Some(folder) => Arc::new(FolderAnchor::open(folder).context("open the anchor")?),
            None => Arc::new(Unanchored),
        })
    }

    /// What a service on this machine is told.
    pub fn anchoring(&self) -> Option<Anchoring> {
        self.folder().map(|path| Anchoring::Folder { path: path.to_owned() })
    }
}

/// As the XDG base directories have it: a path that is not absolute does not count.
fn state_folder(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let folder = xdg.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".local/state")))?;
    Some(folder.join("qkdnet"))
}

fn open(folder: PathBuf) -> Result<PathBuf, String> {
    let anchor = FolderAnchor::open(&folder).map_err(|error| error.to_string())?;
    let forgotten = anchor.forget(REST, STORES_MAX).map_err(|error| error.to_string())?;
    if forgotten > 0 {
        tracing::info!(forgotten, folder = %folder.display(), "ceilings of stores that rested too long are forgotten");
    }
    Ok(folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_where_the_xdg_base_directories_say() {
        let folder = |xdg: Option<&str>, home: Option<&str>| state_folder(xdg.map(Into::into), home.map(Into::into));
        assert_eq!(folder(Some("/s"), Some("/h")), Some("/s/qkdnet".into()));
        assert_eq!(folder(None, Some("/h")), Some("/h/.local/state/qkdnet".into()));
        assert_eq!(folder(Some("relative"), Some("/h")), Some("/h/.local/state/qkdnet".into()));
        assert_eq!(folder(Some(""), None), None);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_reason_and_no_failure() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let anchors = Anchors::find(Some(&file));
        assert!(anchors.missing().unwrap().contains("file/anchors"), "{anchors:?}");
        assert_eq!(anchors.anchoring(), None);
        let anchors = Anchors::find(Some(&place.path().join("state")));
        assert_eq!((anchors.missing(), anchors.folder()), (None, Some(&*place.path().join("state/anchors"))));
    }
}
