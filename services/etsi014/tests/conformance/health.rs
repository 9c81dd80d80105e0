//! The listener for probes and scrapers.

use std::sync::{Arc, Mutex};

use etsi014::health::{self, Health, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::PATIENCE;

#[derive(Default)]
struct Reasons(Mutex<Vec<String>>);

impl Probe for Reasons {
    fn health(&self) -> Health {
        Health { reasons: self.0.lock().unwrap().clone() }
    }

    fn metrics(&self) -> String {
        "kms_keys 7\n".to_owned()
    }

    fn ledger(&self) -> serde_json::Value {
        serde_json::json!([{"peer": "b"}])
    }
}

async fn ask(running: &health::Running, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn health_and_metrics_are_all_that_is_served_without_tls() {
    let (probe, stop) = (Arc::<Reasons>::default(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = health::start(listener, probe.clone(), stop.clone()).unwrap();
    let healthy = ask(&running, "GET", "/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 ") && healthy.ends_with("\r\n\r\n{\"reasons\":[]}"), "{healthy}");
    probe.0.lock().unwrap().push("the store is closed".to_owned());
    let unhealthy = ask(&running, "GET", "/healthz").await;
    assert!(unhealthy.starts_with("HTTP/1.1 503 ") && unhealthy.ends_with("{\"reasons\":[\"the store is closed\"]}"));
    let metrics = ask(&running, "GET", "/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4") && metrics.ends_with("\r\n\r\nkms_keys 7\n"));
    assert!(ask(&running, "GET", "/ledger").await.ends_with("\r\n\r\n[{\"peer\":\"b\"}]"));
    assert!(ask(&running, "POST", "/healthz").await.starts_with("HTTP/1.1 405 "));
    for path in ["/", "/api/v1/keys/sae-b/status", "/api/v1/keys/sae-b/enc_keys", "/metrics/"] {
        assert!(ask(&running, "GET", path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    stop.cancel();
    tokio::time::timeout(PATIENCE, running.finished()).await.unwrap();
}
