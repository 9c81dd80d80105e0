//! The applications of the network, which may come and go while the key store runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use topology::plan::KmsConfig;

use etsi014::supply::{SaeId, SaeIdError};
use etsi014::{Access, AccessList};

/// Whom this key store serves, and at which site every application of the network is. Clones share it.
#[derive(Clone, Default)]
pub struct Applications {
    served: AccessList,
    sites: Arc<RwLock<Directory>>,
}

/// Sites by application.
type Directory = Arc<BTreeMap<String, Arc<str>>>;

/// Applications whose names are good.
pub struct Listed {
    access: Access,
    sites: BTreeMap<String, Arc<str>>,
}

impl Listed {
    pub fn new<'a>(
        saes: &[String],
        directory: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, SaeIdError> {
        let access = Access::new(saes.iter().map(SaeId::new).collect::<Result<Vec<_>, _>>()?);
        let site = |(sae, site): (&String, &String)| {
            SaeId::new(sae)?;
            Ok((sae.clone(), Arc::from(site.as_str())))
        };
        Ok(Self { access, sites: directory.into_iter().map(site).collect::<Result<_, _>>()? })
    }
}

impl Applications {
    pub fn of(config: &KmsConfig) -> Result<Self, SaeIdError> {
        let applications = Self::default();
        applications.replace(Listed::new(&config.saes, &config.directory)?);
        Ok(applications)
    }

    /// Takes effect with the next request, also of connections that exist; true if there were others before.
    pub fn replace(&self, Listed { access, sites }: Listed) -> bool {
        let mut known = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        if self.served.current().saes == access.saes && **known == sites {
            return false;
        }
        *known = Arc::new(sites);
        self.served.replace(access);
        true
    }

    pub fn served(&self) -> AccessList {
        self.served.clone()
    }

    /// The site of an application, wherever in the network that is.
    pub fn site_of(&self, sae: &SaeId) -> Option<Arc<str>> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner).get(sae.as_str()).cloned()
    }
}
