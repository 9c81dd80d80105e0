//! Where keys go. Whatever can be known to fail is found before keys are asked for: they are not to be had again.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use etsi014::client::Delivered;
use runner::Failure;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cli::{KeyPrintArgs, Output};
use crate::commands::print;

/// Shortest key whose digest nobody can find it by.
const DIGEST_BITS_MIN: u64 = 128;
/// Longest text of a key and its ID that room is made for: the largest key that a topology can allow.
const KEY_BITS_MAX: u64 = 65_528;
/// No answer of a key store holds more.
const ROOM_BYTES_MAX: u64 = 16 << 20;

/// What is to become of the keys of one request.
pub struct Sink<'a> {
    args: &'a KeyPrintArgs,
    file: Option<NewFile>,
}

impl<'a> Sink<'a> {
    /// A key on a terminal stays in its scroll-back: only for those who say that they want it. A file is made, with
    /// room for as many keys of that size.
    pub fn prepare(args: &'a KeyPrintArgs, number: usize, size_bits: Option<u32>) -> Result<Self, Failure> {
        if let Some(bits) = size_bits.filter(|_| args.digest) {
            check_digest(bits.into())?;
        }
        if let Some(path) = &args.out {
            let key_bits = size_bits.map_or(KEY_BITS_MAX, u64::from).min(KEY_BITS_MAX);
            let line = "00000000-0000-0000-0000-000000000000 \n".len() as u64 + key_bits.div_ceil(24) * 4;
            let room = line.saturating_mul(number as u64).min(ROOM_BYTES_MAX);
            let cannot = |error| Failure::bad_input(format!("cannot write keys to {}: {error}", path.display()));
            return Ok(Sink { args, file: Some(NewFile::with_room(path, room).map_err(cannot)?) });
        }
        if io::stdout().is_terminal() && !args.show && !args.digest {
            let refused = Failure::bad_input("keys are not printed to a terminal");
            return Err(refused.hint("redirect the output to a file or a program, or say `--show`"));
        }
        Ok(Sink { args, file: None })
    }

    /// Whether keys of any size will do.
    pub fn asks_for_size(&self) -> bool {
        self.args.digest
    }

    pub fn write(self, keys: &[Delivered]) -> Result<(), Failure> {
        if self.args.digest {
            return digests(keys);
        }
        let encoded: Vec<(String, Zeroizing<String>)> = keys
            .iter()
            .map(|delivered| (delivered.id.to_string(), Zeroizing::new(BASE64.encode(delivered.key.expose()))))
            .collect();
        let lines = || encoded.iter().map(|(id, key)| format!("{id} {}\n", key.as_str())).collect::<String>();
        if let Some(file) = self.file {
            file.fill(Zeroizing::new(lines()).as_bytes())?;
            let ids: String = encoded.iter().map(|(id, _)| format!("{id}\n")).collect();
            return print(&ids);
        }
        let text = Zeroizing::new(match self.args.output.output {
            Output::Text => lines(),
            Output::Json => {
                let keys = encoded.iter().map(|(id, key)| Item { key_ID: id.clone(), key: key.as_str() }).collect();
                let text = serde_json::to_string(&Container { keys }).map_err(|e| Failure::failed(e.to_string()))?;
                text + "\n"
            }
        });
        print(&text)
    }
}

/// Refuses sizes of which no digest is printed.
pub fn check_digest(bits: u64) -> Result<(), Failure> {
    if bits >= DIGEST_BITS_MIN {
        return Ok(());
    }
    let refused = Failure::bad_input(format!("a key of {bits} bits could be found by its digest"));
    Err(refused.hint(format!("ask for keys of {DIGEST_BITS_MIN} bits or more, or leave `--digest` out")))
}

/// Digests of all keys that are long enough; an error if there are others.
fn digests(keys: &[Delivered]) -> Result<(), Failure> {
    let (mut text, mut short) = (String::new(), None);
    for delivered in keys {
        let key = delivered.key.expose();
        if check_digest(8 * key.len() as u64).is_err() {
            short = Some(8 * key.len() as u64);
            continue;
        }
        let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{} {digest}", delivered.id);
    }
    print(&text)?;
    short.map_or(Ok(()), check_digest)
}

/// The container of the standard, clause 6.3.
#[derive(Serialize)]
struct Container<'k> {
    keys: Vec<Item<'k>>,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct Item<'k> {
    key_ID: String,
    key: &'k str,
}

/// A file that had nothing in it. Unless it is filled, nothing is left behind.
struct NewFile {
    file: File,
    path: PathBuf,
    /// It was not there before.
    made: bool,
    /// On a disk; a pipe takes what is written once.
    regular: bool,
    filled: bool,
}

impl NewFile {
    /// Makes the file, readable by its owner alone, and writes as many bytes as it will take: a disk that is full says
    /// so now.
    fn with_room(path: &Path, bytes: u64) -> io::Result<Self> {
        let open = |new: bool| File::options().write(true).create_new(new).mode(0o600).open(path);
        let (file, made) = match open(true) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (open(false)?, false),
            Err(error) => return Err(error),
        };
        let regular = file.metadata()?.is_file();
        if file.metadata()?.len() > 0 {
            return Err(io::Error::other("something is in it"));
        }
        let mut new = NewFile { file, path: path.to_owned(), made, regular, filled: false };
        if regular {
            io::copy(&mut io::Read::take(io::repeat(b'\n'), bytes), &mut new.file)?;
            new.file.sync_all()?;
        }
        Ok(new)
    }

    fn fill(mut self, content: &[u8]) -> io::Result<()> {
        self.filled = true;
        if self.regular {
            self.file.rewind()?;
        }
        self.file.write_all(content)?;
        if self.regular {
            self.file.set_len(content.len() as u64)?;
            self.file.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.filled || !self.regular {
            return;
        }
        // Whoever asked hears of another error; an empty file does no harm.
        let _ = if self.made { std::fs::remove_file(&self.path) } else { self.file.set_len(0) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(out: Option<&Path>, digest: bool) -> KeyPrintArgs {
        let output = crate::cli::OutputArgs { output: Output::Text };
        KeyPrintArgs { show: true, digest, out: out.map(Path::to_owned), output }
    }

    #[test]
    fn a_file_for_keys_is_new_private_and_gone_if_there_are_no_keys() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let args = args(Some(&path), false);
        drop(Sink::prepare(&args, 3, Some(256)).unwrap());
        assert!(!path.exists());
        let sink = Sink::prepare(&args, 3, Some(256)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(path.metadata().unwrap().len() >= 3 * (37 + 44 + 1));
        sink.write(&[]).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 0);
        // One that was there stays, as empty as it was.
        drop(Sink::prepare(&args, 1, None).unwrap());
        assert_eq!(path.metadata().unwrap().len(), 0);
        std::fs::write(&path, "mine").unwrap();
        assert!(Sink::prepare(&args, 1, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_digest_of_a_short_key_is_refused_before_there_is_a_key() {
        assert!(Sink::prepare(&args(None, true), 1, Some(64)).is_err());
        assert!(Sink::prepare(&args(None, true), 1, Some(128)).is_ok());
        assert!(Sink::prepare(&args(None, false), 1, Some(64)).is_ok());
    }
}
