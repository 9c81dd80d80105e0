//! What a source tells about itself.

use std::sync::{Mutex, PoisonError};

/// What the emission loop updates and `GetStatus` reads.
#[derive(Default)]
pub struct Status(Mutex<Emission>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Emission {
    pub epoch: u64,
    pub pump: f64,
    pub photons_sent: u64,
    pub outputs_attached: u32,
    pub lag_s: f64,
    /// Simulated time of the network, as it was last heard.
    pub network_ps: u64,
    /// No light until the rest of the network has come so far, or until its pacer is back.
    pub waits_for_network: bool,
    /// The network has a pacer, and it is not there.
    pub pacer_away: bool,
}

impl Status {
    pub fn update(&self, change: impl FnOnce(&mut Emission)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn now(&self) -> Emission {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
