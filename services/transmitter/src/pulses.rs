//! What a transmitter gives its module: the pulses that were sent, and what they are.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use distill::pipeline::{FrameInput, Setpoints};
use distill::sifting::{Choices, Light as Sent};
use futures::future::BoxFuture;
use module::Counting;
use module::light::{self, Beginning, Begun, EPOCHS_AHEAD, Frames, Light, Remark, SourceLink, States};
use module::recording::Sessions;
use photonics::analyser::Encoder;
use photonics::nature::pulses::{ChoiceKey, PulseClock};
use photonics::random::Subseed;
use proto::source::v1::{AnalyserState, AttachOutput, PhotonEpoch};
use tokio::sync::mpsc;
use topology::plan::TransmitterConfig;
use zeroize::Zeroizing;

use crate::choices::SessionChoices;
use crate::playback::Playback;

/// Where pulses come from.
#[derive(Clone)]
pub enum Origin {
    Source(SourceLink),
    /// A recorded session in place of the source.
    Recording(Arc<Playback>),
}

/// See the module.
pub struct Pulses {
    config: TransmitterConfig,
    /// What the drift of the encoder follows from and, in a run with a seed, the keys of the sessions.
    subseed: Subseed,
    origin: Origin,
    recorder: Option<Sessions>,
    encoder: Option<Told>,
}

/// The encoder while a session runs, and how the source is told of it.
struct Told {
    encoder: Encoder,
    states: States,
}

impl Pulses {
    /// With a recorder, which keeps the keys of all choices.
    pub fn new(config: &TransmitterConfig, origin: Origin, recorder: Option<Sessions>) -> Result<Self> {
        let (epoch_ps, frame_ps) = (config.module.epoch_ps, config.module.protocol.post_processing.framing.frame_ps);
        ensure!(
            frame_ps == epoch_ps,
            "a frame of {frame_ps} ps is no epoch of {epoch_ps} ps: a transmitter sends epoch by epoch"
        );
        let subseed = module::subseed(config.module.subseed.as_ref())?;
        Ok(Self { config: config.clone(), subseed, origin, recorder, encoder: None })
    }

    async fn attach(&mut self, source: &SourceLink, beginning: Beginning) -> Result<Begun> {
        let Beginning { session, first_epoch: asked, setpoints, latency_epochs } = beginning;
        let TransmitterConfig { module, transmitter } = &self.config;
        let seeded = module.subseed.as_ref().map(|_| &self.subseed);
        let key = session_key(seeded, asked)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(session, key.clone());
        }
        let choices = (!module.protocol.is_counted())
            .then(|| Arc::new(SessionChoices::new(transmitter, ChoiceKey::new(&key))) as Arc<dyn Choices>);
        let (output, choice_key) = (module.output, light::secret(key));
        let hello = AttachOutput { output, session, first_epoch: asked, choice_key, ..AttachOutput::default() };
        let met = light::attach(source, hello).await?;
        let first_epoch = met.first_epoch;
        let (epochs, states) = match choices {
            Some(choices) => {
                let clock = PulseClock::new(transmitter.repetition_rate_hz, module.epoch_ps);
                met.start(Sending { choices, clock, first_epoch })
            }
            None => met.start(Counting::new(None)),
        };
        let encoder = Encoder::new(transmitter, module.epoch_ps, &self.subseed.derive("encoder"));
        let mut told = Told { encoder, states };
        for epoch in first_epoch..first_epoch + latency_epochs {
            told.tell(epoch, setpoints, false).await?;
        }
        self.encoder = Some(told);
        Ok(Begun { first_epoch, epochs })
    }
}

/// The key of a session's choices: the system's randomness, so that nothing that is kept leads back to it. A run with a
/// seed derives it; the first epoch of a session is never used twice, also not after a kill.
fn session_key(seeded: Option<&Subseed>, first_epoch: u64) -> Result<Zeroizing<[u8; 32]>> {
    Ok(Zeroizing::new(match seeded {
        Some(subseed) => *subseed.derive(&format!("choices from epoch {first_epoch}")).bytes(),
        None => shell::entropy().context("draw the key of a session's choices")?,
    }))
}

impl Light for Pulses {
    fn begin(&mut self, beginning: Beginning) -> BoxFuture<'_, Result<Begun>> {
        match &self.origin {
            Origin::Source(source) => {
                let source = source.clone();
                Box::pin(async move { self.attach(&source, beginning).await })
            }
            Origin::Recording(playback) => {
                let (playback, config, (tx, epochs)) =
                    (playback.clone(), self.config.clone(), mpsc::channel(EPOCHS_AHEAD));
                tokio::spawn(async move {
                    // A session that has ended for another reason does not take any more.
                    let _ = playback.play(&config, beginning.first_epoch, tx).await;
                });
                Box::pin(async move { Ok(Begun { first_epoch: beginning.first_epoch, epochs }) })
            }
        }
    }

    fn set(&mut self, epoch: u64, setpoints: Setpoints, dark: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(told) = &mut self.encoder {
                // A source that has ended the run does not read any more states.
                let _ = told.tell(epoch, setpoints, dark).await;
            }
        })
    }

    fn taken(&mut self, frame: &FrameInput) -> Option<Remark> {
        self.recorder.as_mut().and_then(|recorder| recorder.frame(frame.number))
    }

    fn end(&mut self) {
        self.encoder = None;
        if let Some(recorder) = &mut self.recorder {
            recorder.end();
        }
    }

    fn finish(&mut self) -> Option<Remark> {
        self.recorder.take().and_then(Sessions::finish)
    }
}

impl Told {
    async fn tell(&mut self, epoch: u64, setpoints: Setpoints, dark: bool) -> Result<()> {
        let phase_rad = self.encoder.state(epoch, setpoints.phase_rad).phase_rad;
        let pump = setpoints.pump;
        self.states.tell(AnalyserState { epoch, phase_rad, pump, dark, ..AnalyserState::default() }).await
    }
}

/// A session's pulses. The choices are wiped when the session's last frame and its module have gone.
struct Sending {
    choices: Arc<dyn Choices>,
    clock: PulseClock,
    first_epoch: u64,
}

impl Frames for Sending {
    fn take(&mut self, light: PhotonEpoch) -> Result<Vec<FrameInput>> {
        ensure!(light.photons.is_empty(), "the source sent photons to its transmitter");
        ensure!(light.counts.is_empty(), "the source sent counts where pulses are due");
        let PhotonEpoch { epoch, traceparent, .. } = light;
        let sent = self.clock.epoch(epoch.saturating_add(1)).first - self.clock.epoch(self.first_epoch).first;
        let light = Sent::Pulses { choices: self.choices.clone(), sent };
        Ok(vec![FrameInput { number: epoch, light, traceparent }])
    }

    fn finish(&mut self) -> Option<FrameInput> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sessions_have_a_key_in_common_and_none_is_the_modules_own_randomness() {
        let subseed = Subseed::new([3; 32]);
        let key = |seeded, first_epoch| *session_key(seeded, first_epoch).expect("a key");
        let seeded = (0..1000).map(|first_epoch| key(Some(&subseed), first_epoch));
        let drawn = (0..1000).map(|_| key(None, 7));
        let keys: std::collections::BTreeSet<[u8; 32]> = seeded.chain(drawn).collect();
        assert_eq!(keys.len(), 2000);
        assert_eq!(key(Some(&subseed), 7), key(Some(&subseed), 7));
        assert_ne!(key(Some(&subseed), 7), *subseed.derive("session from epoch 7").bytes());
    }
}
