//! Reading topology files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use runner::Failure;
use topology::{Diagnostics, Document};

use crate::style::tell_all;

/// More than any topology; what is longer is cut here and refused by the reader of topologies.
const READ_BYTES_MAX: u64 = 17 << 20;

/// How a file is called in what is said about it; `-` is standard input.
pub fn name(path: &Path) -> String {
    if is_standard_input(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes of a file, as far as they are worth reading.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::bad_input(format!("cannot read {}: {error}", name(path)));
    let mut bytes = Vec::new();
    let read = match is_standard_input(path) {
        true => std::io::stdin().lock().take(READ_BYTES_MAX).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(READ_BYTES_MAX).read_to_end(&mut bytes)),
    };
    read.map_err(cannot)?;
    Ok(bytes)
}

/// A good topology, or every problem of it.
pub fn parse(path: &Path) -> Result<Result<Document, Diagnostics>, Failure> {
    Ok(topology::parse(&name(path), &read(path)?))
}

/// A good topology; problems and warnings go to standard error.
pub fn load(path: &Path) -> Result<topology::Topology, Failure> {
    match parse(path)? {
        Ok(document) => {
            tell_all(&document.warnings);
            Ok(document.topology)
        }
        Err(diagnostics) => {
            tell_all(&diagnostics);
            Err(Failure::silent_bad_input())
        }
    }
}
