//! Photons that are on their way, perhaps over the border of an epoch.

use crate::photons::{Arrival, arrival, time_ps};

/// Photons in order of time, counted from the start of the epoch that is due.
#[derive(Default)]
pub(crate) struct UnderWay {
    photons: Vec<Arrival>,
}

impl UnderWay {
    /// Takes a photon. They come nearly in order of time.
    pub(crate) fn add(&mut self, photon: Arrival) {
        let mut place = self.photons.len();
        while place > 0 && self.photons[place - 1] > photon {
            place -= 1;
        }
        self.photons.insert(place, photon);
    }

    /// The photons that arrive before `end_ps`.
    pub(crate) fn due(&self, end_ps: i64) -> &[Arrival] {
        &self.photons[..self.due_len(end_ps)]
    }

    fn due_len(&self, end_ps: i64) -> usize {
        self.photons.partition_point(|&photon| time_ps(photon) < end_ps)
    }

    /// Leaves the epoch behind, which is `epoch_ps` long; what arrives after `end_ps` is counted from the next one's
    /// start.
    pub(crate) fn leave(&mut self, end_ps: i64, epoch_ps: i64) {
        self.photons.drain(..self.due_len(end_ps));
        let epoch = arrival(epoch_ps, 0);
        self.photons.iter_mut().for_each(|photon| *photon -= epoch);
    }

    pub(crate) fn forget(&mut self) {
        self.photons.clear();
    }
}
