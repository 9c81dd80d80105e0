//! Whatever is sent is answered, and never by an error of the server.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tokio::sync::Mutex;

use super::support::{Raw, Site, site};

struct Bench {
    runtime: tokio::runtime::Runtime,
    site: Site,
    /// Kept while it lasts: a request may end it.
    connection: Arc<Mutex<Option<Raw>>>,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let site = runtime.block_on(site());
    site.supply.state.lock().unwrap().available_bits = u64::from(u32::MAX);
    Bench { runtime, site, connection: Arc::default() }
});

/// The status of the answer.
fn ask(bytes: &[u8]) -> u16 {
    BENCH.runtime.block_on(async {
        let mut kept = BENCH.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => BENCH.site.connect("sae-a").await,
        };
        connection.send(bytes).await.unwrap();
        let response = connection.response().await;
        assert!(response.status == 200 || !response.message().is_empty());
        if response.header("connection").is_none() {
            *kept = Some(connection);
        }
        response.status
    })
}

fn post(target: &str, body: &[u8]) -> u16 {
    let mut request =
        format!("POST {target} HTTP/1.1\r\nHost: k\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    ask(&request)
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (0_u32..300).prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| serde_json::json!(value).to_string()),
        ".{0,12}".prop_map(|value| serde_json::json!(value).to_string()),
        Just("\"bc490419-7d60-487f-adc1-4ddcc177c139\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let member = (name(), inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "\"number\"",
            "\"size\"",
            "\"additional_slave_SAE_IDs\"",
            "\"extension_mandatory\"",
            "\"extension_optional\"",
            "\"key_IDs\"",
            "\"key_ID\"",
            "\"key_IDs_extension\"",
        ])
        .prop_map(str::to_owned),
        ".{0,8}".prop_map(|name| serde_json::json!(name).to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_for_a_body_are_answered(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for target in ["/api/v1/keys/sae-b/enc_keys", "/api/v1/keys/sae-b/dec_keys"] {
            prop_assert!(post(target, &body) < 500);
        }
    }

    #[test]
    fn any_json_for_a_body_is_answered(members in prop::collection::vec((name(), value()), 0..5)) {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let body = format!("{{{}}}", members.join(","));
        for target in ["/api/v1/keys/sae-b/enc_keys", "/api/v1/keys/sae-b/dec_keys"] {
            prop_assert!(post(target, body.as_bytes()) < 500, "{}", body);
        }
    }

    #[test]
    fn any_query_and_any_name_are_answered(
        name in "[!-~&&[^ #?/]]{0,20}",
        query in prop_oneof!["[!-~&&[^#]]{0,40}", "(number|size|key_ID)=[0-9a-f%&=+-]{0,12}"],
    ) {
        for what in ["status", "enc_keys", "dec_keys"] {
            let request = format!("GET /api/v1/keys/{name}/{what}?{query} HTTP/1.1\r\nHost: k\r\n\r\n");
            prop_assert!(ask(request.as_bytes()) < 500, "{}", request);
        }
    }

    #[test]
    fn any_bytes_for_a_head_are_answered(head in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: k\r\n".to_vec();
        bytes.extend(head);
        bytes.extend(b"\r\n\r\n");
        let status = ask(&bytes);
        prop_assert!(status == 505 || status < 500, "{}", status);
        // Whatever a body may have been, what is left of it must not be taken for the answer to the next case.
        BENCH.runtime.block_on(async { BENCH.connection.lock().await.take() });
    }
}
