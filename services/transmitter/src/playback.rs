//! A recorded session in place of the source: the pulses that were sent then, and what they were.
//!
//! Epoch and recorded epoch belong together from the first session on. A later session goes on where the recording is
//! then, and counts its pulses from there, as its receiver does.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use distill::pipeline::FrameInput;
use distill::sifting::Light as Sent;
use module::EpochLight;
use photonics::nature::pulses::{ChoiceKey, PulseClock};
use photonics::tagfile::sessions::Session;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use topology::plan::TransmitterConfig;

use crate::choices::SessionChoices;

/// See the module.
pub struct Playback {
    session: Session,
    frames: u64,
    /// The epoch at which both ends' recordings begin: that of their first session.
    begins: Arc<OnceLock<u64>>,
    /// Ends it early.
    drain: OnceLock<CancellationToken>,
}

impl Playback {
    /// The first `frames` frames of a session.
    pub fn new(session: Session, frames: u64, begins: Arc<OnceLock<u64>>) -> Self {
        Self { session, frames, begins, drain: OnceLock::new() }
    }

    /// Ends early when `drain` is cancelled. The first call counts.
    pub fn end_with(&self, drain: CancellationToken) {
        self.drain.get_or_init(|| drain);
    }

    /// Gives frames to a session that starts at `first_epoch`, until the end or until nobody takes them any more.
    pub(crate) async fn play(
        &self,
        config: &TransmitterConfig,
        first_epoch: u64,
        epochs: mpsc::Sender<Result<EpochLight>>,
    ) -> Result<()> {
        let begins = *self.begins.get_or_init(|| first_epoch);
        let clock = PulseClock::new(config.transmitter.repetition_rate_hz, config.module.epoch_ps);
        let sent_before = |index: u64| clock.epoch(self.session.first.saturating_add(index)).first;
        let base = sent_before(first_epoch.saturating_sub(begins));
        let choices = SessionChoices::new(&config.transmitter, ChoiceKey::new(&self.session.key));
        let choices = Arc::new(choices.from(base - sent_before(0)));
        for epoch in first_epoch.. {
            let room = epochs.reserve().await.context("hand over pulses: the module has gone")?;
            let index = epoch.saturating_sub(begins);
            let end = index >= self.frames || self.drain.get().is_some_and(CancellationToken::is_cancelled);
            let sent = sent_before(index.saturating_add(1)).saturating_sub(base);
            let light = Sent::Pulses { choices: choices.clone(), sent };
            let frame = FrameInput { number: epoch, light, traceparent: String::new() };
            room.send(Ok(EpochLight {
                epoch,
                frames: if end { Vec::new() } else { vec![frame] },
                outage: String::new(),
                end,
            }));
            if end {
                break;
            }
        }
        Ok(())
    }
}
