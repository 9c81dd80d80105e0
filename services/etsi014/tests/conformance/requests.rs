//! What is asked wrongly is answered with 400, in the standard's words where it has some, and costs no key.

use etsi014::message;
use serde_json::Value;

use super::support::{Response, Site, site};

const ENC: &str = "/api/v1/keys/sae-b/enc_keys";
const DEC: &str = "/api/v1/keys/sae-a/dec_keys";

async fn refused(site: &Site, method: &str, target: &str, body: &str) -> Response {
    let before = site.supply.state.lock().unwrap().available_bits;
    let response = site.ask(method, target, body).await;
    assert_eq!(response.status, 400, "{method} {target} {body}");
    assert!(!response.message().is_empty());
    assert_eq!(site.supply.state.lock().unwrap().available_bits, before, "refused, and yet it cost key");
    response
}

async fn each_refused(what: &str, cases: &[&str]) {
    let site = site().await;
    for case in cases {
        match what {
            "query" => refused(&site, "GET", &format!("{ENC}?{case}"), "").await,
            "ids" => refused(&site, "POST", DEC, case).await,
            _ => refused(&site, "POST", ENC, case).await,
        };
    }
}

#[tokio::test]
async fn a_number_of_keys_is_from_1_to_the_maximum() {
    each_refused("query", &["number=0", "number=129", "number=-1", "number=1.5", "number=a", "number=", "number"])
        .await;
    each_refused("body", &[r#"{"number":0}"#, r#"{"number":129}"#, r#"{"number":-1}"#, r#"{"number":4294967297}"#])
        .await;
}

#[tokio::test]
async fn a_number_is_an_integer_and_nothing_else() {
    let bodies = [
        r#"{"number":1.0}"#,
        r#"{"number":1.5}"#,
        r#"{"number":"1"}"#,
        r#"{"number":true}"#,
        r#"{"number":[1]}"#,
        r#"{"number":1e3}"#,
        r#"{"number":99999999999999999999999}"#,
        r#"{"size":"256"}"#,
        r#"{"size":256.0}"#,
    ];
    each_refused("body", &bodies).await;
}

#[tokio::test]
async fn a_size_outside_of_the_limits_is_refused() {
    each_refused("query", &["size=0", "size=56", "size=4104", "size=99999999999999999999"]).await;
    each_refused("body", &[r#"{"size":0}"#, r#"{"size":56}"#, r#"{"size":4104}"#, r#"{"size":-8}"#]).await;
}

#[tokio::test]
async fn a_size_that_is_no_multiple_of_8_has_the_standards_message() {
    let site = site().await;
    for size in ["1", "100", "257", "4097"] {
        let query = refused(&site, "GET", &format!("{ENC}?size={size}"), "").await;
        let body = refused(&site, "POST", ENC, &format!("{{\"size\":{size}}}")).await;
        assert_eq!([query.message(), body.message()], [message::SIZE; 2]);
    }
    assert_eq!(message::SIZE, "size shall be a multiple of 8");
}

#[tokio::test]
async fn a_mandatory_extension_has_the_standards_message() {
    let site = site().await;
    let response = refused(&site, "POST", ENC, r#"{"extension_mandatory":[{"abc_route_type":"direct"}]}"#).await;
    assert_eq!(response.message(), "not all extension_mandatory parameters are supported");
    for malformed in [r#"{"extension_mandatory":{"a":1}}"#, r#"{"extension_mandatory":[1]}"#] {
        refused(&site, "POST", ENC, malformed).await;
    }
}

#[tokio::test]
async fn optional_extensions_and_unknown_members_are_ignored() {
    let site = site().await;
    for body in [
        r#"{"extension_optional":[{"abc_max_age":30}]}"#,
        r#"{"extension_optional":null,"extension_mandatory":null,"additional_slave_SAE_IDs":null}"#,
        r#"{"extension_mandatory":[],"something":{"else":[1,{"number":0}]}}"#,
    ] {
        assert_eq!(site.ask("POST", ENC, body).await.status, 200, "{body}");
    }
    assert_eq!(site.ask("GET", &format!("{ENC}?something=else"), "").await.status, 200);
}

#[tokio::test]
async fn a_body_on_get_is_ignored() {
    let site = site().await;
    let mut a = site.connect("sae-a").await;
    for _ in 0..2 {
        assert_eq!(a.ask("GET", ENC, r#"{"number":0"#).await.status, 200);
        assert_eq!(a.ask("GET", "/api/v1/keys/sae-b/status", "nonsense").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    each_refused("body", &["nonsense", "[]", "[1,256]", "null", "1", "\"x\"", "{", "{}{}", "{\"a\"}", "\u{feff}{}"])
        .await;
    each_refused("body", &[r#"{"number":1,"number":2}"#, r#"{"additional_slave_SAE_IDs":"sae-c"}"#]).await;
}

#[tokio::test]
async fn deep_nesting_is_survived() {
    let site = site().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(9000), close.repeat(9000));
        let response = site.ask("POST", ENC, &format!("{{\"number\":{deep}}}")).await;
        assert_eq!(response.status, 400);
        let response = site.ask("POST", ENC, &format!("{{\"unknown\":{deep}}}")).await;
        assert!(matches!(response.status, 200 | 400), "{}", response.status);
        refused(&site, "POST", ENC, &open.repeat(60_000 / open.len())).await;
    }
}

#[tokio::test]
async fn json_counts_whatever_its_media_type_says() {
    let site = site().await;
    for media in ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let mut a = site.connect("sae-a").await;
        let body = r#"{"number":2}"#;
        let head =
            format!("POST {ENC} HTTP/1.1\r\nHost: k\r\nContent-Type: {media}\r\nContent-Length: 12\r\n\r\n{body}");
        a.send(head).await.unwrap();
        assert_eq!(a.response().await.json()["keys"].as_array().map(Vec::len), Some(2), "{media}");
    }
}

#[tokio::test]
async fn key_ids_are_a_list_of_objects_with_a_key_id() {
    let id = r#"{"key_ID":"bc490419-7d60-487f-adc1-4ddcc177c139"}"#;
    let twice = format!(r#"{{"key_IDs":[{id},{id}]}}"#);
    let cases = [
        "",
        "{}",
        r#"{"key_IDs":null}"#,
        r#"{"key_IDs":[]}"#,
        r#"{"key_IDs":{}}"#,
        r#"{"key_IDs":[{}]}"#,
        r#"{"key_IDs":["bc490419-7d60-487f-adc1-4ddcc177c139"]}"#,
        r#"{"key_IDs":[{"key_ID":null}]}"#,
        r#"{"key_IDs":[{"key_ID":1}]}"#,
        &twice,
    ];
    each_refused("ids", &cases).await;
    let site = site().await;
    for query in ["", "?key_ID", "?key_ID=a&key_ID=b", "?key_IDs=x"] {
        refused(&site, "GET", &format!("{DEC}{query}"), "").await;
    }
}

#[tokio::test]
async fn an_id_that_is_no_uuid_names_no_key() {
    let site = site().await;
    let by_body = refused(&site, "POST", DEC, r#"{"key_IDs":[{"key_ID":"no-uuid"}]}"#).await;
    let by_query = refused(&site, "GET", &format!("{DEC}?key_ID=no-uuid"), "").await;
    for response in [by_body, by_query] {
        assert_eq!(response.message(), "one or more keys specified are not found on KME");
    }
}

#[tokio::test]
async fn a_request_names_so_many_keys_and_no_more() {
    let ids = |count: u16| {
        let id = |n| format!(r#"{{"key_ID":"bc490419-7d60-487f-adc1-4ddcc177{n:04x}"}}"#);
        format!(r#"{{"key_IDs":[{}]}}"#, (0..count).map(id).collect::<Vec<_>>().join(","))
    };
    let site = site().await;
    assert_eq!(refused(&site, "POST", DEC, &ids(1024)).await.message(), message::KEYS_NOT_FOUND);
    let too_many = refused(&site, "POST", DEC, &ids(1025)).await;
    assert_ne!(too_many.message(), message::KEYS_NOT_FOUND);
    assert!(too_many.json()["details"].as_array().unwrap().iter().all(Value::is_object));
}

#[tokio::test]
async fn an_sae_that_nobody_knows_is_refused() {
    let site = site().await;
    refused(&site, "GET", "/api/v1/keys/nobody/status", "").await;
    refused(&site, "GET", "/api/v1/keys/nobody/enc_keys", "").await;
    refused(&site, "POST", ENC, r#"{"additional_slave_SAE_IDs":["nobody"]}"#).await;
    refused(&site, "POST", ENC, r#"{"additional_slave_SAE_IDs":["sae-c","sae-d","sae-b"]}"#).await;
}
