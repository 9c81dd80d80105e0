//! `qkdnet key`: an application (SAE) for people and scripts, over ETSI GS QKD 014.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kms::etsi014::client::{Client, ClientError, Delivered, NewKeys};
use kms::supply::{KeyId, SaeId};
use operator::material::keys;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use telemetry::TelemetryConfig;
use zeroize::Zeroizing;

use super::{print, status};
use crate::cli::{KeyAccessArgs, KeyCommand, KeyFetchArgs, KeyPrintArgs, Output};
use crate::cluster;
use crate::failure::Failure;
use crate::wire;

/// Whom to ask and as whom.
struct Access {
    url: String,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

pub fn run(command: &KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Get(args) => {
            let slave = sae(&args.to)?;
            let out = may_print(&args.print)?;
            let additional =
                args.also.iter().map(|name| sae(name).map(|sae| sae.to_string())).collect::<Result<Vec<_>, _>>()?;
            let request = NewKeys {
                number: args.number,
                size_bits: args.size,
                additional_slaves: additional,
                ..NewKeys::default()
            };
            let keys = ask(&args.access, async |client| client.get_keys(&slave, &request).await)?;
            write(&keys, &args.print, out)
        }
        KeyCommand::Fetch(args) => {
            let master = sae(&args.from)?;
            if let Some(file) = &args.check {
                return check(args, &master, file);
            }
            let out = may_print(&args.print)?;
            let id = |text: &String| {
                text.parse::<KeyId>().map_err(|error| Failure::bad_input(format!("`{text}` is no key ID: {error}")))
            };
            let ids = args.ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
            let keys = ask(&args.access, async |client| client.get_keys_with_ids(&master, &ids).await)?;
            write(&keys, &args.print, out)
        }
        KeyCommand::Status(args) => {
            let slave = sae(&args.to)?;
            let status = ask(&args.access, async |client| client.status(&slave).await)?;
            super::print_json(&status)
        }
    }
}

/// Whether the peer's key store gives the keys that the master has.
fn check(args: &KeyFetchArgs, master: &SaeId, file: &Path) -> Result<(), Failure> {
    let unreadable = |why: String| Failure::bad_input(format!("{}: {why}", file.display()));
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?);
    let mut sent = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(id, key)| Some((id.parse::<KeyId>().ok()?, key)));
        sent.push(parsed.ok_or_else(|| unreadable(format!("line {} is no key ID and key", number + 1)))?);
    }
    let ids: Vec<KeyId> = sent.iter().map(|(id, _)| *id).collect();
    let fetched = ask(&args.access, async |client| client.get_keys_with_ids(master, &ids).await)?;
    let same = fetched.len() == sent.len()
        && sent.iter().all(|(id, key)| {
            let found = fetched.iter().find(|delivered| delivered.id == *id);
            let found = found.map(|delivered| Zeroizing::new(BASE64.encode(delivered.key.expose())));
            found.is_some_and(|found| bool::from(found.as_bytes().ct_eq(key.as_bytes())))
        });
    if !same {
        return Err(Failure::failed("the two applications have different keys"));
    }
    print(&format!("{} keys fetched, the same as in {}\n", sent.len(), file.display()))
}

fn sae(name: &str) -> Result<SaeId, Failure> {
    SaeId::new(name).map_err(|error| Failure::bad_input(format!("`{name}`: {error}")))
}

/// A key on a terminal stays in its scroll-back: only for those who say that they want it. A file is made before keys
/// are asked for, as they are not to be had again.
fn may_print(args: &KeyPrintArgs) -> Result<Option<File>, Failure> {
    if let Some(path) = &args.out {
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
        let empty = file.and_then(|file| match file.metadata()?.len() {
            0 => Ok(file),
            _ => Err(std::io::Error::other("something is in it")),
        });
        let cannot = |error| Failure::bad_input(format!("cannot write keys to {}: {error}", path.display()));
        return empty.map(Some).map_err(cannot);
    }
    if std::io::stdout().is_terminal() && !args.show && !args.digest {
        let refused = Failure::bad_input("keys are not printed to a terminal");
        return Err(refused.hint("redirect the output to a file or a program, or say `--show`"));
    }
    Ok(None)
}

fn ask<T>(args: &KeyAccessArgs, request: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> Result<T, Failure> {
    if args.cluster.topology.is_some() {
        return ask_on_cluster(args, request);
    }
    let Access { url, ca, cert, key } = resolve(args)?;
    let client = Client::builder(url, ca, cert, key).build().map_err(|error| Failure::bad_input(error.to_string()))?;
    let answer = wire::block_on(&TelemetryConfig::new("qkdnet"), async { Ok(request(&client).await) })?;
    answer.map_err(|error| Failure::failed(error.to_string()))
}

/// Through a forwarded port, with the certificate from the application's Secret.
fn ask_on_cluster<T>(
    args: &KeyAccessArgs,
    request: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let name = args.sae.as_deref().ok_or_else(|| {
        Failure::bad_input("as which application to ask is not said").hint("give `--sae NAME` beside `--topology`")
    })?;
    cluster::run(&args.cluster, async |there| {
        let door = there.application(name).await?;
        let [ca, cert, key] = [keys::AUTHORITY, keys::CERTIFICATE, keys::KEY].map(|name| door.files.path().join(name));
        let url = format!("https://{}", door.forward.address);
        let client = Client::builder(url, ca, cert, key).build()?;
        Ok(request(&client).await?)
    })
}

/// From the files named, or from the network that runs on the data directory.
fn resolve(args: &KeyAccessArgs) -> Result<Access, Failure> {
    if let (Some(url), Some(ca), Some(cert), Some(key)) = (&args.url, &args.ca, &args.cert, &args.key) {
        return Ok(Access { url: url.clone(), ca: ca.clone(), cert: cert.clone(), key: key.clone() });
    }
    let (Some(data), Some(name)) = (&args.data, &args.sae) else {
        let unclear = Failure::bad_input("whom to ask is not said");
        return Err(unclear
            .hint("give `--data DIR --sae NAME`, `--topology NAME --sae NAME`, or all of `--url --ca --cert --key`"));
    };
    let network = status::running(data)?;
    let found = network.sites.iter().find_map(|site| {
        let sae = site.saes.iter().find(|sae| sae.id == *name)?;
        Some(Access { url: site.url.clone(), ca: site.ca.clone(), cert: sae.cert.clone(), key: sae.key.clone() })
    });
    found.ok_or_else(|| {
        let known: Vec<&str> = network.sites.iter().flat_map(|site| &site.saes).map(|sae| sae.id.as_str()).collect();
        Failure::bad_input(format!("there is no application `{name}`")).hint(format!("one of {}", known.join(", ")))
    })
}

/// Shortest key whose digest nobody can find it by.
const DIGEST_MIN_BYTES: usize = 16;

fn digests(keys: &[Delivered]) -> Result<(), Failure> {
    let mut text = String::new();
    for delivered in keys {
        let key = delivered.key.expose();
        if key.len() < DIGEST_MIN_BYTES {
            return Err(Failure::bad_input("a key of less than 128 bits could be found by its digest"));
        }
        let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{} {digest}", delivered.id);
    }
    print(&text)
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

fn write(keys: &[Delivered], args: &KeyPrintArgs, out: Option<File>) -> Result<(), Failure> {
    if args.digest {
        return digests(keys);
    }
    let encoded: Vec<(String, Zeroizing<String>)> = keys
        .iter()
        .map(|delivered| (delivered.id.to_string(), Zeroizing::new(BASE64.encode(delivered.key.expose()))))
        .collect();
    if let Some(mut file) = out {
        let lines: Zeroizing<String> =
            Zeroizing::new(encoded.iter().map(|(id, key)| format!("{id} {}\n", key.as_str())).collect());
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_all())?;
        let ids: String = encoded.iter().map(|(id, _)| format!("{id}\n")).collect();
        return print(&ids);
    }
    let text = Zeroizing::new(match args.output.output {
        Output::Text => encoded.iter().map(|(id, key)| format!("{id} {}\n", key.as_str())).collect(),
        Output::Json => {
            let keys = encoded.iter().map(|(id, key)| Item { key_ID: id.clone(), key: key.as_str() }).collect();
            let text = serde_json::to_string(&Container { keys }).map_err(|e| Failure::failed(e.to_string()))?;
            text + "\n"
        }
    });
    print(&text)
}
