#![allow(clippy::unwrap_used)]

use super::*;

const LIMITS: KeyLimits = KeyLimits {
    key_size_bits: 256,
    min_key_size_bits: 64,
    max_key_size_bits: 1024,
    max_key_per_request: 10,
    max_sae_id_count: 2,
};

fn slave() -> SaeId {
    SaeId::new("slave").unwrap()
}

fn from_body(body: &str) -> Result<KeyRequest, Problem> {
    KeyRequest::from_body(body.as_bytes(), &slave(), LIMITS)
}

fn from_query(query: &str) -> Result<KeyRequest, Problem> {
    let target = format!("/api/v1/keys/slave/enc_keys?{query}");
    KeyRequest::from_query(&Target::parse(&target).unwrap(), &slave(), LIMITS)
}

fn plain(number: u32, size_bits: u32) -> KeyRequest {
    KeyRequest { number, size_bits, additional: vec![] }
}

#[test]
fn what_is_left_out_or_null_takes_its_default() {
    for body in [
        "",
        " ",
        "{}",
        r#"{"number":null,"size":null}"#,
        r#"{"additional_slave_SAE_IDs":null,"extension_mandatory":null}"#,
    ] {
        assert_eq!(from_body(body).unwrap(), plain(1, 256), "{body}");
    }
    assert_eq!(from_query("").unwrap(), plain(1, 256));
}

#[test]
fn number_and_size_are_taken_from_body_and_query() {
    assert_eq!(from_body(r#"{"number":10,"size":1024}"#).unwrap(), plain(10, 1024));
    assert_eq!(from_query("number=10&size=64").unwrap(), plain(10, 64));
}

#[test]
fn what_is_no_object_of_the_right_members_is_refused() {
    for body in [
        "null",
        "[]",
        "[1,256]",
        "1",
        "\"\"",
        "{",
        "{}x",
        "{\"number\":1.0}",
        "{\"number\":\"1\"}",
        "{\"number\":-1}",
        "{\"number\":1e0}",
        "{\"number\":18446744073709551616}",
        "{\"size\":[]}",
        "{\"number\":1,\"number\":1}",
        "{\"additional_slave_SAE_IDs\":\"a\"}",
        "{\"additional_slave_SAE_IDs\":[1]}",
        "{\"extension_mandatory\":{}}",
        "{\"extension_mandatory\":[1]}",
        "{\"extension_mandatory\":[[]]}",
        "{\"additional_slave_SAE_IDs\":[\"\"]}",
    ] {
        assert_eq!(from_body(body).unwrap_err().status(), 400, "{body}");
    }
    assert!(KeyRequest::from_body(b"{\"x\":\"\xff\"}", &slave(), LIMITS).is_err());
}

/// Message and details of what a body is answered.
fn told(problem: Problem) -> String {
    let reply = super::super::reply::Reply::from(problem);
    let mut wire = Vec::new();
    reply.encode(&mut wire, true, true, b"");
    let text = String::from_utf8(wire).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_member_of_a_wrong_type_is_named() {
    for (body, message) in [
        (r#"{"number":"1"}"#, "number is a string, not a whole number that is not negative"),
        (r#"{"number":2,"size":-8}"#, "size is another number, not a whole number that is not negative"),
        (r#"{"size":25.6}"#, "size is another number, not a whole number that is not negative"),
        (r#"{"additional_slave_SAE_IDs":"a"}"#, "additional_slave_SAE_IDs is a string, not an array"),
        (r#"{"additional_slave_SAE_IDs":["a",7]}"#, "additional_slave_SAE_IDs[1] is another number, not a string"),
        (r#"{"extension_mandatory":[{},[]]}"#, "extension_mandatory[1] is an array, not an object"),
        (r#"{"additional_slave_SAE_IDs":["a",".."]}"#, "additional_slave_SAE_IDs[1]: an SAE ID has"),
        ("[1,256]", "the body is an array, not an object"),
        (r#"{"size":64,"size":64}"#, "a member of the body is given twice"),
        ("{", "the body is not JSON"),
    ] {
        let told = told(from_body(body).unwrap_err());
        assert!(told.contains(message), "{body}: {told}");
    }
    for (body, message) in [
        (r#"{"key_IDs":[{"key_ID":"a"},{"key_ID":4}]}"#, "key_IDs[1].key_ID is another number, not a string"),
        (r#"{"key_IDs":[{}]}"#, "key_IDs[0].key_ID is missing, not a string"),
        (r#"{"key_IDs":["a"]}"#, "key_IDs[0] is a string, not an object"),
        (r#"{"key_IDs":[{"key_ID":"a"}]}"#, r#""key_ID":"a""#),
    ] {
        let told = told(key_ids_of_body(body.as_bytes(), 8).unwrap_err());
        assert!(told.contains(message), "{body}: {told}");
    }
    let twice = "bc490419-7d60-487f-adc1-4ddcc177c139";
    let body = format!(r#"{{"key_IDs":[{{"key_ID":"{twice}"}},{{"key_ID":"{twice}"}}]}}"#);
    assert!(told(key_ids_of_body(body.as_bytes(), 8).unwrap_err()).contains(twice));
}

#[test]
fn sizes_have_the_standards_message_before_any_other() {
    for body in ["{\"size\":7}", "{\"size\":4097}", "{\"size\":257}"] {
        assert_eq!(from_body(body).unwrap_err(), Problem::request(message::SIZE), "{body}");
    }
    for body in ["{\"size\":0}", "{\"size\":56}", "{\"size\":1032}", "{\"size\":4294967296}", "{\"number\":11}"] {
        let problem = from_body(body).unwrap_err();
        assert_eq!(problem.status(), 400);
        assert_ne!(problem, Problem::request(message::SIZE), "{body}");
    }
}

#[test]
fn mandatory_extensions_are_refused_and_optional_ones_ignored() {
    let refused = Problem::request(message::EXTENSION_MANDATORY);
    assert_eq!(from_body(r#"{"extension_mandatory":[{"abc_route_type":"direct"}]}"#).unwrap_err(), refused);
    assert_eq!(from_body(r#"{"extension_mandatory":[]}"#).unwrap(), plain(1, 256));
    assert_eq!(from_body(r#"{"extension_optional":[{"a_b":1}],"else":{"x":[]}}"#).unwrap(), plain(1, 256));
    assert_eq!(from_query("extension_mandatory=x").unwrap_err(), refused);
}

#[test]
fn further_slaves_count_once_and_up_to_the_limit() {
    let names = |names: &str| from_body(&format!("{{\"additional_slave_SAE_IDs\":{names}}}"));
    let saes = |names: &[&str]| names.iter().map(|name| SaeId::new(*name).unwrap()).collect::<Vec<_>>();
    assert_eq!(names(r#"["c","d"]"#).unwrap().additional, saes(&["c", "d"]));
    assert_eq!(names(r#"["c","c"]"#).unwrap().additional, saes(&["c"]));
    assert_eq!(names(r#"["slave","c"]"#).unwrap().additional, saes(&["c"]));
    assert!(names(r#"["c","d","e"]"#).is_err());
    assert!(from_query("additional_slave_SAE_IDs=c").is_err());
    let none = KeyLimits { max_sae_id_count: 0, ..LIMITS };
    assert!(KeyRequest::from_body(br#"{"additional_slave_SAE_IDs":["c"]}"#, &slave(), none).is_err());
    assert!(KeyRequest::from_body(br#"{"additional_slave_SAE_IDs":[]}"#, &slave(), none).is_ok());
}

#[test]
fn query_numbers_are_decimal_digits() {
    for query in
        ["number=", "number", "number=+1", "number=-1", "number=1.0", "number=0x1", "number=99999999999999999999"]
    {
        assert_eq!(from_query(query).unwrap_err().status(), 400, "{query}");
    }
    assert!(from_query("number=1&number=1").is_err());
    assert_eq!(from_query("number=007&unknown=1").unwrap(), plain(7, 256));
}

#[test]
fn key_ids_are_taken_in_order_and_only_as_a_list_of_objects() {
    let (a, b) = ("bc490419-7d60-487f-adc1-4ddcc177c139", "0A782FB5-3434-48FE-AA4D-14F41D46CF92");
    let ids = |body: &str| key_ids_of_body(body.as_bytes(), 2);
    let both = format!(r#"{{"key_IDs":[{{"key_ID":"{a}","key_ID_extension":{{}}}},{{"key_ID":"{b}"}}],"x":1}}"#);
    assert_eq!(ids(&both).unwrap(), [a.parse().unwrap(), b.parse().unwrap()]);
    for body in [
        "".to_owned(),
        "{}".to_owned(),
        r#"{"key_IDs":null}"#.to_owned(),
        r#"{"key_IDs":[]}"#.to_owned(),
        r#"{"key_IDs":[{}]}"#.to_owned(),
        r#"{"key_IDs":[null]}"#.to_owned(),
        format!(r#"{{"key_IDs":["{a}"]}}"#),
        format!(r#"{{"key_IDs":[["{a}"]]}}"#),
        format!(r#"{{"key_IDs":{{"key_ID":"{a}"}}}}"#),
        format!(r#"{{"key_IDs":[{{"key_ID":"{a}"}},{{"key_ID":"{}"}}]}}"#, a.to_uppercase()),
        format!(r#"{{"key_IDs":[{{"key_ID":"{a}"}}],"key_IDs":[]}}"#),
    ] {
        assert_eq!(ids(&body).unwrap_err().status(), 400, "{body}");
    }
    let missing = Problem::request(message::KEYS_NOT_FOUND)
        .details(serde_json::json!({"key_ID": "no-uuid", "reason": "not a UUID"}));
    assert_eq!(ids(r#"{"key_IDs":[{"key_ID":"no-uuid"}]}"#).unwrap_err(), missing);
    assert!(key_ids_of_body(both.as_bytes(), 1).is_err());
}
