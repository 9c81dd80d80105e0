//! `qkdnet down`: ends a network, and removes what a run has left with a container engine.

use runner::down::{Ended, down};
use runner::{Failure, runtime};

use super::{files, print};
use crate::cli::containers::DownArgs;
use crate::cli::default_data_dir;

pub fn run(args: &DownArgs) -> Result<(), Failure> {
    let data = match (&args.data, &args.file) {
        (Some(data), _) => data.clone(),
        (None, Some(file)) => default_data_dir(files::load(file)?.metadata.name.as_str()),
        (None, None) => return Err(Failure::bad_input("which network is not said").hint("give a FILE or `--data DIR`")),
    };
    let ended = runtime::briefly(down(&data, args.engine.map(Into::into)))??;
    print(&match ended {
        Ended { process: None, containers: 0 } => format!("no network runs on {}\n", data.display()),
        Ended { process: None, containers } => format!("removed {containers} containers that a run had left\n"),
        Ended { process: Some(process), .. } => format!("ended the network of process {process}\n"),
    })
}
