//! Secrets: the topology's own, and what each pod is configured with.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shell::launch::Anchoring;
use zeroize::Zeroizing;

use super::{BuildError, Context, labels};
use crate::anchors;
use crate::layout::{Unit, config_file};
use crate::material::{Pair, keys, secret_names};
use crate::names;

/// A Secret holds a mebibyte; some of it is for names.
const SECRET_BYTES_MAX: usize = 1_000_000;

type Data = BTreeMap<String, ByteString>;

/// The Secrets with files of one kind for one pod, and which file is where.
pub(super) struct PodSecrets {
    pub secrets: Vec<Secret>,
    /// Name of the Secret that holds each key.
    pub homes: BTreeMap<String, String>,
}

impl Context<'_> {
    /// Authority, control certificate, applications, authentication secrets and the keys of stores.
    pub(super) fn own_secrets(&self) -> Result<Vec<Secret>, BuildError> {
        let (topology, material) = (&self.layout.topology, self.material);
        let authority = material.authority.certificate_pem();
        let pair = |pair: &Pair| {
            data([
                (keys::CERTIFICATE, pair.certificate.as_bytes()),
                (keys::KEY, pair.key.as_bytes()),
                (keys::AUTHORITY, authority.as_bytes()),
            ])
        };
        let mut secrets = vec![
            secret(
                self.kept_metadata(secret_names::authority(topology), self.labels()),
                data([
                    (keys::AUTHORITY, authority.as_bytes()),
                    (keys::AUTHORITY_KEY, material.authority.key_pem().as_bytes()),
                ]),
            ),
            tls_secret(self.metadata(secret_names::control(topology), self.labels()), pair(&material.control)),
        ];
        for store in &self.layout.stores {
            for sae in &store.saes {
                let Some(certificate) = material.saes.get(sae) else { continue };
                let mut labels = self.labels();
                labels.insert(labels::SAE.to_owned(), sae.clone());
                labels.insert(labels::SITE.to_owned(), store.site.clone());
                secrets.push(tls_secret(self.metadata(secret_names::sae(topology, sae), labels), pair(certificate)));
            }
            let placed = material.stores.get(&store.site).zip(material.blocks.get(&store.site));
            let Some((master, blocks)) = placed else { continue };
            let mut labels = self.labels();
            labels.insert(labels::SITE.to_owned(), store.site.clone());
            let metadata = self.kept_metadata(secret_names::store(topology, &store.site), labels);
            let content = [(keys::STORE_KEY, master.0.as_slice()), (keys::BLOCKS_KEY, blocks.0.as_slice())];
            secrets.push(secret(metadata, data(content)));
        }
        for (link, placed) in &material.links {
            let bytes = placed.secret.0.len();
            if bytes > SECRET_BYTES_MAX {
                let (what, most) = ("authentication secret", SECRET_BYTES_MAX);
                return Err(BuildError::TooLarge { what, name: link.clone(), bytes, most });
            }
            let mut labels = self.labels();
            labels.insert(labels::LINK.to_owned(), link.clone());
            let generation = placed.generation.to_string();
            let mut content =
                data([(keys::LINK_SECRET, placed.secret.0.as_slice()), (keys::GENERATION, generation.as_bytes())]);
            let used = placed.used.iter().map(|(site, volume)| (keys::used(site), volume));
            let refill = placed.refill.iter().map(|(site, volume)| (keys::refill(site), volume));
            content.extend(used.chain(refill).map(|(key, volume)| (key, ByteString(volume.as_bytes().to_vec()))));
            secrets.push(secret(self.kept_metadata(secret_names::link(topology, link), labels), content));
        }
        Ok(secrets)
    }

    /// What the services of all sites have in common. It is no secret, and stands where their configurations do.
    pub(super) fn directory_secret(&self, directory: &str) -> Result<Secret, BuildError> {
        let name = secret_names::directory(&self.layout.topology);
        if directory.len() > SECRET_BYTES_MAX {
            let (what, bytes, most) = ("directory", directory.len(), SECRET_BYTES_MAX);
            return Err(BuildError::TooLarge { what, name: self.layout.topology.clone(), bytes, most });
        }
        Ok(secret(self.metadata(name, self.labels()), data([(keys::DIRECTORY, directory.as_bytes())])))
    }

    /// The configurations of a pod's services, and a hash of what in them takes a start where it changes. They hold
    /// subseeds, and are therefore secret.
    pub(super) fn config_secrets(
        &self,
        unit: &Unit,
        places: &BTreeMap<&str, (&Unit, u16)>,
        directory: &str,
    ) -> Result<(PodSecrets, String), BuildError> {
        let (mut files, mut started_with) = (Vec::new(), Zeroizing::new(String::new()));
        for placed in unit.services() {
            let name = &placed.service.name;
            let hosted = unit.containers.iter().any(|container| container.hosted);
            let mut file = self.layout.service_file(unit, placed, places);
            // Without an operator nobody keeps ceilings.
            let counts = self.settings.operator_namespace.is_some() && anchors::counts(&placed.service.config);
            file.anchor = counts.then_some(Anchoring::Control);
            let failed = |source| BuildError::Config { service: name.clone(), source };
            let mut fixed = file.clone().map(topology::plan::ServiceConfig::clone);
            if self.settings.tells {
                fixed.service = file.service.fixed();
            } else if file.directory.is_some() {
                started_with.push_str(directory);
            }
            started_with.push_str(&serde_yaml::to_string(&fixed).map_err(failed)?);
            let text = match hosted {
                true => serde_yaml::to_string(&file),
                false => serde_yaml::to_string(&file.map(plain)),
            };
            files.push((config_file(name), text.map_err(failed)?.into_bytes()));
        }
        Ok((self.pod_secrets(unit, files, secret_names::config)?, names::digest(&started_with)))
    }

    /// The certificates of a pod's services, and of no other.
    pub(super) fn pki_secrets(&self, unit: &Unit) -> Result<PodSecrets, BuildError> {
        let mut files = vec![("ca.pem".to_owned(), self.material.authority.certificate_pem().as_bytes().to_vec())];
        for placed in unit.services() {
            let name = &placed.service.name;
            let pair = self.material.services.get(name);
            let pair = pair.ok_or_else(|| BuildError::NoCertificate { service: name.clone() })?;
            files.push((format!("{name}.pem"), pair.certificate.as_bytes().to_vec()));
            files.push((format!("{name}.key"), pair.key.as_bytes().to_vec()));
        }
        self.pod_secrets(unit, files, secret_names::pki)
    }

    /// Files in as many Secrets as they need.
    fn pod_secrets(
        &self,
        unit: &Unit,
        files: Vec<(String, Vec<u8>)>,
        name: impl Fn(&str, usize) -> String,
    ) -> Result<PodSecrets, BuildError> {
        let mut parts: Vec<Data> = vec![Data::new()];
        let (mut room, mut homes) = (SECRET_BYTES_MAX, BTreeMap::new());
        for (key, bytes) in files {
            let size = bytes.len() + key.len();
            if size > SECRET_BYTES_MAX {
                let (what, most) = ("file", SECRET_BYTES_MAX);
                return Err(BuildError::TooLarge { what, name: key, bytes: size, most });
            }
            if size > room {
                parts.push(Data::new());
                room = SECRET_BYTES_MAX;
            }
            room -= size;
            homes.insert(key.clone(), name(&unit.name, parts.len() - 1));
            if let Some(last) = parts.last_mut() {
                last.insert(key, ByteString(bytes));
            }
        }
        let labelled = |(part, data)| secret(self.metadata(name(&unit.name, part), self.unit_labels(unit)), data);
        Ok(PodSecrets { secrets: parts.into_iter().enumerate().map(labelled).collect(), homes })
    }
}

/// A configuration without the kind of its service, which the command says.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Plain<'a> {
    Source(&'a topology::plan::SourceConfig),
    Detector(&'a topology::plan::DetectorConfig),
    Transmitter(&'a topology::plan::TransmitterConfig),
    Channel(&'a topology::plan::ChannelConfig),
    Kms(&'a topology::plan::KmsConfig),
    Relay(&'a topology::plan::RelayConfig),
    Pacer(&'a topology::plan::PacerConfig),
}

fn plain(config: &topology::plan::ServiceConfig) -> Plain<'_> {
    use topology::plan::ServiceConfig;
    match config {
        ServiceConfig::Source(config) => Plain::Source(config),
        ServiceConfig::Detector(config) => Plain::Detector(config),
        ServiceConfig::Transmitter(config) => Plain::Transmitter(config),
        ServiceConfig::Channel(config) => Plain::Channel(config),
        ServiceConfig::Kms(config) => Plain::Kms(config),
        ServiceConfig::Relay(config) => Plain::Relay(config),
        ServiceConfig::Pacer(config) => Plain::Pacer(config),
    }
}

fn data<const N: usize>(pairs: [(&str, &[u8]); N]) -> Data {
    pairs.into_iter().map(|(key, bytes)| (key.to_owned(), ByteString(bytes.to_vec()))).collect()
}

fn secret(metadata: ObjectMeta, data: Data) -> Secret {
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

fn tls_secret(metadata: ObjectMeta, data: Data) -> Secret {
    Secret { metadata, data: Some(data), type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() }
}
