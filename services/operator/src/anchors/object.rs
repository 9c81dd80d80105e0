//! What the operator keeps of one topology's ceilings, as the text of objects.

use std::collections::BTreeMap;

use anchor::{Ceilings, Instance};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// An object holds a mebibyte.
const TEXT_BYTES_MAX: usize = 700_000;
/// Stores of one service that are remembered: of more, those that rested longest are lost volumes.
const STORES_MAX: usize = 16;

/// Ceilings of all stores of a topology, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    services: BTreeMap<String, Stores>,
}

type Stores = BTreeMap<Instance, Entry>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    ceilings: Ceilings,
    /// Wall time of the last change, in milliseconds since 1970.
    changed_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    services: BTreeMap<String, Stores>,
}

#[derive(Debug, thiserror::Error)]
#[error("the ceilings in {object} cannot be read: {why}")]
pub struct Unreadable {
    pub object: String,
    pub why: String,
}

impl Kept {
    /// From the texts of objects with their names. A store that is in two of them moved from one to the other.
    pub fn read<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, Unreadable> {
        let mut kept = Self::default();
        for (object, text) in texts {
            let unreadable = |why: String| Unreadable { object: object.to_owned(), why };
            let text: Text = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
            if text.version != VERSION {
                return Err(unreadable(format!("it is of version {}", text.version)));
            }
            for (service, stores) in text.services {
                let known = kept.services.entry(service).or_default();
                for (store, entry) in stores {
                    if known.get(&store).is_none_or(|before| before.changed_ms <= entry.changed_ms) {
                        known.insert(store, entry);
                    }
                }
            }
        }
        Ok(kept)
    }

    /// Of each service's stores.
    pub fn of(&self, service: &str) -> BTreeMap<Instance, Ceilings> {
        let stores = self.services.get(service).into_iter().flatten();
        stores.map(|(store, entry)| (*store, entry.ceilings.clone())).collect()
    }

    /// A store's ceilings are raised, or become the counts of one that has closed.
    pub fn take(&mut self, service: &str, store: Instance, ceilings: &Ceilings, settled: bool, now_ms: u64) {
        let stores = self.services.entry(service.to_owned()).or_default();
        let entry = stores.entry(store).or_insert_with(|| Entry { ceilings: Ceilings::new(), changed_ms: now_ms });
        entry.changed_ms = now_ms;
        if settled {
            entry.ceilings = ceilings.clone();
        } else {
            for (name, ceiling) in ceilings {
                let kept = entry.ceilings.entry(name.clone()).or_default();
                *kept = (*kept).max(*ceiling);
            }
        }
        while stores.len() > STORES_MAX {
            let oldest = stores.iter().min_by_key(|(_, entry)| entry.changed_ms).map(|(store, _)| *store);
            oldest.map(|store| stores.remove(&store));
        }
    }

    /// As texts of objects, each as large as an object can be.
    pub fn texts(&self) -> Result<Vec<String>, serde_json::Error> {
        let mut texts = Vec::new();
        let (mut part, mut bytes) = (BTreeMap::new(), 0);
        let write = |services: BTreeMap<String, Stores>| serde_json::to_string(&Text { version: VERSION, services });
        for (service, stores) in &self.services {
            let size = serde_json::to_string(stores)?.len() + service.len() + 4;
            if bytes + size > TEXT_BYTES_MAX && !part.is_empty() {
                texts.push(write(std::mem::take(&mut part))?);
                bytes = 0;
            }
            part.insert(service.clone(), stores.clone());
            bytes += size;
        }
        texts.push(write(part)?);
        Ok(texts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ceilings(pairs: &[(&str, u64)]) -> Ceilings {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn read(texts: &[String]) -> Result<Kept, Unreadable> {
        Kept::read(texts.iter().map(|text| ("object", text.as_str())))
    }

    #[test]
    fn ceilings_only_rise_but_by_a_clean_close() {
        let (mut kept, store) = (Kept::default(), Instance::from_bytes([7; 16]));
        kept.take("kms-a", store, &ceilings(&[("x", 8), ("y", 1)]), false, 1);
        kept.take("kms-a", store, &ceilings(&[("x", 3), ("y", 9)]), false, 2);
        assert_eq!(kept.of("kms-a"), [(store, ceilings(&[("x", 8), ("y", 9)]))].into());
        assert!(kept.of("kms-b").is_empty());
        kept.take("kms-a", store, &ceilings(&[("x", 5)]), true, 3);
        assert_eq!(kept.of("kms-a"), [(store, ceilings(&[("x", 5)]))].into());
        assert_eq!(read(&kept.texts().unwrap()).unwrap(), kept);
    }

    #[test]
    fn a_network_of_700_links_fits_into_objects_and_lost_volumes_do_not_pile_up() {
        let mut kept = Kept::default();
        for channel in 0..1400u32 {
            for life in 0..20u8 {
                let mut bytes = [life; 16];
                bytes[..4].copy_from_slice(&channel.to_le_bytes());
                let counts = ceilings(&[("send", u64::MAX / 3), ("receive", u64::MAX / 5)]);
                let service = format!("channel-a-link-between-two-sites-{channel:04}-with-a-long-name");
                kept.take(&service, Instance::from_bytes(bytes), &counts, false, life.into());
            }
        }
        let texts = kept.texts().unwrap();
        assert!(
            texts.iter().all(|text| text.len() < 1 << 20),
            "{:?}",
            texts.iter().map(String::len).collect::<Vec<_>>()
        );
        assert_eq!(read(&texts).unwrap(), kept);
        let stores = kept.of("channel-a-link-between-two-sites-0007-with-a-long-name");
        assert_eq!(stores.len(), STORES_MAX);
        assert!(stores.keys().all(|store| store.bytes()[15] >= 4));
    }

    #[test]
    fn what_is_damaged_is_no_fresh_start() {
        for text in ["", "{}", r#"{"version":2,"services":{}}"#, r#"{"version":1,"services":{"a":{"zz":{}}}}"#] {
            assert!(read(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
