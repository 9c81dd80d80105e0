//! The key that wraps the store's data key: 32 bytes in a file that only its owner may read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::StoreError;
use crate::crypt::{Sealer, random};

const KEY_BYTES: usize = 32;
const WRAP_AAD: &[u8] = b"qkdnet keystore: data key";

/// Opens a store. Losing it loses every key in the store; it is never written beside what it protects by this crate.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; KEY_BYTES]);

impl MasterKey {
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a key that [`MasterKey::create`] wrote. A file that others may read, or of another length, is refused.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        Self::read_unless(path, 0o077, "a master key must be a file with mode 0600")
    }

    /// Reads a key that someone else placed, who may let a service read it by its group (mode 0440).
    pub fn read_placed(path: &Path) -> Result<Self, StoreError> {
        Self::read_unless(path, 0o027, "a placed master key must be a file that others cannot read, with mode 0440")
    }

    fn read_unless(path: &Path, forbidden: u32, why: &'static str) -> Result<Self, StoreError> {
        let mut file = File::open(path).map_err(|error| refusal(path, &error))?;
        let status = file.metadata().map_err(|error| refusal(path, &error))?;
        if !status.is_file() || status.mode() & forbidden != 0 {
            return Err(refusal(path, &why));
        }
        if status.len() != KEY_BYTES as u64 {
            return Err(refusal(path, &"a master key has 32 bytes"));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        file.read_exact(&mut *bytes).map_err(|error| refusal(path, &error))?;
        Ok(Self(*bytes))
    }

    /// Writes a new random key, durably. An existing file is never overwritten.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let key = Self::random()?;
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(path);
        let written = opened.and_then(|mut file| {
            file.write_all(&key.0)?;
            file.sync_all()
        });
        written.map_err(|error| refusal(path, &error))?;
        crate::media::sync_folder_of(path).map_err(|error| refusal(path, &error))?;
        Ok(key)
    }

    /// A key that is not written anywhere.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random(&mut *bytes)?;
        Ok(Self(*bytes))
    }

    /// Seals what is kept beside a store, or where there is none, under a key of its own.
    pub fn sealer(&self, purpose: &[u8]) -> Result<Sealer, StoreError> {
        Sealer::derived(&self.0, purpose)
    }

    pub(crate) fn wrap(&self, data_key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, StoreError> {
        Sealer::new(&self.0)?.seal(WRAP_AAD, data_key)
    }

    pub(crate) fn unwrap_key(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, StoreError> {
        let secret = Sealer::new(&self.0)?.open(WRAP_AAD, wrapped.to_vec()).ok_or(StoreError::WrongMasterKey)?;
        let bytes = secret.expose().try_into().map_err(|_| StoreError::WrongMasterKey)?;
        Ok(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({KEY_BYTES} bytes)")
    }
}

fn refusal(path: &Path, why: &dyn fmt::Display) -> StoreError {
    StoreError::MasterKeyFile { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_master_key_is_read_back_and_one_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let key = MasterKey::create(&path).unwrap();
        assert_eq!(MasterKey::read(&path).unwrap().0, key.0);
        assert!(MasterKey::create(&path).is_err(), "an existing key is never overwritten");
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = MasterKey::read(&path).unwrap_err();
        assert!(refused.to_string().contains("mode 0600"), "{refused}");
        assert_eq!(MasterKey::read_placed(&path).unwrap().0, key.0);
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(MasterKey::read_placed(&path).unwrap_err().to_string().contains("mode 0440"));
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, [1; 31]).unwrap();
        assert!(MasterKey::read(&path).unwrap_err().to_string().contains("32 bytes"));
        assert_eq!(format!("{key:?}"), "MasterKey(32 bytes)");
    }

    #[test]
    fn what_was_sealed_for_one_purpose_opens_for_no_other() {
        let key = MasterKey::random().unwrap();
        let sealed = key.sealer(b"blocks of a").unwrap().seal(b"1", b"key").unwrap();
        assert_eq!(
            key.sealer(b"blocks of a").unwrap().open(b"1", sealed.clone()),
            Some(crate::Secret::copy_of(b"key"))
        );
        assert_eq!(key.sealer(b"blocks of b").unwrap().open(b"1", sealed.clone()), None);
        assert_eq!(Sealer::new(&key.0).unwrap().open(b"1", sealed), None);
    }
}
