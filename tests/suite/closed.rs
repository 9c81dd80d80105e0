//! The memory of a process that may hold key is closed to its own user.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::keys::{Network, eventually};
use crate::secrecy::processes;
use crate::support::{Place, bright, repository, success};

/// Somebody without rights; root reads everything.
const NOBODY: u32 = 65534;

/// Runs a command without rights where the tests have them.
fn without_rights(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

/// What tells of a process's memory.
const FILES: [&str; 3] = ["maps", "mem", "environ"];

/// Whether another process of the same user can open what `/proc` has of this one.
fn readable(pid: u32, file: &str) -> bool {
    let mut command = Command::new("dd");
    command.arg(format!("if=/proc/{pid}/{file}")).args(["of=/dev/null", "count=0"]).stderr(Stdio::null());
    without_rights(&mut command).status().expect("run dd").success()
}

fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("read the limits of a process");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit of core files");
    line.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ")
}

/// Whether the process has locked memory, and its log says that it has not.
fn locked_and_log(place: &Place, name: &str, pid: u32) -> (bool, bool) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of a process");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("what is locked");
    let log = place.path("data/.qkdnet/logs").join(format!("{name}.log"));
    let log = fs::read_to_string(log).expect("read the log of a service");
    (locked.trim() != "0 kB", log.contains("memory is not locked"))
}

/// The command line program and the services of a network, which has key.
fn with_network(rights: bool, variable: Option<&str>, check: impl Fn(&Place, &str, u32)) {
    let place = Place::new(&bright(&[]));
    if !rights && rustix::process::geteuid().is_root() {
        for path in [place.path("."), place.topology()] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("give the folder away");
        }
    }
    let network = Network::start_with(&place, "process", |command| {
        let command = if rights { command } else { without_rights(command) };
        command.env("HOME", place.path(".")).env_remove("QKDNET_INSPECT");
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        command.envs(variable.map(|value| ("QKDNET_INSPECT", value)));
    });
    let ready = || network.status().filter(|status| status["ready"] == true);
    eventually("the network is ready", ready).expect("a network that is ready");
    let services = processes(&fs::canonicalize(place.path("data/.qkdnet/run")).expect("the folder of configurations"));
    for kind in ["source-", "detector-", "channel-", "kms-"] {
        assert!(services.iter().any(|(name, _)| name.starts_with(kind)), "{services:?}");
    }
    for (name, pid) in services.iter().map(|(name, pid)| (name.as_str(), *pid)).chain([("up", network.id())]) {
        check(&place, name, pid);
    }
    network.stop();
}

#[test]
fn no_process_of_a_network_can_be_read_by_its_own_user_or_leaves_a_core_file() {
    // What is not closed is read in the same way.
    let mut open = without_rights(Command::new("sleep").arg("600")).spawn().expect("run sleep");
    let control = FILES.map(|file| readable(open.id(), file));
    open.kill().and_then(|()| open.wait()).expect("end sleep");
    assert_eq!(control, [true; 3]);
    with_network(false, None, |_, name, pid| {
        for file in FILES {
            assert!(!readable(pid, file), "/proc/{pid}/{file} of {name} can be read");
        }
        assert_eq!(core_limit(pid), "0 0", "{name}");
    });
}

#[test]
fn a_service_has_its_memory_locked_or_its_log_says_why_not() {
    for rights in [false, true] {
        with_network(rights, None, |place, name, pid| {
            if name != "up" {
                let (locked, said) = locked_and_log(place, name, pid);
                assert_ne!(locked, said, "{name} with rights {rights}: locked {locked}, said {said}");
            }
        });
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_build_for_tests_can_be_looked_into_where_it_is_told_so() {
    with_network(false, Some("1"), |_, name, pid| {
        assert_eq!(FILES.map(|file| readable(pid, file)), [true; 3], "{name}");
    });
}

/// What the switch does in a build with these options.
fn switched(folder: &Path, debug_assertions: bool, value: &str) -> bool {
    let program = folder.join(format!("inspect-{debug_assertions}"));
    if !program.exists() {
        let source = folder.join("main.rs");
        fs::write(&source, "mod inspect;\nfn main() { std::process::exit(i32::from(inspect::allowed())) }\n")
            .expect("write a program");
        let module = repository().join("services/runner/src/guard/inspect.rs");
        let module = fs::canonicalize(module).expect("the switch");
        let _ = symlink(module, folder.join("inspect.rs"));
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "-C"]).arg(format!("debug-assertions={debug_assertions}"));
        rustc.arg("-o").arg(&program).arg(source).current_dir(repository());
        success(rustc);
    }
    Command::new(program).env("QKDNET_INSPECT", value).status().expect("run it").code() == Some(1)
}

#[test]
fn a_build_that_is_shipped_cannot_be_looked_into_whatever_it_is_told() {
    let folder = tempfile::tempdir().expect("make a folder");
    let told = |debug_assertions| ["", "0", "1"].map(|value| switched(folder.path(), debug_assertions, value));
    assert_eq!(told(true), [false, false, true]);
    assert_eq!(told(false), [false; 3]);
    let profiles = fs::read_to_string(repository().join("Cargo.toml")).expect("read the workspace");
    let lines = |text: &str| profiles.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    // A profile for users that builds on the one for tests turns them off; none turns them on.
    let off = lines("debug-assertions");
    assert!(off.iter().all(|line| *line == "debug-assertions = false"), "{off:?}: does it ship?");
    assert_eq!(off.len(), lines("inherits = \"dev\"").len(), "a profile that builds on dev has its debug assertions");
}
