//! What will never work is told as such, and a command that cannot work takes nothing.

use std::process::Output;

use serde_json::Value;

use crate::keys::{Network, eventually};
use crate::support::{Place, bright, qkdnet, success};

/// The bright link, and another one that nothing joins with it.
fn in_two_parts() -> String {
    let text = bright(&[(
        "  links:\n",
        "    - {name: carros, saes: [foundry]}\n    - {name: drap, saes: [archive]}\n  links:\n",
    )]);
    let (head, link) = text.split_at(text.find("    - name: valrose-sophia").expect("a link"));
    let other = link
        .replace("name: valrose-sophia", "name: carros-drap")
        .replace("site: valrose", "site: carros")
        .replace("site: sophia", "site: drap");
    format!("{head}{link}{other}")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn sites_without_a_path_are_told_so_by_every_command() {
    let place = Place::new(&in_two_parts());
    let mut validate = qkdnet();
    validate.arg("validate").arg(place.topology());
    let warned = said(&success(validate));
    assert!(warned.contains("warning: the network is in two parts"), "{warned}");
    assert!(warned.contains("\"valrose\", \"sophia\"; \"carros\", \"drap\""), "{warned}");
    let network = Network::start(&place, "tasks");
    network.get("university", "inria", "1");
    let status = network.status().expect("a network that runs");
    assert!(status["no_path"][0].as_str().is_some_and(|text| text.contains("in two parts")), "{status}");
    for asked in [&["--to", "foundry"][..], &["--to", "inria", "--also", "foundry"]] {
        let refused = network.key(&[&["get", "--sae", "university"], asked].concat()).output().expect("run qkdnet");
        let words = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{words}");
        assert!(
            words.contains("answered 400: no path of the QKD network leads") && words.contains("foundry"),
            "{words}"
        );
    }
    let mut command = qkdnet();
    command.args(["key", "status", "--data"]).arg(place.path("data")).args(["--sae", "university", "--to", "foundry"]);
    let status: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
    assert_eq!((&status["stored_key_count"], &status["status_extension"]["path"]), (&0.into(), &"none".into()));
    // What is only short at present says what was asked for, and when to ask again.
    let short = network.key(&["get", "--sae", "university", "--to", "inria", "--number", "128", "--size", "8192"]);
    let short = { short }.output().expect("run qkdnet");
    if !short.status.success() {
        let words = said(&short);
        assert!(words.contains("answered 503") && words.contains(&format!("asked_bits {}", 128 * 8192)), "{words}");
    }
    network.stop();
}

#[test]
fn a_batch_of_which_one_key_is_gone_says_which_and_takes_none() {
    let place = Place::new(&bright(&[]));
    let network = Network::start(&place, "tasks");
    let got = network.get("university", "inria", "3");
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    assert!(network.fetch("inria", "university", &ids[1..2]).status.success());
    let refused = network.fetch("inria", "university", &ids);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains(ids[1]) && words.contains("taken or expired"), "{words}");
    assert!(!words.contains(ids[0]) && !words.contains(ids[2]), "{words}");
    let unknown = "00000000-0000-4000-8000-000000000000";
    let words = said(&network.fetch("inria", "university", &[ids[0], unknown]));
    assert!(words.contains(unknown) && words.contains("unknown"), "{words}");
    assert!(network.fetch("inria", "university", &[ids[0], ids[2]]).status.success(), "a refused batch took keys");
    network.stop();
}

#[test]
fn a_key_command_that_cannot_work_takes_no_key() {
    let management = "  keyManagement: {keySize: 64 bit}\n  sites:\n";
    let place = Place::new(&bright(&[("  sites:\n", management)]));
    let network = Network::start(&place, "tasks");
    eventually("keys are stored", || (network.stored("university", "inria") > 1000).then_some(())).expect("keys");
    let data = place.path("data");
    let full = place.path("full");
    std::fs::write(&full, "something\n").expect("write a file");
    let absent = place.path("absent/keys");
    let ask = |words: &[&str]| {
        let mut command = qkdnet();
        command.arg("key").arg(words[0]).arg("--data").arg(&data).args(&words[1..]);
        command.output().expect("run qkdnet")
    };
    let get = ["get", "--sae", "university", "--to", "inria"];
    for (options, code) in [
        (&["--size", "64", "--digest"][..], 2),
        (&["--digest"], 2),
        (&["--out", full.to_str().expect("a path")], 2),
        (&["--out", absent.to_str().expect("a path")], 2),
        (&["--out", data.to_str().expect("a path")], 2),
        (&["--also", ".."], 2),
        (&["--also", "nobody"], 1),
        (&["--number", "0"], 1),
        (&["--number", "129"], 1),
        (&["--size", "65"], 1),
        (&["--size", "8200"], 1),
    ] {
        let refused = ask(&[&get, options].concat());
        assert_eq!(refused.status.code(), Some(code), "{options:?}: {}", said(&refused));
    }
    for (master, slave, code) in [("nobody", "inria", 2), ("university", "nobody", 1), ("university", "..", 2)] {
        let refused = ask(&["get", "--sae", master, "--to", slave]);
        assert_eq!(refused.status.code(), Some(code), "{master} {slave}: {}", said(&refused));
    }
    assert_eq!(std::fs::read_to_string(&full).expect("read the file"), "something\n");
    // What works takes what it says, and a file that was made for keys holds just them.
    let kept = place.path("kept");
    let taken = ask(&[&get[..], &["--size", "256", "--out", kept.to_str().expect("a path")]].concat());
    assert!(taken.status.success(), "{}", said(&taken));
    let line = std::fs::read_to_string(&kept).expect("read the keys");
    assert_eq!((line.lines().count(), line.len()), (1, 36 + 1 + 44 + 1));
    // Nor does a fetch that cannot be written.
    let id = line.split(' ').next().expect("an ID");
    let fetch = ["fetch", "--sae", "inria", "--from", "university", id];
    for options in [&["--out", full.to_str().expect("a path")][..], &["not-an-id"]] {
        let refused = ask(&[&fetch, options].concat());
        assert_eq!(refused.status.code(), Some(2), "{options:?}: {}", said(&refused));
    }
    assert!(ask(&[&fetch[..], &["--digest"]].concat()).status.success());
    network.stop();
    let mut ledger = qkdnet();
    ledger.args(["ledger", "--output", "json", "--data"]).arg(&data);
    let ledger: Value = serde_json::from_slice(&success(ledger).stdout).expect("JSON");
    let pool = |site: &str| {
        let pools = ledger["pools"].as_array().expect("pools");
        pools.iter().find(|pool| pool["site"] == site).expect("the pool of the site").clone()
    };
    assert_eq!(pool("valrose")["supply_out"]["handed_out_bits"], 256, "{ledger}");
    assert_eq!(pool("sophia")["supply_in"]["handed_out_bits"], 256, "{ledger}");
}
