//! Light at the fidelity of counts: each output gets the sifted bits of its own end, and nothing of the other one's.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use photonics::analyser::AnalyserState;
use photonics::config::epoch_start_s;
use photonics::nature::counts::{Emitter, Half};
use photonics::random::Subseed;
use topology::plan::counts::{Conditions, SLICES_MAX, Told};
use topology::plan::{Counts, SourceConfig};
use zeroize::Zeroizing;

use crate::nature::Light;

/// The emission of one session.
pub struct Counted {
    counts: Counts,
    epoch_ps: u64,
    losses_db: Vec<f64>,
    added_db: [f64; 2],
    unseen: bool,
    subseed: Subseed,
    /// What draws, and for which conditions its law holds: a law is made when they change.
    drawn: Option<(Conditions, Emitter)>,
}

impl Counted {
    /// `transmitter` is the key of a prepared link's session. All bits of the session follow from it and from the
    /// source's own secret together: neither of the two ends can compute the other one's, and no session has another
    /// one's bits.
    pub fn begin(
        counts: &Counts,
        config: &SourceConfig,
        subseed: &Subseed,
        transmitter: Option<&[u8; 32]>,
    ) -> Result<Self> {
        let subseed = match (counts, transmitter) {
            (Counts::Pairs(_), _) => subseed.clone(),
            (Counts::Pulses(_), Some(key)) => subseed.of_session(key),
            (Counts::Pulses(_), None) => bail!("the transmitter attached without a key of its choices"),
        };
        Ok(Self {
            counts: counts.clone(),
            epoch_ps: config.epoch_ps,
            losses_db: config.losses_db(),
            added_db: [0.0; 2],
            unseen: false,
            subseed,
            drawn: None,
        })
    }

    /// Gives the arms other losses, in the order of the configuration.
    pub fn set_losses_db(&mut self, losses_db: &[f64]) {
        losses_db.clone_into(&mut self.losses_db);
    }

    /// What faults and outages add to the way to either output, and whether detectors do not click.
    pub fn suffer(&mut self, added_db: [f64; 2], unseen: bool) {
        (self.added_db, self.unseen) = (added_db, unseen);
    }

    pub fn emit(&mut self, epoch: u64, pump: f64, states: [&AnalyserState; 2]) -> Result<[Light; 2]> {
        let conditions = self.counts.conditions(&Told {
            t_s: epoch_start_s(epoch, self.epoch_ps),
            losses_db: &self.losses_db,
            added_db: self.added_db,
            pump,
            phases_rad: states.map(|state| state.phase_rad),
            polarisations_rad: states.map(|state| state.polarisation_rad),
        });
        let unseen = self.unseen;
        let emitter = self.under(conditions)?;
        if unseen {
            let halves = emitter.silence(epoch).halves;
            return Ok(halves.map(|half| Light { counts: vec![encoded(&half)], ..Light::default() }));
        }
        let slices = emitter.slices();
        if slices > SLICES_MAX {
            bail!(
                "an epoch has more sifted bits than {SLICES_MAX} messages hold: `run.epoch` is too long for this light"
            );
        }
        let mut lights = [Light::default(), Light::default()];
        for number in 0..slices {
            let halves = emitter.slice(epoch, number, slices).halves;
            for (light, half) in lights.iter_mut().zip(halves) {
                light.count = light.count.saturating_add(u32::try_from(half.clicks).unwrap_or(u32::MAX));
                light.counts.push(encoded(&half));
            }
        }
        Ok(lights)
    }

    /// The emitter, by the law of these conditions.
    fn under(&mut self, conditions: Conditions) -> Result<&Emitter> {
        let drawn = match self.drawn.take() {
            Some(drawn) if drawn.0 == conditions => drawn,
            other => {
                let law = self.counts.law(&conditions).context("the law of the link's counts")?;
                let emitter = match other {
                    Some((_, mut emitter)) => {
                        emitter.set_law(law);
                        emitter
                    }
                    None => Emitter::new(law, self.epoch_ps, &self.subseed),
                };
                (conditions, emitter)
            }
        };
        Ok(&self.drawn.insert(drawn).1)
    }
}

/// Wiped when nobody has it any more; copies in buffers of the transport are not.
fn encoded(half: &Half) -> Bytes {
    Bytes::from_owner(Zeroizing::new(half.encode()))
}

#[cfg(test)]
#[path = "counted_tests.rs"]
mod tests;
