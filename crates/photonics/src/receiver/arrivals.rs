//! Photons in the order in which the detectors feel them.

use crate::config::PORTS;
use crate::photons::{Arrival, arrival, time_ps};
use crate::random::{FWHM_PER_SIGMA, Gaussian, Stream, Subseed};

/// Words of photons that are worked on together: few enough to stay in the nearest cache.
pub(super) const CHUNK: usize = 4096;

/// Unpacks photons into events, each shifted by its jitter and its detector's delay.
pub(super) struct Arrivals {
    jitter: Gaussian,
    jitter_words: Stream,
    /// Delay of each detector's electronics.
    skew_ps: [i64; PORTS],
    random: Box<[u32; CHUNK]>,
    /// Events in order of time, with room for one chunk more.
    events: Vec<Arrival>,
    len: usize,
    at_ps: i64,
}

impl Arrivals {
    pub(super) fn new(jitter_fwhm_ps: f64, skew_ps: &[f64; PORTS], subseed: &Subseed) -> Self {
        Self {
            jitter: Gaussian::new(jitter_fwhm_ps / FWHM_PER_SIGMA),
            jitter_words: subseed.stream("jitter"),
            skew_ps: skew_ps.map(|skew_ps| libm::round(skew_ps) as i64),
            random: Box::new([0; CHUNK]),
            events: Vec::new(),
            len: 0,
            at_ps: 0,
        }
    }

    pub(super) fn rest(&mut self) {
        self.len = 0;
        self.at_ps = 0;
    }

    /// How much later an event may come than its photon.
    pub(super) fn latest_ps(&self) -> i64 {
        i64::from(self.jitter.reach()) + self.skew_ps.iter().copied().max().unwrap_or(0)
    }

    /// No photon that is still to come makes an event before this, when photons have come up to `at_ps`.
    pub(super) fn settled_ps(&self, at_ps: i64) -> i64 {
        at_ps - i64::from(self.jitter.reach()) + self.skew_ps.iter().copied().min().unwrap_or(0)
    }

    /// Lets time go on without photons.
    pub(super) fn lapse(&mut self, length_ps: i64) {
        self.at_ps += length_ps;
    }

    /// Up to where photons have come.
    pub(super) fn at_ps(&self) -> i64 {
        self.at_ps
    }

    /// Adds at most a chunk of photons, which start at word `place`, a multiple of a chunk, of the epoch's
    /// random words.
    pub(super) fn add(&mut self, epoch: u64, place: usize, photons: &[[u8; 4]]) {
        let count = photons.len();
        let random = &mut self.random[..count];
        self.jitter_words.fill(epoch, place as u64, random);
        let before = self.len;
        self.len += count;
        if self.events.len() < self.len {
            self.events.resize(self.len, 0);
        }
        let mut last = if before > 0 { self.events[before - 1] } else { Arrival::MIN };
        let mut at_ps = self.at_ps;
        for (i, (&photon, &random)) in photons.iter().zip(random.iter()).enumerate() {
            let word = u32::from_le_bytes(photon);
            let port = word & (PORTS as u32 - 1);
            at_ps += i64::from(word / PORTS as u32);
            let event = arrival(at_ps + i64::from(self.jitter.pick(random)) + self.skew_ps[port as usize], port);
            self.events[before + i] = event;
            // Jitter is so short beside the gaps that this is a branch the processor foresees.
            if event < last {
                place_back(&mut self.events[..=before + i]);
            } else {
                last = event;
            }
        }
        self.at_ps = at_ps;
    }

    /// The events before `settled_ps`.
    pub(super) fn settled(&self, settled_ps: i64) -> &[Arrival] {
        // All but the last few.
        let later = self.events[..self.len].iter().rev().take_while(|&&event| time_ps(event) >= settled_ps);
        &self.events[..self.len - later.count()]
    }

    /// Forgets the first `count` events.
    pub(super) fn forget(&mut self, count: usize) {
        self.events.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// From now on times count from `epoch_ps` later.
    pub(super) fn leave(&mut self, epoch_ps: i64) {
        let shift = arrival(epoch_ps, 0);
        self.events[..self.len].iter_mut().for_each(|event| *event -= shift);
        self.at_ps = 0;
    }
}

/// Moves the last event to its place among those before it, which are in order.
#[cold]
fn place_back(events: &mut [Arrival]) {
    let mut place = events.len() - 1;
    while place > 0 && events[place - 1] > events[place] {
        events.swap(place - 1, place);
        place -= 1;
    }
}
