//! The loss of either arm, which may change while light flows.

use std::sync::{Arc, Mutex, PoisonError};

use topology::plan::SourceConfig;

/// Loss by output in dB. Clones share it.
#[derive(Clone)]
pub struct Losses(Arc<Mutex<[f64; 2]>>);

impl Losses {
    pub fn of(config: &SourceConfig) -> Self {
        Self(Arc::new(Mutex::new(config.losses_db())))
    }

    pub fn now_db(&self) -> [f64; 2] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes effect with the next epoch; true if it was another loss before.
    pub fn set(&self, losses_db: [f64; 2]) -> bool {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), losses_db) != losses_db
    }
}
