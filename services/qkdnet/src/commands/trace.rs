//! `qkdnet trace`: the way of a block through both sites, or of a key back to its photons.

use std::io::IsTerminal;
use std::path::PathBuf;

use kms::supply::KeyId;
use telemetry::render::{RenderOptions, render};
use telemetry::store::{Store, Trace};

use super::data::SPANS_DIR;
use super::{print, print_json};
use crate::cli::{Output, Place, TraceArgs};
use crate::cluster;
use crate::failure::Failure;

mod key;

pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    let traces = match args.place.place() {
        Place::Data(data) => find(args, data.join(SPANS_DIR))?,
        Place::Cluster(place) => {
            let spans = cluster::run(place, async |there| cluster::spans(there).await)?;
            find(args, spans.path().to_owned())?
        }
    };
    if traces.is_empty() {
        let failure = Failure::failed(format!("no trace of {} is kept", args.block));
        return Err(failure.hint("traces are kept here only where no OTEL_EXPORTER_OTLP_* variable sends them away"));
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
