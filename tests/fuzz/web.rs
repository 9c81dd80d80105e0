//! What an application sends to ETSI GS QKD 014: whole connections, byte for byte.

use std::sync::Arc;

use etsi014::supply::{Absence, GetKey, KeyId, KeySupply, SaeId, Status, SuppliedKey, SupplyError};
use keystore::Secret;
use serde_json::Value;

use crate::engine::Target;

/// A supply without end that knows no key by its ID.
struct Endless;

impl KeySupply for Endless {
    fn status(&self, caller: &SaeId, slave: &SaeId) -> Result<Status, SupplyError> {
        if slave.as_str().starts_with("nobody") {
            return Err(SupplyError::UnknownSae);
        }
        Ok(Status {
            source_KME_ID: "kme-a".to_owned(),
            target_KME_ID: "kme-b".to_owned(),
            master_SAE_ID: caller.to_string(),
            slave_SAE_ID: slave.to_string(),
            key_size: 256,
            stored_key_count: 7,
            max_key_count: 7,
            max_key_per_request: 128,
            max_key_size: 4096,
            min_key_size: 64,
            max_SAE_ID_count: 2,
            status_extension: None,
        })
    }

    async fn get_key(&self, request: GetKey<'_>) -> Result<Vec<SuppliedKey>, SupplyError> {
        let limits = self.limits(request.master, request.slave)?;
        assert!((1..=limits.max_key_per_request).contains(&request.number));
        assert!((limits.min_key_size_bits..=limits.max_key_size_bits).contains(&request.size_bits));
        assert!(request.size_bits.is_multiple_of(8) && request.additional.len() <= 2);
        let key = |_| SuppliedKey { id: KeyId::v4([5; 16]), key: Secret::new(vec![1; request.size_bits as usize / 8]) };
        Ok((0..request.number).map(key).collect())
    }

    async fn get_key_with_ids(&self, _: &SaeId, _: &SaeId, ids: &[KeyId]) -> Result<Vec<SuppliedKey>, SupplyError> {
        assert!((1..=1024).contains(&ids.len()));
        Err(SupplyError::NotFound { at: ids.len() - 1, why: Absence::Taken })
    }
}

/// Statuses of answers that are HTTP to the last byte, each with the JSON that clients parse.
fn statuses(mut answers: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !answers.is_empty() {
        let end = answers.windows(4).position(|part| part == b"\r\n\r\n").expect("a head without an end") + 4;
        let head = std::str::from_utf8(&answers[..end]).expect("a head that is no text");
        let status: u16 = head.strip_prefix("HTTP/1.1 ").expect("no HTTP")[..3].parse().unwrap();
        answers = &answers[end..];
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|text| text.parse().unwrap());
        statuses.push(status);
        // The answer to HEAD has a length and no body; nothing follows it that is not the next head.
        let body = match length {
            Some(length) if answers.len() >= length && !answers.starts_with(b"HTTP/1.1 ") => &answers[..length],
            _ => continue,
        };
        answers = &answers[body.len()..];
        if body.is_empty() {
            continue;
        }
        let json: Value = serde_json::from_slice(body).expect("a body that is no JSON");
        if status >= 400 {
            assert!(json["message"].as_str().is_some_and(|message| !message.is_empty()), "{status} without a message");
        }
    }
    statuses
}

#[test]
fn whatever_an_application_sends_is_answered_properly() {
    let post = |target: &str, body: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: kme\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: kme\r\n\r\n").into_bytes();
    let (enc, dec) = ("/api/v1/keys/b/enc_keys", "/api/v1/keys/b/dec_keys");
    let id = "bc490419-7d60-487f-adc1-4ddcc177c139";
    let good = vec![
        get("/api/v1/keys/SAE%20A%2F1/status"),
        get(&format!("{enc}?number=3&size=1024")),
        get(&format!("{dec}?key_ID={id}")),
        post(enc, r#"{"number":3,"size":256,"additional_slave_SAE_IDs":["c"],"extension_optional":[{"a_b":1}]}"#),
        post(enc, r#"{"extension_mandatory":[{"abc_route_type":"direct"}]}"#),
        post(dec, &format!(r#"{{"key_IDs":[{{"key_ID":"{id}","key_ID_extension":{{}}}}],"x":[null]}}"#)),
        [get("/api/v1/keys/b/status"), post(enc, "{}"), get(enc)].concat(),
        b"POST /api/v1/keys/b/enc_keys HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n".to_vec(),
        b"POST /api/v1/keys/b/enc_keys HTTP/1.1\r\nHost: k\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
        b"HEAD /api/v1/keys/b/status HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nHost: k\r\n\r\n".to_vec(),
        b"GET https://kme:1/api/v1/keys/b/status HTTP/1.0\r\n\r\n".to_vec(),
    ];
    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r\n\r\n",
        "HTTP/1.1",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Host: k\r\n",
        " : ",
        "0\r\n\r\n",
        "ffffffff\r\n",
        "%00",
        "%2e%2e",
        "%",
        "number=",
        "size=",
        "key_ID=",
        "\"number\":",
        "\"size\":",
        "\"key_IDs\":[",
        "{\"key_ID\":",
        "null",
        "1e9",
        "-1",
        "\"additional_slave_SAE_IDs\":[",
        "\\ud800",
        "nobody",
        "{",
        "]",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (supply, caller) = (Arc::new(Endless), SaeId::new("a").unwrap());
    Target { words: WORDS, ..Target::new("ETSI 014", good) }.fuzz(|input| {
        let answers = runtime.block_on(etsi014::answer(supply.clone(), caller.clone(), input));
        let statuses = statuses(&answers);
        // Nothing that is sent is a fault of the server.
        assert!(statuses.iter().all(|status| *status < 500 || *status == 505), "{statuses:?}");
        statuses.iter().take(4).map(|status| status.to_string() + " ").map(|text| words_for(&text)).collect()
    });
}

/// Digits do not count in what is told apart, so that statuses are letters.
fn words_for(status: &str) -> String {
    status.chars().map(|c| c.to_digit(10).map_or(c, |digit| char::from(b'a' + digit as u8))).collect()
}
