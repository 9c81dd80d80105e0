//! An anchor in memory: for tests, and for what somebody else makes durable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Anchor, AnchorError, Ceilings, Instance, check, raise};

/// Outlives the stores of a test, not the process.
#[derive(Debug, Default)]
pub struct MemoryAnchor(Mutex<BTreeMap<Instance, Ceilings>>);

impl MemoryAnchor {
    fn stores(&self) -> MutexGuard<'_, BTreeMap<Instance, Ceilings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Anchor for MemoryAnchor {
    fn read(&self, store: Instance) -> Result<Option<Ceilings>, AnchorError> {
        Ok(self.stores().get(&store).cloned())
    }

    fn raise(&self, store: Instance, ceilings: &Ceilings) -> Result<(), AnchorError> {
        check(ceilings)?;
        raise(self.stores().entry(store).or_default(), ceilings);
        Ok(())
    }

    fn settle(&self, store: Instance, counts: &Ceilings) -> Result<(), AnchorError> {
        check(counts)?;
        self.stores().insert(store, counts.clone());
        Ok(())
    }
}
