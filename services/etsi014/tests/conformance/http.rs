//! Paths, methods, sizes.

use etsi014::{Limits, Route};

use super::support::{site, site_with};

const STATUS: &str = "/api/v1/keys/sae-b/status";
const ENC: &str = "/api/v1/keys/sae-b/enc_keys";

#[tokio::test]
async fn unknown_paths_are_404_with_json() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for path in [
        "/",
        "/api",
        "/api/v1/keys",
        "/api/v1/keys/sae-b",
        "/api/v2/keys/sae-b/status",
        "/healthz",
        "/api/v1/keys/sae-b/status/",
        "/api/v1/keys/sae-b/x/status",
        "//api/v1/keys/sae-b/status",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let response = a.ask(method, path, "").await;
            assert_eq!(response.status, 404, "{method} {path}");
            assert!(!response.message().is_empty());
        }
    }
}

#[tokio::test]
async fn wrong_methods_are_405_with_json_and_the_right_ones() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for (method, target, allow) in [
        ("POST", STATUS, "GET, HEAD, OPTIONS"),
        ("DELETE", STATUS, "GET, HEAD, OPTIONS"),
        ("PUT", ENC, "GET, POST, OPTIONS"),
        ("BREW", ENC, "GET, POST, OPTIONS"),
        ("get", ENC, "GET, POST, OPTIONS"),
    ] {
        let response = a.ask(method, target, "").await;
        assert_eq!((response.status, response.header("allow")), (405, Some(allow)), "{method} {target}");
        assert!(!response.message().is_empty());
    }
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn head_shows_a_status_without_its_body_and_takes_no_key() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let length = a.ask("GET", STATUS, "").await.header("content-length").unwrap().to_owned();
    let head = a.ask("HEAD", STATUS, "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
    assert_eq!(a.ask("HEAD", ENC, "").await.status, 405);
    assert_eq!(site.supply.state.lock().unwrap().asked, 0);
    assert_eq!(a.ask("GET", STATUS, "").await.status, 200, "the connection is still in step");
}

#[tokio::test]
async fn options_says_what_is_allowed() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for (target, allow) in [(STATUS, "GET, HEAD, OPTIONS"), (ENC, "GET, POST, OPTIONS")] {
        let response = a.ask("OPTIONS", target, "").await;
        assert_eq!((response.status, response.header("allow")), (204, Some(allow)));
        assert_eq!(response.header("content-length"), None);
    }
    assert_eq!(a.ask("GET", STATUS, "").await.status, 200, "the connection is still in step");
}

#[tokio::test]
async fn names_in_paths_are_decoded_once() {
    let site = site().await;
    let response = site.ask("GET", "/api/v1/keys/SAE%20A%2F1%20%c3%a9/status", "").await;
    assert_eq!(response.json()["slave_SAE_ID"], "SAE A/1 é");
    let twice = site.ask("GET", "/api/v1/keys/sae%252Db/status", "").await;
    assert_eq!(twice.status, 400, "decoded twice, it would be a name that is known");
    let own = site.connect("SAE A/1 é").await.ask("GET", STATUS, "").await;
    assert_eq!(own.json()["master_SAE_ID"], "SAE A/1 é");
}

#[tokio::test]
async fn names_that_cannot_be_decoded_are_400() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for name in ["%", "%4", "%zz", "sae-b%", "%ff", "%00", "", "%2e", ".."] {
        let response = a.ask("GET", &format!("/api/v1/keys/{name}/status"), "").await;
        assert_eq!(response.status, 400, "{name}");
        assert!(!response.message().is_empty());
    }
    assert_eq!(a.ask("GET", &format!("/api/v1/keys/{}/status", "x".repeat(65)), "").await.status, 400);
}

#[tokio::test]
async fn a_target_may_come_in_a_proxys_form() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    assert_eq!(a.ask("GET", &format!("https://kme-a:1{STATUS}"), "").await.status, 200);
    for target in ["ftp://kme-a/", "kme-a", "*"] {
        assert_eq!(a.ask("GET", target, "").await.status, 400, "{target}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_without_being_read() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    a.send(format!("POST {ENC} HTTP/1.1\r\nHost: k\r\nContent-Length: 104857600\r\n\r\n{{")).await.unwrap();
    let response = a.response().await;
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    assert!(!response.message().is_empty());
    let chunk = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent < 100 && a.send(&chunk).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 100, "the server read it all");
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_read() {
    let site = site().await;
    let body = |length: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(length - 8));
    assert_eq!(site.ask("POST", ENC, &body(64 << 10)).await.status, 200);
    assert_eq!(site.ask("POST", ENC, &body((64 << 10) + 1)).await.status, 413);
}

#[tokio::test]
async fn chunks_above_the_limit_are_413_as_well() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    a.send(format!("POST {ENC} HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n")).await.unwrap();
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    for _ in 0..5 {
        a.send(&chunk).await.unwrap();
    }
    assert_eq!(a.response().await.status, 413);
    assert!(a.closed().await);
}

#[tokio::test]
async fn heads_above_the_limit_are_refused() {
    let site = site_with(Limits { head_bytes: 4 << 10, ..Limits::default() }).await;
    let long = "x".repeat(5 << 10);
    let many = (0..65).map(|n| format!("x{n}: y\r\n")).collect::<String>();
    for (head, status) in [
        (format!("GET {STATUS} HTTP/1.1\r\nHost: k\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET {STATUS} HTTP/1.1\r\nHost: k\r\nX: {long}"), 431),
        (format!("GET {STATUS} HTTP/1.1\r\nHost: k\r\n{many}\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: k\r\n\r\n"), 414),
        (format!("GET /{long}"), 414),
    ] {
        let mut a = site.connect("sae-a").await;
        a.send(&head).await.unwrap();
        let response = a.response().await;
        assert_eq!((response.status, response.header("connection")), (status, Some("close")));
        assert!(!response.message().is_empty());
        assert!(a.closed().await);
    }
    assert_eq!(site.server.counts().requests(Route::Other, 431), 3);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let head = format!("POST {ENC} HTTP/1.1\r\nHost: k\r\nExpect: 100-continue\r\nContent-Length: ");
    a.send(format!("{head}2\r\n\r\n")).await.unwrap();
    assert_eq!(a.response().await.status, 100);
    a.send("{}").await.unwrap();
    assert_eq!(a.response().await.status, 200);
    a.send(format!("{head}99999999\r\n\r\n")).await.unwrap();
    assert_eq!(a.response().await.status, 413, "not asked for what is not wanted");
    let mut a = site.connect("sae-a").await;
    a.send(format!("POST {ENC} HTTP/1.1\r\nHost: k\r\nExpect: miracles\r\n\r\n")).await.unwrap();
    assert_eq!(a.response().await.status, 417);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for (method, target) in [("GET", STATUS), ("GET", ENC), ("GET", ENC), ("PUT", ENC), ("GET", "/nothing")] {
        a.ask(method, target, "").await;
    }
    let counts = site.server.counts();
    let count = |route, status| counts.requests(route, status);
    assert_eq!([count(Route::Status, 200), count(Route::EncKeys, 200), count(Route::EncKeys, 405)], [1, 2, 1]);
    assert_eq!([count(Route::Other, 404), counts.keys, counts.handshakes_full], [1, 2, 1]);
    assert_eq!(counts.requests.iter().map(|count| count.count).sum::<u64>(), 5);
}
