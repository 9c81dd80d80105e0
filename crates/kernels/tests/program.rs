//! A program that gives its own pages back. Alone in its process, so that no other test maps them meanwhile.
#![cfg(target_os = "linux")]

/// What is resident of files, the program's among them.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().expect("a size")
}

#[test]
fn a_program_runs_on_with_fewer_pages_after_it_has_given_them_back() {
    let text: String = (0..1000).map(|n| format!("{n:x}")).collect();
    let before = resident_kib();
    kernels::program::release_pages().expect("give them back");
    let after = resident_kib();
    assert!(after < before, "{after} KiB after {before}");
    assert_eq!((0..1000).map(|n| format!("{n:x}")).collect::<String>(), text);
}
