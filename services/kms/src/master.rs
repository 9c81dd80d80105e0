//! The master key of a site's store: made at the first start, and changed on demand.
//!
//! Changing it wraps the store's data key again; key at rest stays as it is. The new key is on the disk before the
//! store needs it, and takes the old one's place after: whatever a crash interrupts, one of the two files opens the
//! store, and the next opening finishes what was begun.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keystore::{KeyStore, MasterKey, Media, Settings, StoreError};
use shell::disk::{Backend, Disk};

/// Where the master key of a site's store is.
pub fn path(data: &Path, site: &str) -> PathBuf {
    file(&keystore::folder(data, site))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("master.key")
}

/// A new master key that has not taken the old one's place yet.
fn next_file(folder: &Path) -> PathBuf {
    folder.join("master.key.next")
}

/// Opens the store in `folder` with its master key; makes both where there is none.
pub fn open_store(folder: &Path, settings: &Settings, disk: &Disk) -> Result<KeyStore> {
    open(folder, settings, disk).map(|(store, _)| store)
}

/// As [`open_store`], under a master key that somebody placed and will change, if ever, with the store at rest.
pub fn open_placed(folder: &Path, key: &Path, settings: &Settings, disk: &Disk) -> Result<KeyStore> {
    let master = MasterKey::read_placed(key).context("load the master key")?;
    on_disk(folder, &master, settings, disk).context("open the key store")
}

fn open(folder: &Path, settings: &Settings, disk: &Disk) -> Result<(KeyStore, MasterKey)> {
    let (path, next) = (file(folder), next_file(folder));
    let master = if path.exists() { MasterKey::read(&path) } else { MasterKey::create(&path) };
    let master = master.context("load the master key")?;
    match on_disk(folder, &master, settings, disk) {
        Ok(store) => {
            if next.exists() {
                // The change did not come as far as the store.
                std::fs::remove_file(&next).with_context(|| format!("remove {}", next.display()))?;
            }
            Ok((store, master))
        }
        Err(StoreError::WrongMasterKey) if next.exists() => {
            let master = MasterKey::read(&next).context("load the new master key")?;
            let store = on_disk(folder, &master, settings, disk).context("open the key store")?;
            replace(folder)?;
            tracing::info!("the change of the master key, interrupted before, is complete");
            Ok((store, master))
        }
        Err(error) => Err(error).context("open the key store"),
    }
}

/// The store in its files, which a fault can leave without room.
fn on_disk(folder: &Path, master: &MasterKey, settings: &Settings, disk: &Disk) -> Result<KeyStore, StoreError> {
    let Media { database, journals } = Media::files(folder)?;
    let journals = journals.map(|journal| Backend::new(journal, disk.clone()));
    KeyStore::open_on(Media { database: Backend::new(database, disk.clone()), journals }, master, settings)
}

fn replace(folder: &Path) -> Result<()> {
    let path = file(folder);
    std::fs::rename(next_file(folder), &path).with_context(|| format!("replace {}", path.display()))?;
    shell::files::sync_folder(folder).with_context(|| format!("make {} durable", path.display()))
}

/// Puts the store in `folder` under a new master key. A store that is in use is refused.
pub fn rotate(folder: &Path, settings: &Settings) -> Result<()> {
    let (store, present) = open(folder, settings, &Disk::default())?;
    let new = MasterKey::create(&next_file(folder)).context("make the new master key")?;
    store.rotate(&present, &new).wait().context("put the key store under the new master key")?;
    replace(folder)?;
    store.close().context("close the key store")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_new_master_key_opens_the_same_store_and_the_old_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let settings = Settings::default();
        let instance = open_store(folder, &settings, &Disk::default()).unwrap().instance_id();
        let old = MasterKey::read(&file(folder)).unwrap();
        rotate(folder, &settings).unwrap();
        assert_eq!(KeyStore::open(folder, &old, &settings).unwrap_err(), StoreError::WrongMasterKey);
        assert_eq!(open_store(folder, &settings, &Disk::default()).unwrap().instance_id(), instance);
        assert!(!next_file(folder).exists());
    }

    #[test]
    fn a_change_that_was_interrupted_anywhere_is_finished_or_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let settings = Settings::default();
        let (store, present) = open(folder, &settings, &Disk::default()).unwrap();
        let instance = store.instance_id();
        // The new key is there, and the store is still under the old one.
        let old = bytes(&file(folder));
        MasterKey::create(&next_file(folder)).unwrap();
        drop(store);
        assert_eq!(open_store(folder, &settings, &Disk::default()).unwrap().instance_id(), instance);
        assert_eq!(bytes(&file(folder)), old);
        assert!(!next_file(folder).exists());
        // The store is under the new key, which has not taken the old one's place.
        let (store, _) = open(folder, &settings, &Disk::default()).unwrap();
        let new = MasterKey::create(&next_file(folder)).unwrap();
        store.rotate(&present, &new).wait().unwrap();
        drop(store);
        let next = bytes(&next_file(folder));
        for _ in 0..2 {
            assert_eq!(open_store(folder, &settings, &Disk::default()).unwrap().instance_id(), instance);
            assert_eq!(bytes(&file(folder)), next);
            assert!(!next_file(folder).exists());
        }
    }

    #[test]
    fn the_master_key_of_a_store_in_use_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path(), &Settings::default(), &Disk::default()).unwrap();
        let before = bytes(&file(folder.path()));
        let refused = format!("{:#}", rotate(folder.path(), &Settings::default()).unwrap_err());
        assert!(refused.contains("in use"), "{refused}");
        assert_eq!(bytes(&file(folder.path())), before);
        assert!(!next_file(folder.path()).exists());
        drop(store);
    }
}
