//! What the workspace stands on: licences that its users can live with, one crypto provider, nothing abandoned.

use std::process::Command;

use crate::support::repository;

/// Any one of the alternatives of a licence expression is enough, every part of a conjunction is needed.
const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "BSL-1.0",
    "CC0-1.0",
    "MIT-0",
];

/// Crates that must not come back, and why.
const BANNED: [(&str, &str); 6] = [
    ("aws-lc-rs", "there is one crypto provider, ring"),
    ("openssl-sys", "a C library that a fresh machine lacks"),
    ("native-tls", "TLS is rustls"),
    ("serde_yaml", "archived; yaml_serde is its maintained fork"),
    ("unsafe-libyaml", "comes with the archived serde_yaml"),
    ("reqwest", "OTLP over HTTP is spoken with hyper"),
];

/// Name and licence of every crate that is compiled into the workspace.
fn packages() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}\t{l}",
        ])
        .current_dir(repository())
        .output()
        .expect("run cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        // A crate that was listed before is marked, not listed again.
        let licence = licence.trim_end_matches("(*)").trim();
        Some((package.split_whitespace().next()?.to_owned(), licence.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Whether an expression of `OR` and `AND` without nesting beyond one pair of brackets is satisfied.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn every_licence_is_one_that_is_allowed_and_no_banned_crate_is_used() {
    let mut wrong = Vec::new();
    let packages = packages();
    assert!(packages.len() > 100, "{} crates", packages.len());
    for (name, licence) in packages {
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.push(format!("{name} is banned: {why}"));
        }
        if !allowed(&licence) {
            wrong.push(format!("{name}: {licence}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn licence_expressions_are_read() {
    assert!(allowed("MIT OR GPL-3.0") && allowed("MIT/Apache-2.0") && allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0") && !allowed("none"));
}
