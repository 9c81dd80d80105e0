//! What a detector node gives its module: the clicks of its instrument, or those of a recording, or sifted bits where
//! light is drawn as counts.

use std::sync::Arc;

use anyhow::Result;
use distill::pipeline::{FrameInput, Setpoints};
use futures::future::BoxFuture;
use module::Counting;
use module::light::{self, Beginning, Begun, EPOCHS_AHEAD, Light, Remark, SourceLink, States};
use photonics::config::BasisChoice;
use photonics::nature::pulses::ChoiceKey;
use photonics::random::Subseed;
use photonics::receiver::{Controls, Instrument};
use proto::source::v1::{AnalyserState, AttachOutput};
use shell::fault::Desk;
use tokio::sync::mpsc;
use topology::plan::{DetectorConfig, EntangledReceiver, PreparedReceiver, Receiver};
use zeroize::Zeroizing;

use crate::instrument::Detecting;
use crate::playback::Playback;
use crate::record::Recorder;

/// Where clicks come from.
#[derive(Clone)]
pub enum Origin {
    Source(SourceLink),
    /// A recording of raw time tags in place of source and instrument.
    Recording(Arc<Playback>),
}

/// See the module.
pub struct Clicks {
    config: DetectorConfig,
    /// Nature's randomness in the instrument.
    subseed: Subseed,
    origin: Origin,
    recorder: Option<Recorder>,
    faults: Option<Desk>,
    /// While a session runs at a source.
    analyser: Option<Analyser>,
}

/// The side of the instrument that the light meets, and how the source is told of it.
struct Analyser {
    instrument: Instrument,
    states: States,
}

impl Clicks {
    pub fn new(
        config: &DetectorConfig,
        origin: Origin,
        recorder: Option<Recorder>,
        faults: Option<Desk>,
    ) -> Result<Self> {
        let subseed = module::subseed(config.instrument_subseed.as_ref())?;
        Ok(Self { config: config.clone(), subseed, origin, recorder, faults, analyser: None })
    }

    fn instrument(&self) -> Instrument {
        let module = &self.config.module;
        let (epoch_ps, frame_ps) = (module.epoch_ps, module.protocol.post_processing.framing.frame_ps);
        let instrument = match &self.config.receiver {
            Receiver::Entangled(EntangledReceiver { detector, clock, analyser, .. }) => {
                Instrument::new(detector, clock, analyser, epoch_ps, frame_ps, &self.subseed)
            }
            Receiver::Prepared(PreparedReceiver { detectors, clock, analyser, repetition_rate_hz, .. }) => {
                let rate_hz = *repetition_rate_hz;
                Instrument::pulsed(detectors, clock, analyser, rate_hz, epoch_ps, frame_ps, &self.subseed)
            }
        };
        instrument.with_outages(&self.config.outages)
    }

    /// The key of the bases that this end measures in during a session, where it chooses them pulse by pulse. Nature's
    /// randomness, as a beam splitter's would be.
    fn basis_key(&self, first_epoch: u64) -> Option<Zeroizing<[u8; 32]>> {
        match &self.config.receiver {
            Receiver::Prepared(receiver) if receiver.analyser.basis_choice == BasisChoice::Active => {
                // The first epoch of a session is never used twice, also not after a kill.
                Some(Zeroizing::new(*self.subseed.derive(&format!("bases from epoch {first_epoch}")).bytes()))
            }
            _ => None,
        }
    }

    async fn attach(&mut self, source: &SourceLink, beginning: Beginning) -> Result<Begun> {
        let Beginning { session, first_epoch: asked, setpoints, latency_epochs } = beginning;
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(session);
        }
        let (output, first_epoch) = (self.config.module.output, asked);
        let mut hello = AttachOutput { output, session, first_epoch, ..Default::default() };
        let counted = self.config.module.protocol.is_counted();
        let key = if counted { None } else { self.basis_key(asked) };
        hello.choice_key = key.clone().map(light::secret).unwrap_or_default();
        let met = light::attach(source, hello).await?;
        let first_epoch = met.first_epoch;
        let (epochs, states) = if counted {
            met.start(Counting::new(self.faults.clone()))
        } else {
            let mut instrument = self.instrument();
            instrument.choose_bases(first_epoch, key.as_deref().map(ChoiceKey::new));
            met.start(Detecting::start(instrument, first_epoch, self.faults.clone()))
        };
        let mut analyser = Analyser { instrument: self.instrument(), states };
        for epoch in first_epoch..first_epoch + latency_epochs {
            analyser.tell(epoch, setpoints, false).await?;
        }
        self.analyser = Some(analyser);
        Ok(Begun { first_epoch, epochs })
    }
}

impl Light for Clicks {
    fn begin(&mut self, beginning: Beginning) -> BoxFuture<'_, Result<Begun>> {
        match &self.origin {
            Origin::Source(source) => {
                let source = source.clone();
                Box::pin(async move { self.attach(&source, beginning).await })
            }
            Origin::Recording(playback) => {
                let (playback, (tx, epochs)) = (playback.clone(), mpsc::channel(EPOCHS_AHEAD));
                tokio::spawn(async move {
                    // A session that has ended for another reason does not take any more.
                    let _ = playback.play(beginning.first_epoch, tx).await;
                });
                Box::pin(async move { Ok(Begun { first_epoch: beginning.first_epoch, epochs }) })
            }
        }
    }

    fn set(&mut self, epoch: u64, setpoints: Setpoints, dark: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Nobody reads set-points of a recording.
            if let Some(analyser) = &mut self.analyser {
                // A source that has ended the run does not read any more states.
                let _ = analyser.tell(epoch, setpoints, dark).await;
            }
        })
    }

    fn taken(&mut self, frame: &FrameInput) -> Option<Remark> {
        match (&mut self.recorder, &frame.light) {
            (Some(recorder), distill::sifting::Light::Tags(tags)) => recorder.frame(frame.number, tags),
            _ => None,
        }
    }

    fn end(&mut self) {
        self.analyser = None;
        if let Some(recorder) = &mut self.recorder {
            recorder.end();
        }
    }

    fn finish(&mut self) -> Option<Remark> {
        self.recorder.take().and_then(Recorder::finish)
    }
}

impl Analyser {
    async fn tell(&mut self, epoch: u64, setpoints: Setpoints, dark: bool) -> Result<()> {
        let controls = Controls { phase_rad: setpoints.phase_rad, polarisation_rad: setpoints.polarisation_rad };
        let state = self.instrument.analyser_state(epoch, &controls);
        let state = AnalyserState {
            epoch,
            unchanged: false,
            phase_rad: state.phase_rad,
            polarisation_first_rad: state.polarisation_rad[0],
            polarisation_second_rad: state.polarisation_rad[1],
            pump: setpoints.pump,
            dark,
        };
        self.states.tell(state).await
    }
}
