//! What the site's key store and whoever controls the network say to the relay.

use anyhow::{Context, Result};
use proto::kms::v1::{PoolLevel, RelayAnswer, relay_answer};
use transfer::{Input, SiteName};

use super::Service;

impl Service {
    /// Fills pools for these sites from now on. Whether they are others than before; or why they cannot be.
    pub(super) fn set_targets(&mut self, sites: &[String]) -> Result<Result<bool, String>> {
        let mut targets = self.rerouted.clone();
        for site in sites {
            match SiteName::parse(site) {
                Ok(site) if self.neighbours.contains_key(&site) || site == *self.relay.site() => {
                    return Ok(Err(format!("no relay leads to {site}: it is here, or at a link's end")));
                }
                Ok(site) => drop(targets.insert(site)),
                Err(error) => return Ok(Err(format!("`{site}` is no site: {error}"))),
            }
        }
        let Some(gone) = self.routes.replace(&targets) else { return Ok(Ok(false)) };
        tracing::info!(targets = targets.len(), "pools are filled for other sites now");
        for target in gone {
            self.told.remove(&target);
            self.input(Input::Unwant { target })?;
        }
        Ok(Ok(true))
    }

    /// Pads cannot be drawn while the key store is away: others go another way.
    pub(super) fn lose_kms(&mut self) -> Result<()> {
        tracing::warn!("the key store has gone");
        for link in self.neighbours.values_mut() {
            (link.pad_out_bytes, link.pad_in_bytes, link.rate_bps) = (0, 0, 0);
        }
        for site in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            self.tell_neighbour(&site)?;
        }
        Ok(())
    }

    pub(super) fn hear_kms(&mut self, answer: RelayAnswer) -> Result<()> {
        if let Some(relay_answer::What::Level(level)) = answer.what {
            return self.hear_level(&level);
        }
        let Some((_, answers)) = self.pending.answered(&answer) else { return Ok(()) };
        answers.into_iter().try_for_each(|answer| self.input(Input::Kms(answer)))
    }

    fn hear_level(&mut self, level: &PoolLevel) -> Result<()> {
        let site = SiteName::parse(&level.site).context("understand the key store")?;
        if let Some(link) = self.neighbours.get_mut(&site) {
            link.pad_out_bytes = level.relay_out_bytes;
            link.pad_in_bytes = level.relay_in_bytes;
            link.rate_bps = level.rate_bps as u64;
            self.tell_neighbour(&site)?;
        }
        if !self.routes.wanted(&site) {
            return Ok(());
        }
        // The same level again would make the state machine forget what it has on the way.
        let changed = self.routes.level(&site, level.supply_bytes);
        if self.told.insert(site.clone()) || changed {
            let (low_water_bytes, high_water_bytes) = self.water_bytes;
            let (level_bytes, shares) = (level.supply_bytes, self.shares);
            self.input(Input::Want { target: site, level_bytes, low_water_bytes, high_water_bytes, shares })?;
        }
        Ok(())
    }
}
