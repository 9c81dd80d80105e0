//! Keys from one KME to master and slave.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use etsi014::message;
use etsi014::supply::{Absence, KeyId, SupplyError};
use serde_json::{Value, json};

use super::support::site;

const ENC_B: &str = "/api/v1/keys/sae-b/enc_keys";
const DEC_A: &str = "/api/v1/keys/sae-a/dec_keys";

/// IDs and keys of a container that is exactly as the standard says.
pub fn container(body: &Value) -> Vec<(String, Vec<u8>)> {
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let read = |item: &Value| {
        assert_eq!(item.as_object().unwrap().len(), 2, "{item}");
        let id = item["key_ID"].as_str().unwrap();
        assert_eq!(id.parse::<KeyId>().unwrap().to_string(), id);
        (id.to_owned(), BASE64.decode(item["key"].as_str().unwrap()).unwrap())
    };
    body["keys"].as_array().unwrap().iter().map(read).collect()
}

pub fn ids_of(keys: &[(String, Vec<u8>)]) -> String {
    let ids: Vec<_> = keys.iter().map(|(id, _)| json!({"key_ID": id})).collect();
    json!({"key_IDs": ids}).to_string()
}

#[tokio::test]
async fn status_has_exactly_the_members_of_the_standard() {
    let site = site().await;
    let response = site.ask("GET", "/api/v1/keys/sae-b/status", "").await;
    let expected = json!({
        "source_KME_ID": "kme-a", "target_KME_ID": "kme-b", "master_SAE_ID": "sae-a", "slave_SAE_ID": "sae-b",
        "key_size": 256, "stored_key_count": 4096, "max_key_count": 1_000_000, "max_key_per_request": 128,
        "max_key_size": 4096, "min_key_size": 64, "max_SAE_ID_count": 2,
    });
    assert_eq!((response.status, response.json()), (200, expected));
    site.stopped().await;
}

#[tokio::test]
async fn master_and_slave_get_equal_keys_by_get_and_by_post() {
    let site = site().await;
    let (mut a, mut b) = (site.connect("sae-a").await, site.connect("sae-b").await);
    for (method, query, body) in [
        ("GET", "", ""),
        ("GET", "?number=3&size=1024", ""),
        ("POST", "", ""),
        ("POST", "", r#"{"number":3,"size":64}"#),
    ] {
        let response = a.ask(method, &format!("{ENC_B}{query}"), body).await;
        assert_eq!(response.status, 200);
        let keys = container(&response.json());
        let (first, rest) = keys.split_first().unwrap();
        let response = b.ask("GET", &format!("{DEC_A}?key_ID={}", first.0), "").await;
        assert_eq!(container(&response.json()), std::slice::from_ref(first));
        if !rest.is_empty() {
            assert_eq!(container(&b.ask("POST", DEC_A, &ids_of(rest)).await.json()), rest);
        }
    }
    assert!(site.supply.state.lock().unwrap().waiting.is_empty());
}

#[tokio::test]
async fn defaults_are_one_key_of_the_kmes_size() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for (method, body) in [("GET", ""), ("POST", ""), ("POST", "{}"), ("POST", r#"{"number":null,"size":null}"#)] {
        let keys = container(&a.ask(method, ENC_B, body).await.json());
        assert_eq!(keys.iter().map(|(_, key)| key.len()).collect::<Vec<_>>(), [32], "{method} {body}");
    }
}

#[tokio::test]
async fn a_key_can_be_fetched_once() {
    let site = site().await;
    let keys = container(&site.ask("GET", ENC_B, "").await.json());
    let mut b = site.connect("sae-b").await;
    assert_eq!(b.ask("POST", DEC_A, &ids_of(&keys)).await.status, 200);
    let again = b.ask("POST", DEC_A, &ids_of(&keys)).await;
    assert_eq!((again.status, again.message().as_str()), (400, message::KEYS_NOT_FOUND));
}

#[tokio::test]
async fn one_missing_key_keeps_all_the_others_in_the_pool() {
    let site = site().await;
    let mut keys = container(&site.ask("GET", &format!("{ENC_B}?number=2"), "").await.json());
    let known = keys.clone();
    keys.push(("ffffffff-ffff-4fff-bfff-ffffffffffff".to_owned(), vec![]));
    let mut b = site.connect("sae-b").await;
    let refused = b.ask("POST", DEC_A, &ids_of(&keys)).await;
    assert_eq!((refused.status, refused.message().as_str()), (400, message::KEYS_NOT_FOUND));
    assert_eq!(refused.json()["details"], json!([{"key_ID": keys[2].0, "reason": "unknown"}]));
    assert_eq!(container(&b.ask("POST", DEC_A, &ids_of(&known)).await.json()), known);
}

#[tokio::test]
async fn a_key_id_counts_in_any_case_of_its_letters() {
    let site = site().await;
    let keys = container(&site.ask("GET", ENC_B, "").await.json());
    let target = format!("{DEC_A}?key_ID={}", keys[0].0.to_uppercase());
    assert_eq!(container(&site.connect("sae-b").await.ask("GET", &target, "").await.json()), keys);
}

#[tokio::test]
async fn who_is_no_slave_of_a_key_gets_401_and_takes_nothing() {
    let site = site().await;
    let keys = container(&site.ask("GET", ENC_B, "").await.json());
    let refused = site.connect("sae-c").await.ask("POST", DEC_A, &ids_of(&keys)).await;
    assert_eq!(refused.status, 401);
    assert!(!refused.message().is_empty());
    assert_eq!(site.connect("sae-b").await.ask("POST", DEC_A, &ids_of(&keys)).await.status, 200);
}

#[tokio::test]
async fn a_multicast_key_reaches_every_slave_once() {
    let site = site().await;
    let body = r#"{"additional_slave_SAE_IDs":["sae-c"]}"#;
    let keys = container(&site.ask("POST", ENC_B, body).await.json());
    for slave in ["sae-b", "sae-c"] {
        let mut slave = site.connect(slave).await;
        assert_eq!(container(&slave.ask("POST", DEC_A, &ids_of(&keys)).await.json()), keys);
        assert_eq!(slave.ask("POST", DEC_A, &ids_of(&keys)).await.status, 400);
    }
}

#[tokio::test]
async fn multicast_is_refused_where_there_is_none() {
    let site = site().await;
    site.supply.state.lock().unwrap().max_sae_id_count = 0;
    let mut a = site.connect("sae-a").await;
    let response = a.ask("POST", ENC_B, r#"{"additional_slave_SAE_IDs":["sae-c"]}"#).await;
    assert_eq!((response.status, site.supply.state.lock().unwrap().asked), (400, 0));
    for body in [r#"{"additional_slave_SAE_IDs":[]}"#, r#"{"additional_slave_SAE_IDs":null}"#] {
        assert_eq!(a.ask("POST", ENC_B, body).await.status, 200);
    }
}

#[tokio::test]
async fn an_empty_pool_says_what_there_is_and_when_to_come_again() {
    let site = site().await;
    site.supply.state.lock().unwrap().available_bits = 300;
    let response = site.ask("GET", &format!("{ENC_B}?number=2"), "").await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("7")));
    assert_eq!(response.json()["details"], json!([{"asked_bits": 512, "available_bits": 300}]));
    assert!(!response.message().is_empty());
    assert_eq!(site.ask("GET", ENC_B, "").await.status, 200, "what is there can still be had");
}

#[tokio::test]
async fn failures_of_the_supply_have_the_codes_of_the_standard() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let limited = SupplyError::TooMany { what: "number", asked: 9, limit: 3 };
    for (failure, status) in [
        (SupplyError::UnknownSae, 400),
        (SupplyError::Unauthorized, 401),
        (SupplyError::NotFound { at: 0, why: Absence::Taken }, 400),
        (SupplyError::NoPath { slave: 0 }, 400),
        (limited, 400),
        (SupplyError::MulticastUnsupported, 400),
        (SupplyError::RateLimited { retry_after_s: 2 }, 503),
        (SupplyError::TooManyWait { retry_after_s: 2 }, 503),
        (SupplyError::RolledBack, 503),
        (SupplyError::Failed("the disk is full"), 503),
    ] {
        site.supply.state.lock().unwrap().failure = Some(failure);
        for what in ["status", "enc_keys"] {
            let response = a.ask("GET", &format!("/api/v1/keys/sae-b/{what}"), "").await;
            assert_eq!(response.status, status, "{failure:?}");
            assert!(status != 400 || response.header("retry-after").is_none(), "{failure:?}");
            assert!(!response.message().is_empty());
            let details = response.json().get("details").cloned().unwrap_or(json!([]));
            assert!(details.as_array().unwrap().iter().all(Value::is_object));
        }
    }
}

#[tokio::test]
async fn an_sae_may_be_its_own_peer() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    let keys = container(&a.ask("GET", "/api/v1/keys/sae-a/enc_keys", "").await.json());
    assert_eq!(container(&a.ask("POST", DEC_A, &ids_of(&keys)).await.json()), keys);
}

#[tokio::test]
async fn answers_with_key_are_json_that_nobody_may_store() {
    let site = site().await;
    let response = site.ask("GET", ENC_B, "").await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.header("date").unwrap().ends_with(" GMT"));
}
