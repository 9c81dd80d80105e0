//! No key told: delivered key is looked for in everything that a network leaves behind, and in its memory.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::keys::{Key, Network, eventually, keys};
use crate::support::{Place, bright_network_with_small_transfers, bright_with};

/// Parts of delivered keys in every form in which they might be told.
pub struct Needles {
    search: AhoCorasick,
    /// What each pattern of the search is.
    what: Vec<String>,
}

impl Needles {
    pub fn of(all: &[Key]) -> Self {
        let (mut patterns, mut what) = (Vec::new(), Vec::new());
        for (number, (_, text)) in all.iter().enumerate() {
            let key = STANDARD.decode(text).expect("base64");
            assert!(key.len() >= 32, "a key of {} bytes", key.len());
            // Half of a key is told as much as all of it.
            for (part, bytes) in [("start", &key[..16]), ("end", &key[key.len() - 16..])] {
                for (form, told) in forms(bytes) {
                    patterns.push(told);
                    what.push(format!("{form} of the {part} of key {number}"));
                }
            }
        }
        Self { search: AhoCorasick::new(patterns).expect("a search"), what }
    }

    /// What of the keys is in `hay`.
    pub fn found(&self, hay: &[u8]) -> Vec<String> {
        let found = self.search.find_overlapping_iter(hay);
        found.map(|found| format!("{} at byte {}", self.what[found.pattern()], found.start())).collect()
    }
}

/// Bytes as they may be told, with the name of the form.
fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    let mut forms = vec![
        ("raw bytes", bytes.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("hex in capitals", hex.to_uppercase().into_bytes()),
        ("list of numbers", list.trim_matches(['[', ']']).to_owned().into_bytes()),
    ];
    // Inside of a longer text a key may begin at any of three places of a group. With or without padding.
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(bytes);
        let (skip, keep) = ((8 * shift).div_ceil(6), (8 * (shift + bytes.len())) / 6);
        for (form, engine) in [("base64", STANDARD_NO_PAD), ("base64url", URL_SAFE_NO_PAD)] {
            forms.push((form, engine.encode(&shifted).as_bytes()[skip..keep].to_vec()));
        }
    }
    forms
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("read a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { all.push(path) }
        }
    }
    all.sort();
    all
}

fn get(url: &str, path: &str) -> Vec<u8> {
    let address = url.strip_prefix("http://").expect("a plain address");
    let mut stream = TcpStream::connect(address).expect("connect to the metrics");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n").expect("ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    answer
}

/// The processes that serve a configuration of this network, by the name of their service.
pub fn processes(run: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("read /proc") {
        let Some(pid) = entry.expect("an entry").file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        if let Some(config) = words.iter().find(|word| Path::new(word).starts_with(run)) {
            let name = Path::new(config).file_stem().expect("a name").to_string_lossy().into_owned();
            found.push((name, pid));
        }
    }
    found.sort();
    found
}

/// What a core of the process would hold: its writable memory. `None` where this user may not read it.
fn memory(pid: u32) -> Option<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("an address"));
        memory.seek(SeekFrom::Start(start)).expect("seek");
        let mut part = vec![0; usize::try_from(end - start).expect("a size")];
        // Pages that are not there cannot be read.
        if memory.read_exact(&mut part).is_ok() {
            all.extend_from_slice(&part);
        }
    }
    Some(all)
}

/// Gets keys at one end and fetches them at the other.
fn deliver(network: &Network<'_>, master: &str, slave: &str) -> Vec<Key> {
    let got = network.get(master, slave, "4");
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    let fetched = network.fetch(slave, master, &ids);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == got, "the two ends got different keys");
    got
}

/// The same for keys of two slaves.
fn share(network: &Network<'_>, master: &str, slaves: [&str; 2]) -> Vec<Key> {
    let words = ["get", "--sae", master, "--to", slaves[0], "--also", slaves[1], "--number", "2"];
    let shared = eventually("keys of three", || {
        let output = network.key(&words).output().expect("run qkdnet");
        output.status.success().then(|| keys(&output.stdout))
    });
    let shared = shared.expect("keys of three");
    let ids: Vec<&str> = shared.iter().map(|(id, _)| id.as_str()).collect();
    for slave in slaves {
        assert!(network.fetch(slave, master, &ids).status.success(), "{slave}");
    }
    shared
}

/// What a running network says of the keys on the ports that tell figures.
fn told_in_figures(network: &Network<'_>, needles: &Needles) -> Vec<String> {
    let mut told = Vec::new();
    let status = network.status().expect("a network that runs");
    for site in status["sites"].as_array().expect("sites") {
        let url = site["metrics_url"].as_str().expect("a URL");
        for path in ["/metrics", "/healthz", "/ledger"] {
            told.extend(needles.found(&get(url, path)).into_iter().map(|what| format!("{url}{path}: {what}")));
        }
    }
    told
}

/// The memory of every service, which should hold no delivered key once it was fetched.
fn told_in_memory(run: &Path, needles: &Needles, made: Made) -> Vec<String> {
    let mut told = Vec::new();
    let running = processes(&fs::canonicalize(run).expect("the folder of configurations"));
    let relay = (made == Made::AtAnOrigin).then_some("relay-");
    for kind in ["source-", "detector-", "channel-", "kms-"].into_iter().chain(relay) {
        assert!(running.iter().any(|(name, _)| name.starts_with(kind)), "{running:?}");
    }
    for (service, pid) in &running {
        // Readers of memory need the right to it.
        let Some(memory) = memory(*pid) else {
            eprintln!("SKIPPED: THIS USER MAY NOT READ THE MEMORY OF {service}");
            continue;
        };
        assert!(memory.len() > 1 << 20, "{service}: {} bytes of memory", memory.len());
        told.extend(needles.found(&memory).into_iter().map(|what| format!("memory of {service}: {what}")));
    }
    told
}

/// What it leaves behind on the disk.
fn told_in_files(place: &Place, needles: &Needles) -> Vec<String> {
    let mut told = Vec::new();
    let data = place.path("data");
    for path in files(&data).into_iter().chain([place.path("up.log")]) {
        let found = needles.found(&fs::read(&path).expect("read a file"));
        told.extend(found.into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    let log = fs::read_to_string(data.join(".qkdnet/logs/kms-valrose.log")).expect("the log of a key store");
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the logs are not at their most talkative");
    let spans = files(&data.join("_spans")).len();
    assert!(spans > 5, "{spans} files of spans");
    told
}

/// Where delivered key comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    FromBlocks,
    AtAnOrigin,
}

fn assert_not_told(
    place: &Place,
    args: &[&str],
    log: &str,
    made: Made,
    delivered: impl FnOnce(&Network<'_>) -> Vec<Key>,
) {
    let network = Network::start_with(place, "process", |command| {
        let errors = fs::File::create(place.path("up.log")).expect("make a log");
        // A build for tests lets itself be searched; what is shipped does not (`closed.rs`).
        command.args(args).env("QKDNET_LOG", log).env("QKDNET_INSPECT", "1").stderr(errors);
    });
    let needles = Needles::of(&delivered(&network));
    let mut told = told_in_figures(&network, &needles);
    told.extend(told_in_memory(&place.path("data").join(".qkdnet/run"), &needles, made));
    network.stop();
    told.extend(told_in_files(place, &needles));
    assert!(told.is_empty(), "{} times delivered key was told:\n{}", told.len(), told[..told.len().min(40)].join("\n"));
}

/// On one link, at the most talkative level. Paced, because logs at this level are long.
#[test]
fn delivered_key_is_in_no_log_span_metric_file_or_memory_of_the_network() {
    let place = Place::new(&bright_with("", ", hospital"));
    assert_not_told(&place, &["--speed", "1"], "trace", Made::FromBlocks, |network| {
        let mut all = deliver(network, "university", "inria");
        all.extend(deliver(network, "inria", "hospital"));
        all.extend(share(network, "university", ["inria", "hospital"]));
        all
    });
}

#[test]
fn relayed_key_is_not_told_on_its_way_either() {
    let log = "debug,h2=info,kms=trace,relay=trace,transfer=trace,keystore=trace,shell=trace,tonic=trace";
    let place = Place::new(&bright_network_with_small_transfers());
    assert_not_told(&place, &[], log, Made::AtAnOrigin, |network| {
        let mut all = deliver(network, "observatory", "inria");
        all.extend(share(network, "university", ["inria", "observatory"]));
        all
    });
}

#[test]
fn the_search_finds_a_key_in_every_form() {
    let key: Vec<u8> = (0..32).map(|n| 7 * n + 3).collect();
    let text = STANDARD.encode(&key);
    let needles = Needles::of(&[("id".to_owned(), text.clone())]);
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let inside = |shift: usize| {
        let long = [vec![9; shift], key.clone(), vec![5; 7]].concat();
        STANDARD.encode(long).into_bytes()
    };
    for hay in [
        key.clone(),
        text.into_bytes(),
        URL_SAFE_NO_PAD.encode(&key).into_bytes(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        format!("{key:?}").into_bytes(),
        key[16..].to_vec(),
        inside(1),
        inside(2),
    ] {
        let around = [b"some".as_slice(), &hay, b"more than that"].concat();
        assert!(!needles.found(&around).is_empty(), "not found: {}", String::from_utf8_lossy(&hay));
    }
    assert!(needles.found(&[0x55; 1000]).is_empty());
}
