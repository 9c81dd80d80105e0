//! `qkdnet spans`: what a run's span files hold, for whoever collects them from several machines.

use std::io::{BufWriter, Write as _};

use runner::{Failure, SPANS_DIR};
use telemetry::store::Store;

use crate::cli::SpansArgs;

pub fn run(args: &SpansArgs) -> Result<(), Failure> {
    let folder = args.data.join(SPANS_DIR);
    // Before the first span there is no folder, and where a collector takes them never.
    if !folder.is_dir() {
        return Ok(());
    }
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut failed = None;
    let store = Store::open([folder]).map_err(|error| Failure::bad_input(error.to_string()))?;
    let visited = store.spans(|span| {
        if failed.is_none() {
            let written = serde_json::to_writer(&mut output, &span).map_err(std::io::Error::from);
            failed = written.and_then(|()| output.write_all(b"\n")).err();
        }
    });
    visited.map_err(|error| Failure::failed(error.to_string()))?;
    match failed.map_or_else(|| output.flush(), Err) {
        // A reader that has gone away (`| head`) is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
