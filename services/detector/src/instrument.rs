//! The instrument of a session: photons in, frames of local tags out.

use anyhow::{Context, Result, bail, ensure};
use distill::pipeline::FrameInput;
use module::CLOCK_STANDS_STILL;
use module::light::Frames;
use photonics::receiver::{Frame, Instrument, Shift};
use proto::source::v1::PhotonEpoch;
use shell::fault::Desk;

/// Makes frames of the photons of one session.
pub struct Detecting {
    instrument: Instrument,
    faults: Option<Desk>,
    /// How often the clock had stopped when the session began.
    stops: Option<u64>,
    frames: Vec<Frame>,
}

impl Detecting {
    pub fn start(mut instrument: Instrument, first_epoch: u64, faults: Option<Desk>) -> Self {
        instrument.start(first_epoch);
        let stops = faults.as_ref().map(Desk::clock_stops);
        Self { instrument, faults, stops, frames: Vec::new() }
    }
}

impl Frames for Detecting {
    fn take(&mut self, light: PhotonEpoch) -> Result<Vec<FrameInput>> {
        ensure!(light.counts.is_empty(), "the source sent counts where photons are due");
        if let Some(faults) = &self.faults {
            suffer(&mut self.instrument, faults, light.epoch);
            if Some(faults.clock_stops()) != self.stops {
                bail!(CLOCK_STANDS_STILL);
            }
        }
        self.instrument.detect(light.epoch, &light.photons, &mut self.frames).context("detect photons")?;
        Ok(self.frames.drain(..).map(|frame| input(frame, light.traceparent.clone())).collect())
    }

    fn finish(&mut self) -> Option<FrameInput> {
        self.instrument.finish().map(|frame| input(frame, String::new()))
    }
}

fn input(Frame { number, tags }: Frame, traceparent: String) -> FrameInput {
    FrameInput::tags(number, tags, traceparent)
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
