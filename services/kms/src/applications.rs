//! The applications of the network, which may come and go while the key store runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use topology::plan::KmsConfig;

use crate::etsi014::{Access, AccessList};
use crate::supply::{SaeId, SaeIdError};

/// Whom this key store serves, and at which site every application of the network is. Clones share it.
#[derive(Clone, Default)]
pub struct Applications {
    served: AccessList,
    sites: Arc<RwLock<Directory>>,
}

/// Sites by application.
type Directory = Arc<BTreeMap<String, Arc<str>>>;

impl Applications {
    pub fn of(config: &KmsConfig) -> Result<Self, SaeIdError> {
        let applications = Self::default();
        applications.replace(&config.saes, &config.directory)?;
        Ok(applications)
    }

    /// Takes effect with the next request, also of connections that exist; true if there were others before.
    pub fn replace(&self, saes: &[String], directory: &BTreeMap<String, String>) -> Result<bool, SaeIdError> {
        let access = Access::new(saes.iter().map(SaeId::new).collect::<Result<Vec<_>, _>>()?);
        for sae in directory.keys() {
            SaeId::new(sae)?;
        }
        let sites: BTreeMap<String, Arc<str>> =
            directory.iter().map(|(sae, site)| (sae.clone(), Arc::from(site.as_str()))).collect();
        let mut known = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        if self.served.current().saes == access.saes && **known == sites {
            return Ok(false);
        }
        *known = Arc::new(sites);
        self.served.replace(access);
        Ok(true)
    }

    pub fn served(&self) -> AccessList {
        self.served.clone()
    }

    /// The site of an application, wherever in the network that is.
    pub fn site_of(&self, sae: &SaeId) -> Option<Arc<str>> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner).get(sae.as_str()).cloned()
    }
}
