//! The first authentication secret of a link: which end has taken it, and what happens when an end loses its volume.
//!
//! Pads of a secret are used once. An end that lost its reserve cannot know which were, so it must never begin the same
//! secret again: the Secret is marked once an end has taken it, the marked end refuses to start without its reserve,
//! and this module then draws a fresh secret, for the end that lost its reserve to start from and for the other end to
//! be refilled with.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use proto::channel::v1::RefillRequest;
use proto::channel::v1::reserve_client::ReserveClient;
use shell::{Connector, Credentials, Endpoint};
use topology::plan::ServiceConfig;

use crate::build::labels;
use crate::layout::{Layout, Placed, Unit};
use crate::material::{Hidden, LinkSecret, Material, MaterialError, fresh_link};
use crate::settings::Settings;

/// Ends of a link.
const ENDS: usize = 2;
/// Time that an endpoint gets to take a secret.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// How one end of a link stands in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndState {
    /// Identity of its volume, where there is one.
    pub volume: Option<String>,
    /// Its channel answers, and therefore has a reserve.
    pub up: bool,
}

/// Ends by link and site.
pub type Ends = BTreeMap<(String, String), EndState>;

/// The ends of all links.
pub fn ends(layout: &Layout, pods: &[Pod], claims: &[PersistentVolumeClaim]) -> Ends {
    let state = |(unit, placed): (&Unit, &Placed)| {
        let ServiceConfig::Channel(config) = &placed.service.config else { return None };
        let of_unit = |labels: &BTreeMap<String, String>| labels.get(labels::UNIT) == Some(&unit.name);
        let claim = claims.iter().find(|claim| of_unit(claim.labels()) && claim.metadata.deletion_timestamp.is_none());
        let pod = pods.iter().find(|pod| of_unit(pod.labels()) && pod.metadata.deletion_timestamp.is_none());
        let containers = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        let container = unit.containers.iter().find(|one| one.services.iter().any(|s| s.service.name == config.name));
        let up = containers
            .into_iter()
            .flatten()
            .any(|status| container.is_some_and(|container| container.name == status.name) && status.ready);
        let volume = claim.and_then(|claim| claim.metadata.uid.clone());
        Some(((config.link.clone(), config.site.clone()), EndState { volume, up }))
    };
    layout.services().filter_map(state).collect()
}

/// Brings marks up to date with what is seen. Gives the links for which a fresh secret was drawn.
pub fn advance(
    links: &mut BTreeMap<String, LinkSecret>,
    reserve_bits: &BTreeMap<String, u64>,
    ends: &Ends,
) -> Result<Vec<String>, MaterialError> {
    let mut renewed = Vec::new();
    for (link, secret) in links {
        let here: Vec<(&str, &EndState)> =
            ends.iter().filter(|((of, _), _)| of == link).map(|((_, site), state)| (site.as_str(), state)).collect();
        let lost = here.iter().any(|(site, state)| {
            let known = secret.used.get(*site).or_else(|| secret.refill.get(*site));
            known.is_some() && state.volume.is_some() && known != state.volume.as_ref()
        });
        if lost {
            let survivors = here.iter().filter_map(|(site, state)| {
                let known = secret.used.get(*site).or_else(|| secret.refill.get(*site))?;
                (Some(known) == state.volume.as_ref()).then(|| ((*site).to_owned(), known.clone()))
            });
            let refill = survivors.collect();
            let bits = reserve_bits.get(link).copied().unwrap_or_default();
            *secret = LinkSecret { refill, ..self::renewed(bits)? };
            renewed.push(link.clone());
            continue;
        }
        for (site, state) in &here {
            if let (true, Some(volume), false) = (state.up, &state.volume, secret.refill.contains_key(*site)) {
                secret.used.entry((*site).to_owned()).or_insert_with(|| volume.clone());
            }
        }
        let taken = here.iter().all(|(site, _)| secret.used.contains_key(*site));
        if here.len() == ENDS && taken && secret.refill.is_empty() && !secret.secret.0.is_empty() {
            tracing::info!(link, "both ends have taken the authentication secret: it is erased");
            secret.secret = Hidden::default();
        }
    }
    Ok(renewed)
}

/// A secret that nobody has used, with a number that no earlier one of the link had, whatever its ends counted by
/// themselves.
pub fn renewed(reserve_bits: u64) -> Result<LinkSecret, MaterialError> {
    Ok(LinkSecret { generation: fresh_generation()?, ..fresh_link(reserve_bits)? })
}

fn fresh_generation() -> Result<u64, MaterialError> {
    let entropy = shell::entropy().map_err(MaterialError::Randomness)?;
    let drawn = entropy.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    // Not 0, which is a first secret's, and with room for those that ends count on from it.
    Ok((drawn >> 2) | 1 << 61)
}

/// Gives fresh secrets to the ends that kept their reserve. What does not succeed is tried again in the next round.
pub async fn refill(material: &mut Material, layout: &Layout, settings: &Settings) {
    let control = &material.control;
    let credentials = Credentials::from_pem(material.authority.certificate_pem(), &control.certificate, &control.key);
    let Ok(credentials) = credentials else { return };
    for (link, secret) in &mut material.links {
        for (site, volume) in secret.refill.clone() {
            let end = layout.services().find(|(_, placed)| {
                matches!(&placed.service.config, ServiceConfig::Channel(c) if c.link == *link && c.site == site)
            });
            let Some((unit, placed)) = end else { continue };
            let address = format!("{}.{}.svc.{}:{}", unit.name, layout.namespace, settings.cluster_domain, placed.port);
            match give(&address, &placed.service.name, &credentials, &secret.secret.0, secret.generation).await {
                Ok(()) => {
                    tracing::info!(link, site, "the end that kept its reserve has the fresh secret");
                    secret.refill.remove(&site);
                    secret.used.insert(site, volume);
                }
                Err(why) => tracing::info!(link, site, "the fresh secret could not be given yet: {why}"),
            }
        }
    }
}

async fn give(
    address: &str,
    name: &str,
    credentials: &Credentials,
    secret: &[u8],
    generation: u64,
) -> Result<(), String> {
    let endpoint: Endpoint = address.parse().map_err(|error: shell::client::EndpointError| error.to_string())?;
    let channel = Connector::new(&endpoint, name, credentials).deadline(PATIENCE).connect();
    let mut client = ReserveClient::new(channel.await.map_err(|error| error.to_string())?);
    let request = RefillRequest { secret: secret.to_vec().into(), generation };
    match tokio::time::timeout(PATIENCE, client.refill(request)).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Ok(_)) => Ok(()),
        // Taken at an earlier attempt whose answer was lost.
        Ok(Err(status)) if status.message().contains("was used before") => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn end(volume: &str, up: bool) -> EndState {
        EndState { volume: Some(volume.to_owned()), up }
    }

    fn ends(a: EndState, b: EndState) -> Ends {
        [(("l".to_owned(), "a".to_owned()), a), (("l".to_owned(), "b".to_owned()), b)].into()
    }

    fn fresh() -> (BTreeMap<String, LinkSecret>, BTreeMap<String, u64>) {
        ([("l".to_owned(), fresh_link(4096).unwrap())].into(), [("l".to_owned(), 4096)].into())
    }

    #[test]
    fn an_end_is_marked_once_its_channel_answers() {
        let (mut links, bits) = fresh();
        advance(&mut links, &bits, &ends(end("1", false), end("2", true))).unwrap();
        assert_eq!(links["l"].used, [("b".to_owned(), "2".to_owned())].into());
        assert!(!links["l"].secret.0.is_empty(), "the other end needs it still");
        let before = links.clone();
        advance(&mut links, &bits, &ends(end("1", false), end("2", false))).unwrap();
        assert_eq!(links, before, "a restart changes nothing");
    }

    #[test]
    fn a_secret_that_both_ends_have_taken_is_emptied_and_one_that_is_to_be_refilled_is_not() {
        let (mut links, bits) = fresh();
        advance(&mut links, &bits, &ends(end("1", true), end("2", true))).unwrap();
        assert!(links["l"].secret.0.is_empty());
        let emptied = links.clone();
        assert!(advance(&mut links, &bits, &ends(end("1", false), end("2", true))).unwrap().is_empty());
        assert_eq!(links, emptied, "what is known of it stays");
        // One end loses its volume: the fresh secret stays until the other was refilled with it.
        advance(&mut links, &bits, &ends(end("9", false), end("2", true))).unwrap();
        advance(&mut links, &bits, &ends(end("9", true), end("2", true))).unwrap();
        assert!(!links["l"].secret.0.is_empty());
        let refilled = links.get_mut("l").unwrap();
        let volume = refilled.refill.remove("b").unwrap();
        refilled.used.insert("b".to_owned(), volume);
        advance(&mut links, &bits, &ends(end("9", true), end("2", true))).unwrap();
        assert!(links["l"].secret.0.is_empty());
    }

    #[test]
    fn an_end_that_lost_its_volume_gets_a_fresh_secret_and_the_other_is_to_be_refilled() {
        let (mut links, bits) = fresh();
        advance(&mut links, &bits, &ends(end("1", true), end("2", true))).unwrap();
        let before = links["l"].secret.clone();
        let renewed = advance(&mut links, &bits, &ends(end("9", false), end("2", true))).unwrap();
        assert_eq!(renewed, ["l"]);
        assert!(links["l"].secret != before && links["l"].generation != 0);
        assert_eq!((links["l"].used.len(), &links["l"].refill), (0, &[("b".to_owned(), "2".to_owned())].into()));
        // The lost end starts from the fresh one, and is marked with its new volume; the other waits for its refill.
        assert!(advance(&mut links, &bits, &ends(end("9", true), end("2", true))).unwrap().is_empty());
        assert_eq!(links["l"].used, [("a".to_owned(), "9".to_owned())].into());
        // It loses its volume too before it was refilled: nobody is left to refill.
        advance(&mut links, &bits, &ends(end("9", true), end("8", false))).unwrap();
        assert_eq!(links["l"].refill, [("a".to_owned(), "9".to_owned())].into());
    }

    #[test]
    fn a_volume_that_is_not_there_yet_is_not_lost() {
        let (mut links, bits) = fresh();
        advance(&mut links, &bits, &ends(end("1", true), end("2", true))).unwrap();
        let before = links.clone();
        assert!(advance(&mut links, &bits, &ends(EndState::default(), end("2", true))).unwrap().is_empty());
        assert_eq!(links, before);
    }
}
