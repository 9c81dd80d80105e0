//! `qkdnet sae`: certificates for applications, from the authority of a topology.

use runner::{Failure, Folders};
use shell::files;
use shell::pki::{self, Authority};
use topology::plan::{APPLICATION_NAMES, is_service_name};

use super::print;
use crate::cli::SaeCommand;

pub fn run(command: &SaeCommand) -> Result<(), Failure> {
    let SaeCommand::New(args) = command;
    etsi014::supply::SaeId::new(args.name.as_str())
        .map_err(|error| Failure::bad_input(format!("`{}`: {error}", args.name)))?;
    if !args.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Failure::bad_input("the name of an application makes the names of its files")
            .hint("use letters, digits, `-`, `_` and `.`"));
    }
    if is_service_name(&args.name) {
        return Err(Failure::bad_input(format!("`{}` is the name of a service", args.name))
            .hint(format!("an application's name is {APPLICATION_NAMES}")));
    }
    let folder = Folders::of(&args.data).pki;
    let authority = Authority::load(&folder).map_err(|error| {
        Failure::bad_input(format!("{} holds no authority: {error}", folder.display()))
            .hint("run `qkdnet up FILE --data DIR` once; it makes the topology's authority")
    })?;
    let out = args.out.clone().unwrap_or_else(|| pki::applications_path(&folder));
    files::create_private_folder(&out)?;
    let issued = authority.issue_application(&args.name).map_err(|error| Failure::failed(error.to_string()))?;
    issued.save(&out).map_err(|error| Failure::failed(error.to_string()))?;
    print(&format!(
        "certificate  {}\nkey          {}\nauthority    {}\n",
        pki::certificate_path(&out, &args.name).display(),
        pki::key_path(&out, &args.name).display(),
        pki::authority_path(&folder).display()
    ))
}
