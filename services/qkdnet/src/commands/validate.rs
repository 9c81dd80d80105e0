//! `qkdnet validate`: every problem of every file at once.

use runner::Failure;
use topology::Diagnostics;

use super::{files, print, print_json, report};
use crate::cli::{Output, ValidateArgs};
use crate::style::{Style, tell_all};

pub fn run(args: &ValidateArgs) -> Result<(), Failure> {
    if args.expand {
        return expand(args);
    }
    let mut all: Vec<Diagnostics> = Vec::new();
    let mut bad = 0;
    for path in &args.files {
        let parsed = match files::parse(path) {
            Ok(parsed) => parsed,
            // A file that cannot be read does not hide the problems of the others.
            Err(failure) => {
                report(&failure);
                bad += 1;
                continue;
            }
        };
        let good = parsed.as_ref().ok().map(|document| good_line(&files::name(path), &document.topology));
        let diagnostics = parsed.map_or_else(|diagnostics| diagnostics, |document| document.warnings);
        match args.output.output {
            Output::Json => {}
            Output::Text => {
                tell_all(&diagnostics);
                if let Some(line) = &good {
                    print(line)?;
                }
            }
        }
        bad += usize::from(good.is_none());
        all.push(diagnostics);
    }
    if args.output.output == Output::Json {
        print_json(&all)?;
    }
    if bad == 0 { Ok(()) } else { Err(Failure::silent_bad_input()) }
}

/// The document with nothing left to look up; it plans to what the one that was read plans to.
fn expand(args: &ValidateArgs) -> Result<(), Failure> {
    let [file] = args.files.as_slice() else {
        return Err(Failure::bad_input("one topology at a time can be expanded").hint("call it once for each file"));
    };
    let topology = files::load(file)?;
    match args.output.output {
        Output::Json => print_json(&topology),
        Output::Text => print(&serde_yaml::to_string(&topology).map_err(|error| Failure::failed(error.to_string()))?),
    }
}

fn good_line(name: &str, topology: &topology::Topology) -> String {
    let style = Style::of_stdout();
    let spec = &topology.spec;
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (sites, links) = (counted(spec.sites.len(), "site"), counted(spec.links.len(), "link"));
    format!("{name}: {} ({sites}, {links})\n", style.good("ok"))
}
