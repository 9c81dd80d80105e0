//! Whom to tell of faults: every service of a network, and at which address its desk is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shell::{Connector, Credentials, Endpoint};
use topology::plan::{CONTROL_IDENTITY, Plan};

use super::Folders;

/// Services and links by name, as they are needed to tell a fault of the network to those that suffer it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Folder of the addresses.
    pub run_dir: PathBuf,
    /// Folder of the certificates, that of the control identity among them.
    pub pki: PathBuf,
    pub links: Vec<RosterLink>,
    pub services: Vec<RosterService>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterLink {
    pub name: String,
    /// At outputs 0 and 1 of the source.
    pub sites: [String; 2],
    pub source: String,
    /// The services of the two modules.
    pub modules: [String; 2],
    pub channels: [String; 2],
}

impl RosterLink {
    /// Which of its ends a site is.
    pub fn end_at(&self, site: &str) -> Option<usize> {
        self.sites.iter().position(|end| end == site)
    }

    /// The site and the channel of each end, with the site of its peer.
    pub fn ends(&self) -> [(&str, &str, &str); 2] {
        let ([first, second], [one, other]) = (&self.sites, &self.channels);
        [(first, one, second), (second, other, first)]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterService {
    pub name: String,
    /// As [`ServiceConfig::kind`](topology::plan::ServiceConfig::kind) says it.
    pub kind: String,
    pub site: String,
    /// Who answers for it: the service itself, or the process that it is a task of.
    pub server: String,
}

impl Roster {
    /// `server` says who answers for a service.
    pub fn of<'p>(plan: &'p Plan, folders: &Folders, server: impl Fn(&'p str) -> &'p str) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let link = |link: &topology::plan::PlannedLink| RosterLink {
            name: link.name.clone(),
            sites: link.ends.each_ref().map(|end| end.site.clone()),
            source: link.source.service.clone(),
            modules: link.ends.each_ref().map(|end| end.module.clone()),
            channels: link.ends.each_ref().map(|end| end.channel.clone()),
        };
        let service = |service: &'p topology::plan::Service| RosterService {
            name: service.name.clone(),
            kind: service.config.kind().to_owned(),
            site: service.site.clone(),
            server: server(&service.name).to_owned(),
        };
        Self {
            run_dir: absolute(&folders.run),
            pki: absolute(&folders.pki),
            links: plan.links.iter().map(link).collect(),
            services: plan.services.iter().map(service).collect(),
        }
    }

    pub fn service(&self, name: &str) -> Option<&RosterService> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The service of a kind that a whole site has.
    pub fn of_site(&self, kind: &str, site: &str) -> Option<&RosterService> {
        self.services.iter().find(|service| service.kind == kind && service.site == site)
    }

    /// The way to who answers for a service, as whoever controls the network.
    pub fn connector(&self, server: &str) -> anyhow::Result<Connector> {
        let credentials = Credentials::from_folder(&self.pki, CONTROL_IDENTITY)?;
        Ok(Connector::new(&Endpoint::in_run_dir(&self.run_dir, server), server, &credentials))
    }
}
