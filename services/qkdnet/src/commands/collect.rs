//! `qkdnet collect`: a small OpenTelemetry collector, for networks whose services do not share a disk.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use etsi014::health::{self, Health, Probe};
use runner::SPANS_DIR;
use runner::{Failure, runtime};
use shell::{Shutdown, files};
use telemetry::TelemetryConfig;
use telemetry::receive::Collector;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use crate::cli::CollectArgs;

/// Size of one span file; the full ones that are kept beside it make four times as much.
const FILE_LIMIT_BYTES: u64 = 128 << 20;
const DRAIN: Duration = Duration::from_secs(5);
/// Calls at once on one connection; an exporter makes one.
const CALLS_PER_CONNECTION: usize = 16;

pub fn run(args: &CollectArgs, log: Option<&str>) -> Result<(), Failure> {
    let mut telemetry = TelemetryConfig::new("collector");
    if let Some(log) = log {
        telemetry.log_filter = log.to_owned();
    }
    Ok(runtime::block_on(&telemetry, serve(args))?)
}

async fn serve(args: &CollectArgs) -> Result<()> {
    let folder = args.data.join(SPANS_DIR);
    files::create_private_folder(&folder).with_context(|| format!("create {}", folder.display()))?;
    let collector =
        Collector::create(&folder, FILE_LIMIT_BYTES).with_context(|| format!("write into {}", folder.display()))?;
    let shutdown = Shutdown::on_signals(DRAIN).context("listen for signals")?;
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("listen on {address}"));
    let health = bind(args.metrics_listen).await?;
    let health = health::start(health, Arc::new(Told(collector.clone())), shutdown.token()).context("serve metrics")?;
    let listener = bind(args.listen).await?;
    let otlp = listener.local_addr().context("find the own address")?;
    tracing::info!(%otlp, metrics = %health.address(), spans = %folder.display(), "collecting");
    let server = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .add_service(collector.traces())
        .add_service(collector.metrics())
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.token().cancelled_owned());
    // An exporter that keeps its connection does not keep this process.
    if let Ok(served) = shutdown.run(server).await {
        served.context("serve OTLP")?;
    }
    shutdown.request();
    health.finished().await;
    Ok(())
}

struct Told(Collector);

impl Probe for Told {
    fn health(&self) -> Health {
        Health::default()
    }

    fn metrics(&self) -> String {
        self.0.exposition()
    }
}
