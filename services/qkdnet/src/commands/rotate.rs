//! `qkdnet rotate`: a new master key for the key store of a site.

use keystore::Settings;
use runner::Failure;

use super::print;
use crate::cli::RotateArgs;

pub fn run(args: &RotateArgs) -> Result<(), Failure> {
    let path = kms::master::path(&args.data, &args.site);
    if !path.is_file() {
        return Err(Failure::bad_input(format!("there is no key store of `{}`: no {}", args.site, path.display()))
            .hint("give a site with a key store, and the directory that `qkdnet up --data` wrote to"));
    }
    let folder = keystore::folder(&args.data, &args.site);
    kms::master::rotate(&folder, &Settings::default()).map_err(|error| {
        let failure =
            Failure::failed(format!("the master key of {} is as it was: {}", args.site, shell::chain(&error)));
        failure.hint("stop the network, change the key, and start the network again with the same --data")
    })?;
    print(&format!("{} is new; the one before opens nothing any more\n", path.display()))
}
