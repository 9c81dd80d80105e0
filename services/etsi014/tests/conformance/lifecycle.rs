//! Limits of time and number, and the end.

use std::time::{Duration, Instant};

use etsi014::{Limits, Route};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::support::{PATIENCE, Site, site, site_with};

const ENC: &str = "/api/v1/keys/sae-b/enc_keys";
const SHORT: Duration = Duration::from_millis(200);

/// Waits until this many requests for keys have reached the supply.
async fn asked(site: &Site, count: usize) {
    let arrived = async {
        while site.supply.state.lock().unwrap().asked < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("never asked");
}

/// Closes the gate of the supply.
fn shut(site: &Site) {
    site.supply.gate.forget_permits(usize::MAX);
}

#[tokio::test]
async fn a_slow_head_is_408_and_closed() {
    let site = site_with(Limits { head: SHORT, ..Limits::default() }).await;
    let mut a = site.connect("sae-a").await;
    let started = Instant::now();
    a.send("GET / HTT").await.unwrap();
    assert_eq!(a.response().await.status, 408);
    assert!(a.closed().await);
    assert!(started.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_head_that_trickles_has_no_more_time_than_one_that_stops() {
    let site = site_with(Limits { head: SHORT, ..Limits::default() }).await;
    let mut a = site.connect("sae-a").await;
    // A byte now and then must not move the deadline; the loop ends when the server has closed.
    let trickle = async {
        a.send("GET / HTTP/1.1\r\n").await.unwrap();
        while a.send("x: y\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.expect("never closed");
    assert!(site.server.counts().requests(Route::Other, 408) + site.server.counts().requests(Route::Other, 431) > 0);
}

#[tokio::test]
async fn a_slow_body_is_408_and_closed() {
    let site = site_with(Limits { body: SHORT, ..Limits::default() }).await;
    for lines in ["Content-Length: 9\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n9\r\n{"] {
        let mut a = site.connect("sae-a").await;
        a.send(format!("POST {ENC} HTTP/1.1\r\nHost: k\r\n{lines}")).await.unwrap();
        assert_eq!(a.response().await.status, 408);
        assert!(a.closed().await);
    }
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let site = site_with(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut fresh = site.connect("sae-a").await;
    let mut used = site.connect("sae-a").await;
    assert_eq!(used.ask("GET", ENC, "").await.status, 200);
    assert!(fresh.closed().await);
    assert!(used.closed().await);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let site = site_with(Limits { handshake: SHORT, ..Limits::default() }).await;
    let mut silent = TcpStream::connect(site.server.address()).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("still open");
    assert_eq!(read.unwrap_or(0), 0);
    assert_eq!(site.server.counts().refused_timed_out, 1);
}

#[tokio::test]
async fn silent_connections_hold_nobody_up() {
    let site = site().await;
    let mut silent = vec![];
    for _ in 0..20 {
        silent.push(TcpStream::connect(site.server.address()).await.unwrap());
    }
    assert_eq!(site.ask("GET", ENC, "").await.status, 200);
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_others_follow_when_one_ends() {
    let site = site_with(Limits { connections: 2, ..Limits::default() }).await;
    let (mut first, mut second) = (site.connect("sae-a").await, site.connect("sae-a").await);
    assert_eq!([first.ask("GET", ENC, "").await.status, second.ask("GET", ENC, "").await.status], [200, 200]);
    // In TLS 1.3 the client is through before the server has counted it; what it reads next is the end.
    let mut third = site.connect("sae-a").await;
    let _ = third.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await;
    assert!(third.closed().await);
    assert_eq!(site.server.counts().refused_overload, 1);
    drop(first);
    let admitted = async {
        loop {
            let config = super::support::config(&site.pki, Some(&site.pki.sae("sae-a")), &rustls::version::TLS13);
            let Ok(mut raw) = site.dial(config).await else { continue };
            if raw.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await.is_ok() && !raw.closed().await {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.expect("a connection that ended makes room");
}

#[tokio::test]
async fn one_sae_with_all_the_connections_it_may_have_keeps_no_other_out() {
    let site = site_with(Limits { connections_per_sae: 2, ..Limits::default() }).await;
    let (mut first, mut second) = (site.connect("sae-a").await, site.connect("sae-a").await);
    assert_eq!([first.ask("GET", ENC, "").await.status, second.ask("GET", ENC, "").await.status], [200, 200]);
    // In TLS 1.3 the client is through before the server has counted it; what it reads next is the end.
    let mut third = site.connect("sae-a").await;
    let _ = third.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await;
    assert!(third.closed().await);
    assert_eq!(site.server.counts().refused_overload, 1);
    assert_eq!(site.connect("sae-b").await.ask("GET", ENC, "").await.status, 200);
    drop(second);
    let again = async {
        loop {
            let mut raw = site.connect("sae-a").await;
            if raw.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await.is_ok() && !raw.closed().await {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a connection that ended makes room");
}

#[tokio::test]
async fn a_supply_that_does_not_answer_is_a_503() {
    let site = site_with(Limits { answer: SHORT, ..Limits::default() }).await;
    shut(&site);
    let mut a = site.connect("sae-a").await;
    let response = a.ask("GET", ENC, "").await;
    assert_eq!((response.status, response.message().as_str()), (503, "key data access error"));
    assert_eq!(a.ask("GET", "/api/v1/keys/sae-b/status", "").await.status, 200, "the connection serves on");
}

#[tokio::test]
async fn a_stop_answers_requests_in_work_and_closes_idle_connections() {
    let site = site().await;
    let (mut busy, mut idle) = (site.connect("sae-a").await, site.connect("sae-a").await);
    assert_eq!(idle.ask("GET", ENC, "").await.status, 200);
    shut(&site);
    busy.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await.unwrap();
    asked(&site, 2).await;
    site.stop.cancel();
    assert!(idle.closed().await);
    assert!(!site_is_open(&site).await, "takes connections after its end");
    site.supply.gate.add_permits(1);
    let response = busy.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(busy.closed().await);
    tokio::time::timeout(PATIENCE, site.server.finished()).await.unwrap();
}

async fn site_is_open(site: &Site) -> bool {
    let refused = async {
        // The listener is dropped soon after the stop; until then a connection may still be taken, and is cut.
        while TcpStream::connect(site.server.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.is_err()
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let site = site_with(Limits { drain: SHORT, ..Limits::default() }).await;
    shut(&site);
    let mut busy = site.connect("sae-a").await;
    busy.send(format!("GET {ENC} HTTP/1.1\r\nHost: k\r\n\r\n")).await.unwrap();
    asked(&site, 1).await;
    let started = Instant::now();
    site.stop.cancel();
    tokio::time::timeout(PATIENCE, site.server.finished()).await.unwrap();
    assert!(started.elapsed() >= SHORT);
    assert!(busy.closed().await);
}
