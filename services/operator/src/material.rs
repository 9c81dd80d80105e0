//! What is secret and must outlive a reconcile: read from the Secrets that exist, made where it is missing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use shell::pki::{self, Authority, Issued, PkiError};
use shell::{Credentials, TlsError};
use topology::plan::CONTROL_IDENTITY;
use zeroize::Zeroizing;

use crate::layout::Layout;
use crate::names::{self, OBJECT_CHARS};
use crate::settings::Settings;

const STORE_KEY_BYTES: usize = 32;
/// Value of a mark at a link end whose volume has no identity that is known.
const UNKNOWN_VOLUME: &str = "unknown";

#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("make certificates: {0}")]
    Certificates(#[from] PkiError),
    #[error("draw a secret: {0}")]
    Randomness(std::io::Error),
}

/// Everything secret of one topology.
#[derive(Debug)]
pub struct Material {
    pub authority: Authority,
    pub control: Pair,
    pub services: BTreeMap<String, Pair>,
    pub saes: BTreeMap<String, Pair>,
    pub links: BTreeMap<String, LinkSecret>,
    /// Master keys of key stores, by site.
    pub stores: BTreeMap<String, Hidden>,
    /// What modules seal blocks under that wait for the key store, by site.
    pub blocks: BTreeMap<String, Hidden>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

/// Bytes that never show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(pub Zeroizing<Vec<u8>>);

/// The pre-placed authentication secret of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSecret {
    /// Empty once both ends have taken it.
    pub secret: Hidden,
    /// Sites whose end has taken it, with the identity of the volume that its reserve is on.
    pub used: BTreeMap<String, String>,
    /// Which one of the link's secrets it is; 0 is the first.
    pub generation: u64,
    /// Sites whose end has a reserve of an older secret and is to be given this one.
    pub refill: BTreeMap<String, String>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(..)")
    }
}

/// Names of the Secrets.
pub mod secret_names {
    use super::{OBJECT_CHARS, names};

    pub fn authority(topology: &str) -> String {
        names::object(topology, "ca", OBJECT_CHARS)
    }

    pub fn control(topology: &str) -> String {
        names::object(topology, "control", OBJECT_CHARS)
    }

    pub fn sae(topology: &str, sae: &str) -> String {
        names::object(topology, &format!("sae-{sae}"), OBJECT_CHARS)
    }

    pub fn link(topology: &str, link: &str) -> String {
        names::object(topology, &format!("link-{link}"), OBJECT_CHARS)
    }

    pub fn store(topology: &str, site: &str) -> String {
        names::object(topology, &format!("store-{site}"), OBJECT_CHARS)
    }

    pub fn directory(topology: &str) -> String {
        names::object(topology, "directory", OBJECT_CHARS)
    }

    pub fn config(unit: &str, part: usize) -> String {
        part_of(unit, "config", part)
    }

    pub fn pki(unit: &str, part: usize) -> String {
        part_of(unit, "pki", part)
    }

    fn part_of(unit: &str, what: &str, part: usize) -> String {
        if part == 0 { format!("{unit}-{what}") } else { format!("{unit}-{what}-{part}") }
    }
}

/// Keys in the Secrets.
pub mod keys {
    pub const AUTHORITY: &str = "ca.crt";
    pub const AUTHORITY_KEY: &str = "ca.key";
    pub const CERTIFICATE: &str = "tls.crt";
    pub const KEY: &str = "tls.key";
    pub const LINK_SECRET: &str = "authentication.secret";
    pub const GENERATION: &str = "generation";
    pub const STORE_KEY: &str = "master.key";
    pub const DIRECTORY: &str = "directory.yaml";
    pub const BLOCKS_KEY: &str = "blocks.key";

    pub fn used(site: &str) -> String {
        format!("{site}.used")
    }

    pub fn refill(site: &str) -> String {
        format!("{site}.refill")
    }
}

/// Secrets that exist, by name.
pub type Existing<'a> = BTreeMap<&'a str, &'a Secret>;

impl Material {
    /// What exists and is good is kept, the rest is made. `before` is what this process knew the last time: a Secret
    /// that somebody deleted comes back as it was.
    pub fn complete(
        layout: &Layout,
        settings: &Settings,
        existing: &Existing<'_>,
        before: Option<&Material>,
    ) -> Result<Self, MaterialError> {
        let topology = &layout.topology;
        let authority = match (existing_authority(existing, topology), before) {
            (Some(authority), _) => authority,
            (None, Some(before)) if pki::pem_lasts(before.authority.certificate_pem(), None, &[]) => {
                Authority::from_pem(before.authority.certificate_pem(), &before.authority.key_pem())?
            }
            (None, _) => Authority::new(topology)?,
        };
        let issuer = Issuer { authority: &authority };
        let services = issuer.services(layout, settings, existing, before)?;
        let control = issuer.pair(
            existing_pair(existing, &secret_names::control(topology), keys::CERTIFICATE, keys::KEY)
                .or_else(|| Some(before?.control.clone())),
            &[],
            |authority| authority.issue(CONTROL_IDENTITY),
        )?;
        let mut saes = BTreeMap::new();
        for sae in layout.stores.iter().flat_map(|store| &store.saes) {
            let found = existing_pair(existing, &secret_names::sae(topology, sae), keys::CERTIFICATE, keys::KEY);
            let found = found.or_else(|| before?.saes.get(sae).cloned());
            saes.insert(sae.clone(), issuer.pair(found, &[], |authority| authority.issue_application(sae))?);
        }
        let links = links(layout, existing, before)?;
        let stores = site_keys(layout, existing, keys::STORE_KEY, before.map(|before| &before.stores))?;
        let blocks = site_keys(layout, existing, keys::BLOCKS_KEY, before.map(|before| &before.blocks))?;
        Ok(Self { control, services, saes, links, stores, blocks, authority })
    }

    /// Of whoever controls the network.
    pub fn control_credentials(&self) -> Result<Credentials, TlsError> {
        Credentials::from_pem(self.authority.certificate_pem(), &self.control.certificate, &self.control.key)
    }
}

fn existing_authority(existing: &Existing<'_>, topology: &str) -> Option<Authority> {
    let found = existing_pair(existing, &secret_names::authority(topology), keys::AUTHORITY, keys::AUTHORITY_KEY)?;
    let authority = Authority::from_pem(&found.certificate, &found.key).ok()?;
    pki::pem_lasts(&found.certificate, None, &[]).then_some(authority)
}

fn existing_pair(existing: &Existing<'_>, secret: &str, certificate: &str, key: &str) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(data(existing, secret, key)?.to_vec()).ok();
    Some(Pair { certificate: text(certificate)?, key: Zeroizing::new(text(key)?) })
}

fn data<'a>(existing: &Existing<'a>, secret: &str, key: &str) -> Option<&'a [u8]> {
    let secret: &'a Secret = existing.get(secret).copied()?;
    Some(secret.data.as_ref()?.get(key)?.0.as_slice())
}

struct Issuer<'a> {
    authority: &'a Authority,
}

impl Issuer<'_> {
    fn pair(
        &self,
        found: Option<Pair>,
        hosts: &[String],
        issue: impl FnOnce(&Authority) -> Result<Issued, PkiError>,
    ) -> Result<Pair, PkiError> {
        let issuer = Some(self.authority.certificate_pem());
        match found {
            Some(pair) if pki::pem_lasts(&pair.certificate, issuer, hosts) => Ok(pair),
            _ => {
                let issued = issue(self.authority)?;
                Ok(Pair { certificate: issued.certificate_pem, key: issued.key_pem })
            }
        }
    }

    fn services(
        &self,
        layout: &Layout,
        settings: &Settings,
        existing: &Existing<'_>,
        before: Option<&Material>,
    ) -> Result<BTreeMap<String, Pair>, PkiError> {
        let mut pairs = BTreeMap::new();
        for unit in &layout.units {
            let secrets: Vec<String> = (0..)
                .map(|part| secret_names::pki(&unit.name, part))
                .take_while(|name| existing.contains_key(name.as_str()))
                .collect();
            for placed in unit.services() {
                let name = &placed.service.name;
                let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
                let found = secrets.iter().find_map(|secret| existing_pair(existing, secret, &certificate, &key));
                let found = found.or_else(|| before?.services.get(name).cloned());
                let hosts = layout.hosts(name, settings);
                let pair = self.pair(found, &hosts, |authority| authority.issue_for_hosts(name, &hosts))?;
                pairs.insert(name.clone(), pair);
            }
        }
        Ok(pairs)
    }
}

fn links(
    layout: &Layout,
    existing: &Existing<'_>,
    before: Option<&Material>,
) -> Result<BTreeMap<String, LinkSecret>, MaterialError> {
    let mut links = BTreeMap::new();
    for (link, reserve_bits) in &layout.links {
        let name = secret_names::link(&layout.topology, link);
        let found = data(existing, &name, keys::LINK_SECRET).map(|secret| LinkSecret {
            secret: hidden(secret.to_vec()),
            used: marks(existing, &name, ".used"),
            refill: marks(existing, &name, ".refill"),
            generation: generation(existing, &name),
        });
        let known = || before.and_then(|before| before.links.get(link).cloned());
        let secret = match found.or_else(known) {
            Some(secret) => secret,
            None => fresh_link(*reserve_bits)?,
        };
        links.insert(link.clone(), secret);
    }
    Ok(links)
}

/// A secret that nobody has used, never derived from a seed.
pub fn fresh_link(reserve_bits: u64) -> Result<LinkSecret, MaterialError> {
    let secret = channel::new_secret(reserve_bits).map_err(MaterialError::Randomness)?;
    Ok(LinkSecret { secret: hidden(secret.to_vec()), used: BTreeMap::new(), refill: BTreeMap::new(), generation: 0 })
}

fn generation(existing: &Existing<'_>, secret: &str) -> u64 {
    let text = data(existing, secret, keys::GENERATION).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Sites and volumes in the keys of one kind.
fn marks(existing: &Existing<'_>, secret: &str, suffix: &str) -> BTreeMap<String, String> {
    let data = existing.get(secret).and_then(|secret| secret.data.as_ref());
    let mark = |(key, value): (&String, &k8s_openapi::ByteString)| {
        let volume = std::str::from_utf8(&value.0).unwrap_or(UNKNOWN_VOLUME);
        Some((key.strip_suffix(suffix)?.to_owned(), volume.to_owned()))
    };
    data.into_iter().flatten().filter_map(mark).collect()
}

/// The key of one kind of every site with a key store.
fn site_keys(
    layout: &Layout,
    existing: &Existing<'_>,
    kind: &str,
    before: Option<&BTreeMap<String, Hidden>>,
) -> Result<BTreeMap<String, Hidden>, MaterialError> {
    let mut site_keys = BTreeMap::new();
    for store in &layout.stores {
        let name = secret_names::store(&layout.topology, &store.site);
        let found = data(existing, &name, kind).filter(|key| key.len() == STORE_KEY_BYTES);
        let known = before.and_then(|before| before.get(&store.site).cloned());
        let key = match (found, known) {
            (Some(key), _) => hidden(key.to_vec()),
            (None, Some(key)) => key,
            (None, None) => hidden(shell::entropy().map_err(MaterialError::Randomness)?.to_vec()),
        };
        site_keys.insert(store.site.clone(), key);
    }
    Ok(site_keys)
}

fn hidden(bytes: Vec<u8>) -> Hidden {
    Hidden(Zeroizing::new(bytes))
}
