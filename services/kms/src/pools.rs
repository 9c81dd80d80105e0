//! The pools of a site, one for each site that it shares key with. One whose key comes over relays may come or go while
//! the key store runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::pair::Pool;

/// Pools by peer site. Clones share them.
#[derive(Clone, Default)]
pub struct Pools(Arc<RwLock<BTreeMap<String, Arc<Pool>>>>);

impl Pools {
    pub fn get(&self, site: &str) -> Option<Arc<Pool>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(site).cloned()
    }

    /// Those that there are now, in the order of their sites.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert(&self, pool: Arc<Pool>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(pool.peer.clone(), pool);
    }

    /// What is stored stays.
    pub(crate) fn remove(&self, site: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(site);
    }
}

impl FromIterator<Arc<Pool>> for Pools {
    fn from_iter<I: IntoIterator<Item = Arc<Pool>>>(pools: I) -> Self {
        let all = Self::default();
        pools.into_iter().for_each(|pool| all.insert(pool));
        all
    }
}
