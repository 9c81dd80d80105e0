//! From a fault of the network to what each service of it has to suffer. Pure.

use proto::fault::v1::fault::What;
use proto::fault::v1::{AttackKind, ClockStep, ClockStop, DiskFull, Fault, FrameAttack, Loss, Partition, Stop};
use runner::roster::{Roster, RosterLink, RosterService};
use topology::quantity;

use crate::cli::fault::{Attack, Stored};

/// A fault as people order it.
#[derive(Clone, Debug)]
pub enum Ordered<'a> {
    Cut { link: &'a str, arm: Option<&'a str> },
    Loss { link: &'a str, arm: Option<&'a str>, loss: quantity::Loss },
    StepClock { link: &'a str, site: &'a str, by: quantity::TimeOffset },
    StopClock { link: &'a str, site: &'a str },
    FillDisk { what: Stored, site: &'a str, link: Option<&'a str> },
    Partition { site: &'a str, other: &'a str },
    Stop { service: &'a str },
    Attack { link: &'a str, site: &'a str, attack: Attack, frames: u32, by: quantity::Duration },
}

/// What to tell whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub service: String,
    pub server: String,
    pub fault: Fault,
}

/// A fault in the terms of services.
#[derive(Clone, Debug, PartialEq)]
pub struct Orders {
    pub description: String,
    pub told: Vec<Told>,
}

/// What is ordered of something that the network does not have.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OrderError {
    #[error("there is no {what} `{name}`; there are: {}", known.join(", "))]
    Unknown { what: &'static str, name: String, known: Vec<String> },
    #[error("the link {link} does not end at `{site}`; it ends at {} and {}", ends[0], ends[1])]
    NotAnEnd { link: String, site: String, ends: [String; 2] },
    #[error("{site} ends several links; say which one with --link: {}", links.join(", "))]
    WhichLink { site: String, links: Vec<String> },
    #[error("`{site}` has no {what}")]
    NotThere { site: String, what: &'static str },
    #[error("`{site}` has the transmitter of {link}, which has no {what}; name `{receiver}`")]
    Transmitter { site: String, link: String, what: &'static str, receiver: String },
    #[error("a site is not cut off from itself")]
    OneSite,
    #[error("{0} and {1} have nothing to say to each other")]
    Strangers(String, String),
}

pub fn orders(roster: &Roster, ordered: &Ordered<'_>) -> Result<Orders, OrderError> {
    let desk = Addresses(roster);
    match *ordered {
        Ordered::Cut { link, arm } => {
            let (link, arms, arm) = desk.arms(link, arm)?;
            let description = match arm {
                Some(site) => format!("the fibre of {} to {site} is cut", link.name),
                None => format!("the fibres of {} are cut", link.name),
            };
            let cut = |outputs| What::Loss(Loss { outputs, loss_db: 0.0, cut: true });
            desk.orders(description, [(link.source.as_str(), cut(arms))])
        }
        Ordered::Loss { link, arm, loss } => {
            let (link, arms, arm) = desk.arms(link, arm)?;
            let loss_db = loss.value();
            let description = match arm {
                Some(site) => format!("{loss_db} dB more between the source of {} and {site}", link.name),
                None => format!("{loss_db} dB more on each arm of {}", link.name),
            };
            let more = |outputs| What::Loss(Loss { outputs, loss_db, cut: false });
            desk.orders(description, [(link.source.as_str(), more(arms))])
        }
        Ordered::StepClock { link, site, by } => {
            let (link, end) = desk.receiver(link, site, "clock of its own")?;
            let description = format!("the clock of {} at {site} is off by {by}", link.name);
            let step = What::ClockStep(ClockStep { by_ps: by.rounded_signed() });
            desk.orders(description, [(link.modules[end].as_str(), step)])
        }
        Ordered::StopClock { link, site } => {
            let (link, end) = desk.receiver(link, site, "clock of its own")?;
            let description = format!("the clock of {} at {site} stands still", link.name);
            desk.orders(description, [(link.modules[end].as_str(), What::ClockStop(ClockStop {}))])
        }
        Ordered::FillDisk { what, site, link } => {
            let (service, holds) = desk.disk(what, site, link)?;
            let description = format!("the disk of {holds} is full");
            desk.orders(description, [(service, What::DiskFull(DiskFull {}))])
        }
        Ordered::Partition { site, other } => {
            let description = format!("{site} and {other} are cut off from each other");
            desk.orders(description, desk.partition(site, other)?)
        }
        Ordered::Stop { service } => {
            let known = || roster.services.iter().map(|service| service.name.clone());
            let service = roster.service(service).ok_or_else(|| unknown("service", service, known()))?;
            desk.orders(format!("{} is stopped", service.name), [(service.name.as_str(), What::Stop(Stop {}))])
        }
        Ordered::Attack { link, site, attack, frames, by } => {
            let (link, end) = desk.end(link, site)?;
            let description = format!("somebody strikes at {frames} frames of {} from {site}", link.name);
            let delay_ms = u32::try_from(by.rounded() / 1_000_000_000).unwrap_or(u32::MAX);
            let attack = What::Attack(FrameAttack { kind: kind(attack).into(), frames, delay_ms });
            desk.orders(description, [(link.channels[end].as_str(), attack)])
        }
    }
}

fn kind(attack: Attack) -> AttackKind {
    match attack {
        Attack::Tamper => AttackKind::Tamper,
        Attack::Inject => AttackKind::Inject,
        Attack::Replay => AttackKind::Replay,
        Attack::Reorder => AttackKind::Reorder,
        Attack::Drop => AttackKind::Drop,
        Attack::Delay => AttackKind::Delay,
    }
}

fn unknown(what: &'static str, name: &str, known: impl Iterator<Item = String>) -> OrderError {
    let mut known: Vec<String> = known.collect();
    known.sort();
    known.dedup();
    OrderError::Unknown { what, name: name.to_owned(), known }
}

/// Finds what is named.
struct Addresses<'r>(&'r Roster);

impl<'r> Addresses<'r> {
    fn orders<'s>(
        &self,
        description: String,
        told: impl IntoIterator<Item = (&'s str, What)>,
    ) -> Result<Orders, OrderError> {
        let told = told.into_iter().map(|(service, what)| {
            let known = || self.0.services.iter().map(|service| service.name.clone());
            let service = self.0.service(service).ok_or_else(|| unknown("service", service, known()))?;
            let fault = Fault { what: Some(what) };
            Ok(Told { service: service.name.clone(), server: service.server.clone(), fault })
        });
        Ok(Orders { description, told: told.collect::<Result<_, _>>()? })
    }

    fn link(&self, name: &str) -> Result<&'r RosterLink, OrderError> {
        let known = || self.0.links.iter().map(|link| link.name.clone());
        self.0.links.iter().find(|link| link.name == name).ok_or_else(|| unknown("link", name, known()))
    }

    /// A link, the outputs of its source that feed the arms meant, and the site of the arm where it is one.
    fn arms<'a>(
        &self,
        link: &str,
        arm: Option<&'a str>,
    ) -> Result<(&'r RosterLink, Vec<u32>, Option<&'a str>), OrderError>
    where
        'r: 'a,
    {
        match arm {
            Some(site) => {
                let (link, end) = self.receiver(link, site, "arm")?;
                Ok((link, vec![end as u32], arm))
            }
            None => {
                let link = self.link(link)?;
                match self.transmits(link, 0) {
                    true => Ok((link, vec![1], Some(&link.sites[1]))),
                    false => Ok((link, vec![0, 1], None)),
                }
            }
        }
    }

    fn transmits(&self, link: &RosterLink, end: usize) -> bool {
        self.0.service(&link.modules[end]).is_some_and(|service| service.kind == "transmitter")
    }

    /// An end that receives. A transmitter stands beside its source, and its clock is the time of the link's light.
    fn receiver(&self, link: &str, site: &str, what: &'static str) -> Result<(&'r RosterLink, usize), OrderError> {
        let (link, end) = self.end(link, site)?;
        if self.transmits(link, end) {
            let (link, receiver) = (link.name.clone(), link.sites[1 - end].clone());
            return Err(OrderError::Transmitter { site: site.to_owned(), link, what, receiver });
        }
        Ok((link, end))
    }

    /// A link and which of its ends a site is.
    fn end(&self, link: &str, site: &str) -> Result<(&'r RosterLink, usize), OrderError> {
        let link = self.link(link)?;
        let not_an_end =
            || OrderError::NotAnEnd { link: link.name.clone(), site: site.to_owned(), ends: link.sites.clone() };
        let end = link.end_at(site).ok_or_else(not_an_end)?;
        Ok((link, end))
    }

    fn site(&self, name: &str) -> Result<(), OrderError> {
        let known = || self.0.services.iter().map(|service| service.site.clone());
        if known().any(|site| site == name) { Ok(()) } else { Err(unknown("site", name, known())) }
    }

    /// Who writes to a disk, and what it is the disk of.
    fn disk(&self, what: Stored, site: &str, link: Option<&str>) -> Result<(&'r str, String), OrderError> {
        self.site(site)?;
        let of_site = |kind, what| {
            let not_there = || OrderError::NotThere { site: site.to_owned(), what };
            let service: &RosterService = self.0.of_site(kind, site).ok_or_else(not_there)?;
            Ok((service.name.as_str(), format!("the {what} at {site}")))
        };
        match what {
            Stored::KeyStore => return of_site("kms", "key store"),
            Stored::Relay => return of_site("relay", "relay"),
            Stored::Blocks | Stored::Reserve => {}
        }
        let link = match link {
            Some(link) => link,
            None => self.only_link(site)?,
        };
        let (link, end) = self.end(link, site)?;
        Ok(match what {
            Stored::Reserve => (&link.channels[end], format!("the authentication reserve of {} at {site}", link.name)),
            _ => (&link.modules[end], format!("the blocks of {} at {site}", link.name)),
        })
    }

    fn only_link(&self, site: &str) -> Result<&'r str, OrderError> {
        let links: Vec<&str> =
            self.0.links.iter().filter(|link| link.end_at(site).is_some()).map(|l| l.name.as_str()).collect();
        match links[..] {
            [link] => Ok(link),
            [] => Err(OrderError::NotThere { site: site.to_owned(), what: "link that ends there" }),
            _ => Err(OrderError::WhichLink {
                site: site.to_owned(),
                links: links.into_iter().map(str::to_owned).collect(),
            }),
        }
    }

    /// Everyone at one of the sites who could speak to the other.
    fn partition(&self, site: &str, other: &str) -> Result<Vec<(&'r str, What)>, OrderError> {
        self.site(site)?;
        self.site(other)?;
        if site == other {
            return Err(OrderError::OneSite);
        }
        let from = |peer: &str| What::Partition(Partition { site: peer.to_owned() });
        let mut told = Vec::new();
        for link in &self.0.links {
            for (own, channel, peer) in link.ends() {
                if [own, peer] == [site, other] || [own, peer] == [other, site] {
                    told.push((channel, from(peer)));
                }
            }
        }
        for kind in ["kms", "relay"] {
            if let (Some(one), Some(two)) = (self.0.of_site(kind, site), self.0.of_site(kind, other)) {
                told.extend([(one.name.as_str(), from(other)), (two.name.as_str(), from(site))]);
            }
        }
        if told.is_empty() {
            return Err(OrderError::Strangers(site.to_owned(), other.to_owned()));
        }
        Ok(told)
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
