//! Randomness of the roles of a link's end.

use anyhow::{Context, Result};
use photonics::random::Subseed;
use topology::plan::SecretSeed;

/// Randomness of a role from its configuration, or the system's where the run is not to be repeatable.
pub fn subseed(seed: Option<&SecretSeed>) -> Result<Subseed> {
    match seed {
        Some(seed) => Ok(Subseed::new(*seed.bytes())),
        None => Ok(Subseed::new(shell::entropy().context("draw a seed")?)),
    }
}
