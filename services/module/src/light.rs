//! Where a session's light comes from, and where its set-points go.
//!
//! An instrument stands at an output of a source: it says epoch by epoch what the light meets, and makes frames of what
//! comes, in a task that runs ahead of the module by a few epochs.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use distill::pipeline::{FrameInput, Setpoints};
use futures::future::BoxFuture;
use proto::source::v1::{AnalyserState, AnalyserUpdate, AttachOutput, PhotonEpoch, analyser_update::Update};
use shell::attachment;
use shell::dial::Dial;
use shell::duplex::Duplex;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::link::PATIENCE;

/// Epochs that may wait between instrument and module.
pub const EPOCHS_AHEAD: usize = 2;

/// Of what a source says of an outage.
const OUTAGE_CHARS_MAX: usize = 1000;

/// What one epoch of light gave: the frames that it completed.
pub struct EpochLight {
    pub epoch: u64,
    pub frames: Vec<FrameInput>,
    /// Why the link had no light, if it had none.
    pub outage: String,
    /// There is no light after this.
    pub end: bool,
}

impl EpochLight {
    /// The end of the light.
    pub fn end(epoch: u64) -> Self {
        Self { epoch, frames: Vec::new(), outage: String::new(), end: true }
    }
}

/// A session's light, epoch after epoch, until its end or until an error.
pub type Epochs = mpsc::Receiver<Result<EpochLight>>;

/// How a session begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    pub session: u64,
    /// Never used before, by any session of this link end.
    pub first_epoch: u64,
    /// What holds before the first measurement can act.
    pub setpoints: Setpoints,
    /// Epochs from a measurement to its effect.
    pub latency_epochs: u64,
}

/// The light of a session that has begun.
pub struct Begun {
    /// The one that the session asked for, or a later one where the network went on without this link.
    pub first_epoch: u64,
    pub epochs: Epochs,
}

/// What there is to say of a recording while it runs: the name of an event, and its words.
pub type Remark = (&'static str, String);

/// An end's instrument, or what takes its place, as the module knows it.
pub trait Light: Send {
    /// Begins a session. `beginning.setpoints` hold for the epochs within the latency.
    fn begin(&mut self, beginning: Beginning) -> BoxFuture<'_, Result<Begun>>;

    /// Where the module sets the instrument in `epoch`: once for each epoch, in their order. `dark` asks for no light
    /// in it.
    fn set(&mut self, epoch: u64, setpoints: Setpoints, dark: bool) -> BoxFuture<'_, ()>;

    /// The module is about to take this frame.
    fn taken(&mut self, _frame: &FrameInput) -> Option<Remark> {
        None
    }

    /// The session has ended: what is secret of it is wiped.
    fn end(&mut self) {}

    /// There are no more sessions.
    fn finish(&mut self) -> Option<Remark> {
        None
    }
}

/// A session's key for the source, wiped when nobody has it any more. It leaves this process sealed ([`attach`]).
pub fn secret(key: Zeroizing<[u8; 32]>) -> Bytes {
    Bytes::from_owner(key)
}

/// The way to a source.
pub type SourceLink = std::sync::Arc<dyn Dial<AnalyserUpdate, PhotonEpoch>>;

/// Makes frames of a session's light.
pub trait Frames: Send + 'static {
    /// The frames that the light of this epoch completes.
    fn take(&mut self, light: PhotonEpoch) -> Result<Vec<FrameInput>>;

    /// What is left of the last frame, once the light is over.
    fn finish(&mut self) -> Option<FrameInput>;
}

/// An instrument's stream of states to the source.
pub struct States(mpsc::Sender<AnalyserUpdate>);

impl States {
    /// Says what the light meets in the state's epoch; an error where the source has gone.
    pub async fn tell(&self, state: AnalyserState) -> Result<()> {
        let update = AnalyserUpdate { update: Some(Update::State(state)) };
        self.0.send(update).await.ok().context("send analyser states: the source has gone")
    }
}

/// A source that has met both ends of its link.
pub struct Met {
    /// Of the session.
    pub first_epoch: u64,
    stream: Duplex<AnalyserUpdate, PhotonEpoch>,
}

/// Attaches to the source and waits until it says with which epoch the session begins.
pub async fn attach(source: &SourceLink, hello: AttachOutput) -> Result<Met> {
    let mut source = source.dial().await.context("reach the source")?;
    let asked = hello.first_epoch;
    let greeting = tokio::time::timeout(PATIENCE, source.receive()).await.context("wait for the source")?;
    let PhotonEpoch { seal_to, .. } = greeting.context("attach to the source: it has gone")?;
    let hello = attachment::seal(hello, &seal_to).context("seal the key of the choices for the source")?;
    let hello = AnalyserUpdate { update: Some(Update::Attach(hello)) };
    source.tx.send(hello).await.ok().context("attach to the source: it has gone")?;
    let begins = tokio::time::timeout(PATIENCE, source.receive()).await.context("wait for light")?;
    let begins = begins.context("wait for light: the source has gone")?;
    if !begins.begin || begins.epoch < asked {
        bail!("expected the begin of the session from epoch {asked} on, got epoch {}", begins.epoch);
    }
    Ok(Met { first_epoch: begins.epoch, stream: source })
}

impl Met {
    /// Starts the task that makes frames of what the source sends.
    pub fn start(self, frames: impl Frames) -> (Epochs, States) {
        let (Duplex { tx, rx }, first_epoch) = (self.stream, self.first_epoch);
        let (epochs_tx, epochs) = mpsc::channel(EPOCHS_AHEAD);
        tokio::spawn(async move {
            if let Err(error) = follow(frames, first_epoch, rx, &epochs_tx).await {
                // A session that has ended for another reason does not ask any more.
                let _ = epochs_tx.send(Err(error)).await;
            }
        });
        (epochs, States(tx))
    }
}

/// Runs until the source says that the run has ended, or goes.
async fn follow(
    mut frames: impl Frames,
    first_epoch: u64,
    mut photons: mpsc::Receiver<PhotonEpoch>,
    epochs: &mpsc::Sender<Result<EpochLight>>,
) -> Result<()> {
    for epoch in first_epoch.. {
        let light = tokio::select! {
            light = photons.recv() => light.context("receive photons: the source has gone")?,
            // The session has ended for another reason: what it keeps goes with it.
            () = epochs.closed() => return Ok(()),
        };
        let end = light.end;
        if !end && light.epoch != epoch {
            bail!("expected the photons of epoch {epoch}, got those of {}", light.epoch);
        }
        let outage = light.outage.chars().filter(|c| !c.is_control()).take(OUTAGE_CHARS_MAX).collect();
        let frames = if end { frames.finish().into_iter().collect() } else { frames.take(light)? };
        let done = EpochLight { epoch, frames, outage, end };
        epochs.send(Ok(done)).await.ok().context("hand over frames: the module has gone")?;
        if end {
            break;
        }
    }
    Ok(())
}
