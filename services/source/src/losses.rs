//! The loss of each arm, which may change while light flows.

use std::sync::{Arc, Mutex, PoisonError};

use topology::plan::SourceConfig;

/// Loss by arm in dB. Clones share it.
#[derive(Clone)]
pub struct Losses(Arc<Mutex<Vec<f64>>>);

impl Losses {
    pub fn of(config: &SourceConfig) -> Self {
        Self(Arc::new(Mutex::new(config.losses_db())))
    }

    pub fn now_db(&self) -> Vec<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes effect with the next epoch; true if it was another loss before.
    pub fn set(&self, losses_db: Vec<f64>) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *held != losses_db;
        *held = losses_db;
        changed
    }
}
