//! Memory of the services as processes of their own: resident pages as the kernel counts them, the program's own
//! pages, which all of them share, included.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::row;

const MODULE_MB: f64 = 150.0;
const IDLE_MB: f64 = 10.0;
/// Share by which a process may be larger at the end than early in a run and still be called flat.
const GROWTH: f64 = 0.05;
/// Share of a run after which everything has been in use once, and the share that is looked at there and at the end.
const EARLY: f64 = 0.05;
const SAMPLED_EVERY: Duration = Duration::from_millis(200);
/// Time in which a service that waits has come to rest.
const REST: Duration = Duration::from_secs(3);

/// Memory of one service over a run.
#[derive(Default)]
struct Service {
    name: String,
    pid: u32,
    /// How far the run had come, as a share, and what was resident.
    samples: Vec<(f64, f64)>,
}

impl Service {
    fn largest_mb(&self) -> f64 {
        self.samples.iter().map(|sample| sample.1).fold(0.0, f64::max)
    }

    /// Buffers come and go: the median of a part of the run.
    fn typical_mb(&self, part: std::ops::Range<f64>) -> Option<f64> {
        let mut within: Vec<f64> = self.samples.iter().filter(|(at, _)| part.contains(at)).map(|s| s.1).collect();
        within.sort_by(f64::total_cmp);
        within.get(within.len() / 2).copied()
    }
}

/// Runs the link as processes at full rate, for `QKDNET_BENCH_SIMULATED_S` seconds (600), then one channel alone.
pub fn memory(file: &Path) {
    let simulated_s: f64 =
        std::env::var("QKDNET_BENCH_SIMULATED_S").ok().and_then(|text| text.parse().ok()).unwrap_or(600.0);
    let data = std::env::temp_dir().join(format!("qkdnet-bench-{}-memory", std::process::id()));
    let services = run(file, &data, simulated_s);
    for service in &services {
        let bar = if service.name.starts_with("channel") { None } else { Some(MODULE_MB) };
        let (what, mb) = (format!("memory of {}, largest", service.name), service.largest_mb());
        row(&what, format!("{mb:.1} MB"), &bar.map_or(String::new(), |bar| verdict(mb, bar)));
    }
    for service in &services {
        let parts = [EARLY..2.0 * EARLY, 0.5..0.5 + EARLY, 1.0 - EARLY..1.0];
        let [Some(early), Some(middle), Some(last)] = parts.map(|part| service.typical_mb(part)) else { continue };
        let what = format!("{}: after 5 %, 50 %, 95 % of {simulated_s:.0} s", service.name);
        let verdict = if last <= early * (1.0 + GROWTH) { "met" } else { "MISSED" };
        row(
            &what,
            format!("{early:.0}, {middle:.0}, {last:.0} MB"),
            &format!("flat to {:.0} %: {verdict}", 100.0 * GROWTH),
        );
    }
    for config in configs(&data, "channel") {
        let mb = idle(&config);
        let name = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        row(&format!("memory of {name}, idle"), format!("{mb:.1} MB"), &verdict(mb, IDLE_MB));
    }
    let _ = std::fs::remove_dir_all(data);
}

fn verdict(mb: f64, bar_mb: f64) -> String {
    format!("< {bar_mb:.0} MB: {}", if mb < bar_mb { "met" } else { "MISSED" })
}

/// Watches the children of a run until it ends.
fn run(file: &Path, data: &Path, simulated_s: f64) -> Vec<Service> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_qkdnet"))
        .env("QKDNET_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
        .arg("up")
        .arg(file)
        .args([
            "--for",
            &format!("{simulated_s}s"),
            "--seed",
            "1",
            "--output",
            "json",
            "--isolation",
            "process",
            "--data",
        ])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run qkdnet");
    let reached_ms = Arc::new(AtomicU64::new(0));
    let told = reached_ms.clone();
    let output = BufReader::new(child.stdout.take().expect("standard output"));
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(time_s) = line["simulated_s"].as_f64() {
                told.fetch_max((time_s * 1e3) as u64, Ordering::Relaxed);
            }
        }
    });
    let mut services: Vec<Service> = Vec::new();
    while child.try_wait().expect("ask for the end").is_none() {
        let reached_s = reached_ms.load(Ordering::Relaxed) as f64 * 1e-3;
        for (pid, name) in children(child.id()) {
            let Some(mb) = resident_mb(pid) else { continue };
            let at = services.iter().position(|service| service.pid == pid).unwrap_or_else(|| {
                services.push(Service { name, pid, ..Service::default() });
                services.len() - 1
            });
            services[at].samples.push((reached_s / simulated_s, mb));
        }
        std::thread::sleep(SAMPLED_EVERY);
    }
    reader.join().expect("read what it says");
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Process and name of every service that `parent` has started.
fn children(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    let name = |pid: u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let config = line.split('\0').find(|word| word.ends_with(".yaml"))?;
        Some((pid, Path::new(config).file_stem()?.to_string_lossy().into_owned()))
    };
    found.into_iter().filter_map(name).collect()
}

fn resident_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The configuration files of services of one kind that a run has left.
fn configs(data: &Path, kind: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data.join(".qkdnet/run")).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(kind) && name.ends_with(".yaml")
    };
    let mut found: Vec<PathBuf> = folder.map(|entry| entry.path()).filter(is_one).collect();
    found.sort();
    found
}

/// Key stores and relays that have nothing to do: the largest of each kind.
pub fn idle_rows<'a>(services: impl Iterator<Item = (&'a str, u32)>) -> anyhow::Result<()> {
    let mut largest: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, pid) in services {
        let kind = name.split('-').next().unwrap_or(name);
        let mb = resident_mb(pid).with_context(|| format!("{name} has ended"))?;
        let known = largest.entry(kind).or_default();
        *known = known.max(mb);
    }
    for (kind, mb) in largest {
        row(&format!("memory of a {kind}, idle"), format!("{mb:.1} MB"), &verdict(mb, IDLE_MB));
    }
    Ok(())
}

/// A service alone, with nobody to talk to.
fn idle(config: &Path) -> f64 {
    let address = config.with_extension("addr");
    let _ = std::fs::remove_file(&address);
    let mut child = Stopped(
        Command::new(env!("CARGO_BIN_EXE_qkdnet"))
            .args(["channel", "--config"])
            .arg(config)
            .stderr(Stdio::null())
            .spawn()
            .expect("start a channel"),
    );
    let started = Instant::now();
    while !address.exists() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(SAMPLED_EVERY);
    }
    std::thread::sleep(REST);
    assert!(child.0.try_wait().expect("ask for the end").is_none(), "the channel has ended");
    resident_mb(child.0.id()).expect("a process that runs")
}

/// Ends what was started, whatever happens.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
