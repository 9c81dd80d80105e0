//! `qkdnet key`: an application (SAE) for people and scripts, over ETSI GS QKD 014.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use etsi014::client::{Client, ClientError, NewKeys};
use etsi014::supply::{KeyId, SaeId};
use operator::material::keys;
use runner::{Failure, runtime};
use subtle::ConstantTimeEq as _;
use telemetry::TelemetryConfig;
use zeroize::Zeroizing;

use self::output::Sink;
use super::{print, status};
use crate::cli::{KeyAccessArgs, KeyCommand, KeyFetchArgs};
use crate::cluster;

mod output;

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
            let additional =
                args.also.iter().map(|name| sae(name).map(|sae| sae.to_string())).collect::<Result<Vec<_>, _>>()?;
            let request = NewKeys {
                number: args.number,
                size_bits: args.size,
                additional_slaves: additional,
                ..NewKeys::default()
            };
            let sink = Sink::prepare(&args.print, args.number.unwrap_or(1) as usize, args.size)?;
            let unsaid = sink.asks_for_size() && args.size.is_none();
            let keys = ask(&args.access, async |client| {
                if unsaid {
                    let size_bits = client.status(&slave).await?.key_size_bits;
                    if let Err(refused) = output::check_digest(size_bits.into()) {
                        return Ok(Err(refused));
                    }
                }
                client.get_keys(&slave, &request).await.map(Ok)
            })??;
            sink.write(&keys)
        }
        KeyCommand::Fetch(args) => {
            let master = sae(&args.from)?;
            if let Some(file) = &args.check {
                return check(args, &master, file);
            }
            let id = |text: &String| {
                text.parse::<KeyId>().map_err(|error| Failure::bad_input(format!("`{text}` is no key ID: {error}")))
            };
            let ids = args.ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
            let sink = Sink::prepare(&args.print, ids.len(), None)?;
            let keys = ask(&args.access, async |client| client.get_keys_with_ids(&master, &ids).await)?;
            sink.write(&keys)
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

fn ask<T>(args: &KeyAccessArgs, request: impl AsyncFnOnce(&Client) -> Result<T, ClientError>) -> Result<T, Failure> {
    if args.cluster.topology.is_some() {
        return ask_on_cluster(args, request);
    }
    let Access { url, ca, cert, key } = resolve(args)?;
    let client = Client::builder(url, ca, cert, key).build().map_err(|error| Failure::bad_input(error.to_string()))?;
    let answer = runtime::block_on(&TelemetryConfig::new("qkdnet"), async { Ok(request(&client).await) })?;
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
