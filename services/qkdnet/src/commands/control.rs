//! Asking one service something: whether it does its job, or to take a fresh secret.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use proto::channel::v1::RefillRequest;
use proto::channel::v1::reserve_client::ReserveClient;
use runner::{Failure, runtime};
use shell::launch::ServiceFile;
use shell::{Connector, Endpoint};
use telemetry::TelemetryConfig;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use topology::plan::CONTROL_IDENTITY;
use zeroize::Zeroizing;

use super::print;
use crate::cli::{HealthArgs, RekeyArgs};

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A connection to the service of a configuration file, as whoever controls the network.
fn connector(path: &Path) -> anyhow::Result<Connector> {
    let file = ServiceFile::<serde_yaml::Value>::load(path)?;
    // That of a detector or a transmitter is its module's.
    let of_module = || file.service.get("module")?.get("name");
    let Some(name) = file.service.get("name").or_else(of_module).and_then(|name| name.as_str()) else {
        bail!("{} names no service", path.display())
    };
    let endpoint = Endpoint::in_run_dir(&file.run_dir, name);
    Ok(Connector::new(&endpoint, name, &file.credentials(CONTROL_IDENTITY)?).deadline(DEADLINE))
}

pub fn health(args: &HealthArgs) -> Result<(), Failure> {
    let serving = match (&args.url, &args.config) {
        (Some(url), _) => http_health(url)?,
        (None, Some(config)) => grpc_health(args, config)?,
        (None, None) => return Err(Failure::bad_input("whom to ask is not said").hint("give `--config` or `--url`")),
    };
    print(if serving { "serving\n" } else { "not serving\n" })?;
    if serving { Ok(()) } else { Err(Failure::failed("")) }
}

/// Whether a port that serves health over plain HTTP says so.
fn http_health(url: &http::Uri) -> Result<bool, Failure> {
    let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else {
        return Err(Failure::bad_input(format!("`{url}` is not http://HOST:PORT/PATH")));
    };
    let address = (host.trim_matches(['[', ']']).to_owned(), url.port_u16().unwrap_or(80));
    let answer = runtime::briefly(async {
        let ask = async {
            let stream = TcpStream::connect(address).await.context("connect")?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let path = url.path_and_query().map_or("/", |path| path.as_str());
            let request = http::Request::get(path).header(http::header::HOST, host);
            let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
            anyhow::Ok(answer.status().is_success())
        };
        tokio::time::timeout(DEADLINE, ask).await.context("no answer in time")?
    })?;
    Ok(answer.with_context(|| format!("ask {url}"))?)
}

fn grpc_health(args: &HealthArgs, config: &Path) -> Result<bool, Failure> {
    let connector = connector(config).map_err(|error| Failure::bad_input(shell::chain(&error).to_string()))?;
    Ok(runtime::block_on(&TelemetryConfig::new("qkdnet"), async {
        let mut client = HealthClient::new(connector.connect().await?);
        let answer = client.check(HealthCheckRequest { service: args.service.clone() }).await?.into_inner();
        Ok(answer.status() == ServingStatus::Serving)
    })?)
}

pub fn rekey(args: &RekeyArgs) -> Result<(), Failure> {
    let connector = connector(&args.config).map_err(|error| Failure::bad_input(shell::chain(&error).to_string()))?;
    let secret = std::fs::read(&args.secret)
        .map_err(|error| Failure::bad_input(format!("cannot read {}: {error}", args.secret.display())))?;
    let secret = Zeroizing::new(secret);
    let tags = runtime::block_on(&TelemetryConfig::new("qkdnet"), async {
        let mut client = ReserveClient::new(connector.connect().await?);
        let request = RefillRequest { secret: bytes::Bytes::copy_from_slice(&secret), generation: 0 };
        let answer = client.refill(request).await.context("refill the reserve")?;
        Ok(answer.into_inner().reserve_tags)
    })?;
    print(&format!("the reserve holds {tags} tags\n"))
}
