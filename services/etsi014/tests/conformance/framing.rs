//! What two HTTP parsers could frame differently is refused, and nothing after it is read.

use super::support::{Raw, Site, site};

const TARGET: &str = "/api/v1/keys/sae-b/enc_keys";

/// Sends a POST with these header lines and this body, and behind it what would be a second request.
async fn post(site: &Site, lines: &str, body: &str) -> Raw {
    let mut a = site.connect("sae-a").await;
    let next = format!("GET {TARGET} HTTP/1.1\r\nHost: k\r\n\r\n");
    a.send(format!("POST {TARGET} HTTP/1.1\r\nHost: k\r\n{lines}\r\n\r\n{body}{next}")).await.unwrap();
    a
}

async fn refused(site: &Site, lines: &str, body: &str) {
    let mut a = post(site, lines, body).await;
    let response = a.response().await;
    assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{lines:?} {body:?}");
    assert!(!response.message().is_empty());
    assert!(a.closed().await, "{lines:?} {body:?}: more than one answer");
    assert_eq!(site.supply.state.lock().unwrap().asked, 0, "{lines:?} {body:?}: reached the supply");
}

#[tokio::test]
async fn a_length_beside_chunks_is_refused_in_either_order() {
    let site = site().await;
    refused(&site, "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n").await;
    refused(&site, "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n").await;
    refused(&site, "Transfer-Encoding: chunked\r\ncontent-length: 0", "0\r\n\r\n").await;
}

#[tokio::test]
async fn two_lengths_are_refused_even_if_they_agree() {
    let site = site().await;
    for lines in
        ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2, 2"]
    {
        refused(&site, lines, "{}").await;
    }
}

#[tokio::test]
async fn a_length_is_made_of_digits() {
    let site = site().await;
    for length in ["+2", "-2", "0x2", "2 2", "2.0", "", "two", "\u{b2}"] {
        refused(&site, &format!("Content-Length: {length}"), "{}").await;
    }
}

#[tokio::test]
async fn other_codings_than_chunked_are_refused() {
    let site = site().await;
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "identity", "", "\"chunked\"", "chunked;a"]
    {
        refused(&site, &format!("Transfer-Encoding: {coding}"), "0\r\n\r\n").await;
    }
    refused(&site, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n").await;
    refused(&site, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n").await;
}

#[tokio::test]
async fn folded_lines_and_stray_white_space_are_refused() {
    let site = site().await;
    for lines in [
        "X: a\r\n b",
        "X: a\r\n\tb",
        " X: a",
        "Content-Length : 2",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "X",
        ": a",
        "X: a\0b",
        "X: a\rb",
        "X\u{e9}: a",
    ] {
        refused(&site, lines, "").await;
    }
}

#[tokio::test]
async fn line_feeds_alone_end_no_line() {
    let site = site().await;
    refused(&site, "X: a\nContent-Length: 5", "").await;
    let mut a = site.connect("sae-a").await;
    a.send(format!("GET {TARGET} HTTP/1.1\nHost: k\n\n")).await.unwrap();
    assert_eq!(a.response().await.status, 400);
    assert!(a.closed().await);
}

#[tokio::test]
async fn nonsense_in_place_of_chunks_is_refused() {
    let site = site().await;
    for body in [
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "g\r\n{}\r\n0\r\n\r\n",
        "\r\n\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2;a\nb\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}",
        "2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    ] {
        refused(&site, "Transfer-Encoding: chunked", body).await;
    }
    refused(&site, "Transfer-Encoding: chunked", &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(500))).await;
}

#[tokio::test]
async fn chunks_are_put_together_and_the_next_request_follows() {
    let site = site().await;
    for body in ["0\r\n\r\n", "2\r\n{}\r\n0\r\n\r\n", "1\r\n{\r\nA;ext=1\r\n\"number\":3\r\n01\r\n}\r\n00\r\n\r\n"] {
        let mut a = post(&site, "transfer-encoding: Chunked", body).await;
        let keys = a.response().await.json()["keys"].as_array().unwrap().len();
        assert_eq!(keys, if body.contains("number") { 3 } else { 1 });
        assert_eq!(a.response().await.status, 200);
    }
}

#[tokio::test]
async fn chunks_may_arrive_byte_by_byte() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let text = format!(
        "POST {TARGET} HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nC\r\n{{\"number\":2}}\r\n0\r\n\r\n"
    );
    for byte in text.as_bytes() {
        a.send([*byte]).await.unwrap();
    }
    assert_eq!(a.response().await.json()["keys"].as_array().unwrap().len(), 2);
    assert_eq!(a.ask("GET", TARGET, "").await.status, 200);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let post = |number| {
        let body = format!("{{\"number\":{number}}}");
        format!("POST {TARGET} HTTP/1.1\r\nHost: k\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    a.send((1..=9).map(post).collect::<String>()).await.unwrap();
    for number in 1..=9 {
        assert_eq!(a.response().await.json()["keys"].as_array().unwrap().len(), number);
    }
}

#[tokio::test]
async fn the_version_is_1_1_or_the_connection_ends() {
    let site = site().await;
    for line in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "http/1.1", ""] {
        let mut a = site.connect("sae-a").await;
        a.send(format!("GET {TARGET} {line}\r\nHost: k\r\n\r\n")).await.unwrap();
        let status = a.response().await.status;
        assert!(matches!(status, 505 | 400), "{line}: {status}");
        assert!(a.closed().await);
    }
    let mut a = site.connect("sae-a").await;
    a.send(format!("GET {TARGET} HTTP/1.0\r\n\r\n")).await.unwrap();
    let response = a.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(a.closed().await);
}

#[tokio::test]
async fn a_host_is_named_once() {
    let site = site().await;
    refused(&site, "Host: other", "").await;
    let mut a = site.connect("sae-a").await;
    a.send(format!("GET {TARGET} HTTP/1.1\r\n\r\n")).await.unwrap();
    assert_eq!(a.response().await.status, 400);
}

#[tokio::test]
async fn a_client_that_closes_gets_its_answer_first() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    a.send(format!("GET {TARGET} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n")).await.unwrap();
    let response = a.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(a.closed().await);
}
