//! A folder for the time of one command.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use shell::files;

/// A private folder that is removed in the end.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).context("draw a name")?;
        let path = std::env::temp_dir().join(format!("qkdnet-{:016x}", u64::from_le_bytes(name)));
        files::create_private_folder(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing else can be done about a folder that does not go.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
