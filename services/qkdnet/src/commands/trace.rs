//! `qkdnet trace`: the way of a block through both sites, or of a key back to its photons.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use etsi014::supply::KeyId;
use runner::network::Network;
use runner::{Failure, SPANS_DIR};
use telemetry::render::{RenderOptions, render};
use telemetry::store::{Store, Trace};

use super::{print, print_json};
use crate::cli::{Output, Place, TraceArgs};
use crate::cluster;

mod key;

pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    let traces = match args.place.place() {
        Place::Data(data) => here(args, data)?,
        Place::Cluster(place) => {
            let spans = cluster::run(place, async |there| cluster::spans(there).await)?;
            find(args, spans.path().to_owned())?
        }
    };
    if traces.is_empty() {
        return Err(never(&args.block));
    }
    match args.output.output {
        Output::Json => {
            let spans: Vec<_> = traces.iter().flat_map(Trace::spans).collect();
            print_json(&spans)
        }
        Output::Text => {
            let mut text: Vec<String> = traces.iter().map(|trace| render(trace, options())).collect();
            if let Ok(key) = args.block.parse::<KeyId>() {
                text.insert(0, key::describe(&traces, &kms::key_id::fingerprint(&key)));
            }
            print(&text.join("\n"))
        }
    }
}

/// Services write their spans a few times a second: what has just happened in a network that runs is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

fn never(what: &str) -> Failure {
    Failure::failed(format!("no trace of {what} is kept"))
        .hint("nothing of this name was done here, or its spans are so old that newer ones took their place")
        .hint("traces are kept here only where no OTEL_EXPORTER_OTLP_* variable sends them away")
}

/// Traces of a data directory. "Not yet" differs from "never": only a network that runs may still write.
fn here(args: &TraceArgs, data: &Path) -> Result<Vec<Trace>, Failure> {
    let folder = data.join(SPANS_DIR);
    let began = SystemTime::now();
    let mut traces = find(args, folder.clone())?;
    if !traces.is_empty() || Network::read(data)?.is_none() {
        return Ok(traces);
    }
    let until = Instant::now() + PATIENCE;
    // What had happened before the question is on the disk once every service has written something that came after.
    let mut all_written = false;
    while traces.is_empty() && !all_written && Instant::now() < until {
        std::thread::sleep(LOOK);
        all_written = written_since(&folder, began, args.block.parse::<KeyId>().is_ok())?;
        traces = find(args, folder.clone())?;
    }
    if !traces.is_empty() || all_written {
        return Ok(traces);
    }
    Err(Failure::failed(format!("no trace of {} is written yet: try again", args.block))
        .hint("the services of this network write their spans within a second or two of what they do"))
}

/// Whether every service that writes spans of what is asked for has written one that ended after a moment.
fn written_since(folder: &Path, moment: SystemTime, of_key: bool) -> Result<bool, Failure> {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let cannot = |error: telemetry::store::StoreError| Failure::bad_input(error.to_string());
    // Key stores, alone or with others in one process.
    let wanted = |service: &str| !of_key || service.starts_with("kms-") || !service.contains('-');
    let latest = Store::open([folder]).and_then(|store| store.latest_of_each_file(wanted)).map_err(cannot)?;
    Ok(!latest.is_empty() && latest.iter().all(|end_ns| *end_ns > since_ns))
}

fn find(args: &TraceArgs, folder: PathBuf) -> Result<Vec<Trace>, Failure> {
    let cannot = |error: telemetry::store::StoreError| Failure::bad_input(error.to_string());
    let store = Store::open([folder]).map_err(cannot)?;
    if is_trace_id(&args.block) {
        return Ok(store.trace(&args.block).map_err(cannot)?.into_iter().collect());
    }
    if let Ok(key) = args.block.parse::<KeyId>() {
        return store.key(&kms::key_id::fingerprint(&key)).map_err(cannot);
    }
    let block: u64 = args.block.parse().map_err(|_| {
        let failure =
            Failure::bad_input(format!("\"{}\" is neither a block number, a key ID nor a trace ID", args.block));
        failure.hint("a key ID is a UUID, a trace ID has 32 hexadecimal digits")
    })?;
    store.block(block, args.link.as_deref()).map_err(cannot)
}

fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// As wide as the terminal; a pipe gets a width that people read well.
fn options() -> RenderOptions {
    let mut options = RenderOptions::default();
    if std::io::stdout().is_terminal()
        && let Ok((columns, _)) = ratatui::crossterm::terminal::size()
    {
        options.width = usize::from(columns).clamp(60, 400);
    }
    options
}
