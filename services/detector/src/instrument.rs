//! The instrument's task: photons in, frames of local tags out, running ahead of the module by a few epochs.

use anyhow::{Context, Result, bail};
use photonics::receiver::{Frame, Instrument, Shift};
use proto::source::v1::PhotonEpoch;
use shell::fault::Desk;
use tokio::sync::mpsc;

/// Epochs that may wait between instrument and module.
pub const EPOCHS_AHEAD: usize = 2;

pub const CLOCK_STANDS_STILL: &str = "the local clock stands still";

/// What one epoch of light gave: the frames that it completed.
pub struct EpochClicks {
    pub epoch: u64,
    pub frames: Vec<Frame>,
    pub traceparent: String,
    /// There is no light after this.
    pub end: bool,
}

/// Runs until the source says that the run has ended, or goes.
pub async fn run(
    mut instrument: Instrument,
    first_epoch: u64,
    mut photons: mpsc::Receiver<PhotonEpoch>,
    clicks: &mpsc::Sender<Result<EpochClicks>>,
    faults: Option<&Desk>,
) -> Result<()> {
    instrument.start(first_epoch);
    let stops = faults.map(Desk::clock_stops);
    for epoch in first_epoch.. {
        let light = photons.recv().await.context("receive photons: the source has gone")?;
        let mut frames = Vec::new();
        if light.end {
            frames.extend(instrument.finish());
            let last = EpochClicks { epoch, frames, traceparent: String::new(), end: true };
            clicks.send(Ok(last)).await.ok().context("hand over clicks: the module has gone")?;
            return Ok(());
        }
        if light.epoch != epoch {
            bail!("expected the photons of epoch {epoch}, got those of {}", light.epoch);
        }
        if let Some(faults) = faults {
            suffer(&mut instrument, faults, epoch);
            if Some(faults.clock_stops()) != stops {
                bail!(CLOCK_STANDS_STILL);
            }
        }
        instrument.detect(epoch, &light.photons, &mut frames).context("detect photons")?;
        let done = EpochClicks { epoch, frames, traceparent: light.traceparent, end: false };
        clicks.send(Ok(done)).await.ok().context("hand over clicks: the module has gone")?;
    }
    Ok(())
}

/// What the local clock suffers.
fn suffer(instrument: &mut Instrument, faults: &Desk, epoch: u64) {
    let shifts = faults.enter_epoch(epoch).clock;
    let shift = |shift: shell::fault::ClockShift| Shift {
        epoch_first: shift.epoch_first,
        epoch_end: shift.epoch_end,
        by_ps: shift.by_ps,
    };
    instrument.shift_clock(&shifts.into_iter().map(shift).collect::<Vec<_>>());
}
