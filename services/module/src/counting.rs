//! An end of a link at the fidelity of counts: its part of each slice of light becomes a frame of sifted bits.

use anyhow::{Context, Result, bail, ensure};
use distill::bits::Bits;
use distill::pipeline::FrameInput;
use distill::sifting::Light;
use distill::sifting::counts::{Frame, Labelled};
use photonics::nature::counts::{self, Half};
use proto::source::v1::PhotonEpoch;
use shell::fault::Desk;
use topology::plan::counts::SLICES_MAX;

use crate::light::Frames;
use crate::session::CLOCK_STANDS_STILL;

/// Makes a frame of each epoch.
pub struct Counting {
    faults: Option<Desk>,
    /// How often the clock had stopped when the session began.
    stops: Option<u64>,
}

impl Counting {
    /// An instrument whose clock may stop by `faults`.
    pub fn new(faults: Option<Desk>) -> Self {
        let stops = faults.as_ref().map(Desk::clock_stops);
        Self { faults, stops }
    }
}

impl Frames for Counting {
    fn take(&mut self, light: PhotonEpoch) -> Result<Vec<FrameInput>> {
        let PhotonEpoch { epoch, photons, counts, traceparent, .. } = light;
        if let Some(faults) = &self.faults {
            faults.enter_epoch(epoch);
            if Some(faults.clock_stops()) != self.stops {
                bail!(CLOCK_STANDS_STILL);
            }
        }
        ensure!(photons.is_empty(), "the source sent photons where counts are due");
        let frame = join(epoch, &counts).with_context(|| format!("read the counts of epoch {epoch}"))?;
        Ok(vec![FrameInput { number: epoch, light: Light::Counts(Box::new(frame)), traceparent }])
    }

    fn finish(&mut self) -> Option<FrameInput> {
        None
    }
}

/// All slices of an epoch as one frame.
fn join(epoch: u64, counts: &[impl AsRef<[u8]>]) -> Result<Frame> {
    let slices = counts.len();
    ensure!((1..=SLICES_MAX as usize).contains(&slices), "{slices} slices, where 1 to {SLICES_MAX} are due");
    let mut frame = Frame::default();
    for (number, bytes) in counts.iter().enumerate() {
        let mut half = Half::decode(bytes.as_ref())?;
        let place = (half.epoch, half.slice as usize, half.slices as usize);
        ensure!(place == (epoch, number, slices), "slice {} of {} of epoch {}", half.slice, half.slices, half.epoch);
        append(&mut frame.key, &mut half.key)?;
        append(&mut frame.check, &mut half.check)?;
        frame.pulses += half.pulses;
        frame.clicks += half.clicks;
        frame.mismatched += half.mismatched;
        // Two clicks of one event: the second one is merged with the first.
        frame.crossed += half.crossed;
        frame.merged += half.doubles + half.crossed;
    }
    Ok(frame)
}

/// Moves the bits of a slice to those before it.
fn append(all: &mut Labelled, slice: &mut counts::Labelled) -> Result<()> {
    let len = slice.len;
    let bits = Bits::from_words(std::mem::take(&mut slice.bits), len);
    let kinds = slice.kinds.drain(..).map(|words| Bits::from_words(words, len));
    if all.bits.is_empty() {
        (all.bits, all.kinds) = (bits, kinds.collect());
        return Ok(());
    }
    ensure!(all.kinds.len() == kinds.len(), "slices that tell different numbers of intensities");
    all.bits.extend(&bits);
    all.kinds.iter_mut().zip(kinds).for_each(|(all, slice)| all.extend(&slice));
    Ok(())
}

#[cfg(test)]
#[path = "counting_tests.rs"]
mod tests;
