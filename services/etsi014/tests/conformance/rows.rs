//! Rows of the standard that belong to no other module, and the table of all rows against the tests that there are.

use std::collections::BTreeSet;

use base64::Engine as _;
use etsi014::message;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::delivery::{container, ids_of};
use super::support::{config, site};

const STATUS: &str = "/api/v1/keys/sae-b/status";
const ENC: &str = "/api/v1/keys/sae-b/enc_keys";
const DEC: &str = "/api/v1/keys/sae-a/dec_keys";

#[tokio::test]
async fn a_kme_proves_its_name_and_no_other() {
    let site = site().await;
    let identity = site.pki.sae("sae-a");
    for (name, right) in [("kme-a", true), ("kme-b", false), ("10.0.0.1", false)] {
        let stream = TcpStream::connect(site.server.address()).await.unwrap();
        let config = config(&site.pki, Some(&identity), &TLS13);
        let connected = TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await;
        assert_eq!(connected.is_ok(), right, "{name}");
    }
}

#[tokio::test]
async fn every_count_of_a_status_fits_32_bits() {
    let site = site().await;
    let status = site.ask("GET", STATUS, "").await.json();
    for (name, value) in status.as_object().unwrap() {
        match name.ends_with("_ID") {
            true => assert!(value.is_string(), "{name}"),
            false => assert!(u32::try_from(value.as_u64().unwrap()).is_ok(), "{name}"),
        }
    }
}

#[tokio::test]
async fn a_get_asks_for_number_and_size_alone() {
    let site = site().await;
    let mandatory = site.ask("GET", &format!("{ENC}?extension_mandatory=x"), "").await;
    assert_eq!((mandatory.status, mandatory.message().as_str()), (400, message::EXTENSION_MANDATORY));
    assert_eq!(site.ask("GET", &format!("{ENC}?additional_slave_SAE_IDs=sae-c"), "").await.status, 400);
    assert_eq!(site.ask("GET", &format!("{ENC}?number=1&number=2"), "").await.status, 400);
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn text_that_is_no_utf_8_is_refused() {
    let site = site().await;
    for (target, body) in
        [(ENC, &b"{\"number\":1,\"x\":\"\xff\"}"[..]), (DEC, &b"{\"key_IDs\":[{\"key_ID\":\"\xc3\x28\"}]}"[..])]
    {
        let mut a = site.connect("sae-a").await;
        let head = format!("POST {target} HTTP/1.1\r\nHost: k\r\nContent-Length: {}\r\n\r\n", body.len());
        a.send([head.as_bytes(), body].concat()).await.unwrap();
        let response = a.response().await;
        assert_eq!(response.status, 400);
        assert!(!response.message().is_empty());
    }
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn keys_are_padded_base64_of_the_standard_alphabet() {
    let site = site().await;
    for size in [64, 256, 1000] {
        let body = site.ask("GET", &format!("{ENC}?number=64&size={size}"), "").await.json();
        for key in body["keys"].as_array().unwrap() {
            let text = key["key"].as_str().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            assert_eq!((bytes.len(), text.len() % 4), (size / 8, 0));
        }
    }
}

#[tokio::test]
async fn ids_are_random_uuids_that_have_nothing_to_do_with_the_key() {
    let site = site().await;
    let keys = container(&site.ask("GET", &format!("{ENC}?number=128"), "").await.json());
    let ids: BTreeSet<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), keys.len());
    for (id, key) in &keys {
        assert_eq!((id.as_bytes()[14], id.len()), (b'4', 36));
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = id.replace('-', "");
        // Ten digits in common by chance: once in 10^9 keys.
        assert!((0..plain.len() - 10).all(|at| !digits.contains(&plain[at..at + 10])), "{id}");
    }
}

#[tokio::test]
async fn a_fetch_that_was_refused_in_any_way_loses_no_key() {
    let site = site().await;
    let keys = container(&site.ask("GET", &format!("{ENC}?number=2"), "").await.json());
    let good = ids_of(&keys);
    let mut b = site.connect("sae-b").await;
    for (status, target, body) in [
        (400, DEC, good.replace("key_IDs", "key_ids")),
        (400, DEC, good.replace(&keys[1].0, "no-uuid")),
        (400, DEC, good.replace(&keys[1].0, &keys[0].0)),
        (400, DEC, good.replace(&keys[1].0, "bc490419-7d60-487f-adc1-4ddcc177c139")),
        (400, "/api/v1/keys/sae-c/dec_keys", good.clone()),
        (400, "/api/v1/keys/nobody/dec_keys", good.clone()),
        (404, "/api/v1/keys/sae-a/dec_key", good.clone()),
    ] {
        let refused = b.ask("POST", target, &body).await;
        assert_eq!(refused.status, status, "{target} {body}");
        assert!(!refused.message().is_empty());
    }
    assert_eq!(site.connect("sae-c").await.ask("POST", DEC, &good).await.status, 401);
    assert_eq!(b.ask("DELETE", DEC, &good).await.status, 405);
    assert_eq!(container(&b.ask("POST", DEC, &good).await.json()), keys);
}

#[tokio::test]
async fn a_trace_of_the_client_is_not_taken_up_and_not_sent_back() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let lines = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\nbaggage: key=secret");
    a.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n{lines}\r\n\r\n")).await.unwrap();
    let response = a.response().await;
    assert_eq!(response.status, 200);
    let names: BTreeSet<&str> = response.headers.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["cache-control", "content-length", "content-type", "date"]));
}

#[tokio::test]
async fn every_refusal_is_json_with_a_message() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for (method, target, body, status) in [
        ("GET", "/", "", 404),
        ("GET", "/api/v1/keys/sae-b/x", "", 404),
        ("PUT", ENC, "{}", 405),
        ("POST", STATUS, "", 405),
        ("POST", ENC, "{", 400),
        ("POST", DEC, "{}", 400),
        ("GET", "/api/v1/keys/nobody/status", "", 400),
    ] {
        let response = a.ask(method, target, body).await;
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let members: Vec<String> = response.json().as_object().unwrap().keys().cloned().collect();
        assert!(members.iter().all(|name| name == "message" || name == "details"), "{members:?}");
        assert!(!response.message().is_empty());
        assert!(response.json().get("details").is_none_or(Value::is_array));
    }
}

/// The table at the top of this crate names tests that there are.
#[test]
fn every_row_of_the_table_has_its_tests() {
    const SOURCES: [&str; 14] = [
        include_str!("clients.rs"),
        include_str!("delivery.rs"),
        include_str!("flood.rs"),
        include_str!("framing.rs"),
        include_str!("http.rs"),
        include_str!("identity.rs"),
        include_str!("lifecycle.rs"),
        include_str!("random.rs"),
        include_str!("requests.rs"),
        include_str!("rows.rs"),
        include_str!("telemetry.rs"),
        include_str!("../../src/request_tests.rs"),
        include_str!("../../../../tests/suite/lasting.rs"),
        include_str!("../../../../tests/suite/limits.rs"),
    ];
    let rows: Vec<&str> = include_str!("main.rs").lines().filter(|line| line.starts_with("//! |")).skip(2).collect();
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in rows {
        let tests = row.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            let found = SOURCES.iter().any(|source| source.contains(&format!("fn {name}(")));
            assert!(found, "there is no test `{name}`: {row}");
        }
    }
}
