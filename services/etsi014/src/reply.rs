//! Answers: the data formats of clauses 6.1, 6.3 and 6.5, and the HTTP around them.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::supply::{KEY_ID_CHARS, SuppliedKey, SupplyError};

/// Messages that the standard fixes; clients compare them.
pub mod message {
    pub const SIZE: &str = "size shall be a multiple of 8";
    pub const EXTENSION_MANDATORY: &str = "not all extension_mandatory parameters are supported";
    pub const KEYS_NOT_FOUND: &str = "one or more keys specified are not found on KME";
    /// Of the codes of the standard 400 alone says that asking again is no use.
    pub const NO_PATH: &str = "no path of the QKD network leads to the KME of the SAE";
    /// An example of the standard, for errors of the KME itself.
    pub const ACCESS: &str = "key data access error";
}

const JSON: &str = "application/json";

/// Most bytes that a status line and header lines take.
const HEAD_BYTES: usize = 320;

/// Why a request is not granted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    reply_status: u16,
    message: Cow<'static, str>,
    details: Option<Map<String, Value>>,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
    /// Whether what follows on the connection cannot be trusted to be a request.
    close: bool,
}

impl Problem {
    pub(super) fn new(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { reply_status: status, message, details: None, allow: None, retry_after_s: None, close: false }
    }

    /// The client's mistake, within a message that was framed properly.
    pub(super) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, message)
    }

    fn fatal(status: u16, message: &'static str) -> Self {
        Self { close: true, ..Self::new(status, message) }
    }

    /// Something that is no HTTP/1.1, after which nothing can be read any more.
    pub(super) fn bad_request(message: &'static str) -> Self {
        Self::fatal(400, message)
    }

    pub(super) fn timed_out() -> Self {
        Self::fatal(408, "the request did not arrive in time")
    }

    pub(super) fn body_too_large() -> Self {
        Self::fatal(413, "the body is too large")
    }

    pub(super) fn target_too_long() -> Self {
        Self::fatal(414, "the request line is too long")
    }

    pub(super) fn expectation() -> Self {
        Self::fatal(417, "the only expectation that can be met is 100-continue")
    }

    pub(super) fn head_too_large() -> Self {
        Self::fatal(431, "the head of the request is too large")
    }

    pub(super) fn version() -> Self {
        Self::fatal(505, "the only version spoken is HTTP/1.1")
    }

    pub(super) fn unauthorized(message: &'static str) -> Self {
        Self::new(401, message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "there is nothing under this path")
    }

    pub(super) fn method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(405, "the method is not allowed here") }
    }

    pub(super) fn details(mut self, details: Value) -> Self {
        self.details = match details {
            Value::Object(members) => Some(members),
            _ => None,
        };
        self
    }

    fn retry_after_s(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// As [`details`](Self::details), beside those that there are.
    pub(super) fn detail(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.reply_status
    }
}

impl From<SupplyError> for Problem {
    fn from(error: SupplyError) -> Self {
        match error {
            SupplyError::UnknownSae => Self::request("the SAE is not known in the QKD network"),
            SupplyError::Unauthorized => Self::unauthorized("the SAE may not have these keys"),
            SupplyError::NotFound { why, .. } => {
                Self::request(message::KEYS_NOT_FOUND).details(json!({"reason": why.name()}))
            }
            SupplyError::NoPath { .. } => Self::request(message::NO_PATH),
            SupplyError::Exhausted { asked_bits, available_bits, retry_after_s } => {
                Self::new(503, "not enough key is stored at present")
                    .details(json!({"asked_bits": asked_bits, "available_bits": available_bits}))
                    .retry_after_s(retry_after_s)
            }
            SupplyError::TooMany { what, asked, limit } => Self::request(format!("{what} is above what is allowed"))
                .details(json!({"parameter": what, "asked": asked, "limit": limit})),
            // Of the standard's codes 503 alone says that a later attempt may succeed.
            SupplyError::RateLimited { retry_after_s } => {
                Self::new(503, "too many requests").retry_after_s(retry_after_s)
            }
            SupplyError::TooManyWait { retry_after_s } => {
                Self::new(503, "too many keys of this SAE wait to be fetched").retry_after_s(retry_after_s)
            }
            // Asking again does not help, so there is no Retry-After.
            SupplyError::RolledBack => Self::new(503, "no key of these two sites is handed out").details(json!({
                "reason": "a key store was put back from a copy; its operator has to run qkdnet restore"
            })),
            SupplyError::MulticastUnsupported => Self::request("additional_slave_SAE_IDs are not supported"),
            SupplyError::Failed(reason) => Self::new(503, message::ACCESS).details(json!({"reason": reason})),
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<[&'a Map<String, Value>; 1]>,
}

#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Vec<u8>),
    Text(String),
    /// Encoded where it is sent from, so that there is one copy.
    Keys(Vec<SuppliedKey>),
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    body: Body,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
    pub(super) close: bool,
}

impl Reply {
    pub(super) fn new(status: u16, body: Body) -> Self {
        Self { status, body, allow: None, retry_after_s: None, close: false }
    }

    pub(super) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(text) => Self::new(status, Body::Json(text)),
            Err(_) => Self::from(Problem::new(503, message::ACCESS)),
        }
    }

    pub(super) fn keys(keys: Vec<SuppliedKey>) -> Self {
        Self::new(200, Body::Keys(keys))
    }

    /// The answer to OPTIONS.
    pub(super) fn options(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(204, Body::Empty) }
    }

    /// Appends the answer as it goes over the wire. `output` is grown once, before any key is in it, so that no copy
    /// of key stays behind in memory that was given back.
    pub(super) fn encode(&self, output: &mut Vec<u8>, keep_alive: bool, with_body: bool, date: &[u8]) {
        let length = self.body_bytes();
        output.reserve(HEAD_BYTES + length);
        output.extend_from_slice(b"HTTP/1.1 ");
        output.extend_from_slice(status_line(self.status).as_bytes());
        output.extend_from_slice(b"\r\ndate: ");
        output.extend_from_slice(date);
        let media = match self.body {
            Body::Text(_) => "text/plain; version=0.0.4; charset=utf-8",
            _ => JSON,
        };
        // What is written into memory cannot fail.
        if self.status != 204 {
            let _ = write!(output, "\r\ncontent-type: {media}\r\ncontent-length: {length}");
        }
        output.extend_from_slice(b"\r\ncache-control: no-store");
        if let Some(allow) = self.allow {
            let _ = write!(output, "\r\nallow: {allow}");
        }
        if let Some(seconds) = self.retry_after_s {
            let _ = write!(output, "\r\nretry-after: {seconds}");
        }
        if !keep_alive {
            output.extend_from_slice(b"\r\nconnection: close");
        }
        output.extend_from_slice(b"\r\n\r\n");
        if with_body {
            self.encode_body(output);
        }
    }

    fn body_bytes(&self) -> usize {
        match &self.body {
            Body::Empty => 0,
            Body::Json(text) => text.len(),
            Body::Text(text) => text.len(),
            Body::Keys(keys) => key_container_bytes(keys),
        }
    }

    fn encode_body(&self, output: &mut Vec<u8>) {
        match &self.body {
            Body::Empty => {}
            Body::Json(text) => output.extend_from_slice(text),
            Body::Text(text) => output.extend_from_slice(text.as_bytes()),
            Body::Keys(keys) => encode_key_container(keys, output),
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let details = problem.details.as_ref().map(|details| [details]);
        let text = serde_json::to_vec(&ErrorBody { message: &problem.message, details }).unwrap_or_default();
        Self {
            status: problem.reply_status,
            body: Body::Json(text),
            allow: problem.allow,
            retry_after_s: problem.retry_after_s,
            close: problem.close,
        }
    }
}

const CONTAINER: [&[u8]; 2] = [b"{\"keys\":[", b"]}"];
const KEY: [&[u8]; 3] = [b"{\"key_ID\":\"", b"\",\"key\":\"", b"\"}"];

/// Length of the encoded container, to the byte.
fn key_container_bytes(keys: &[SuppliedKey]) -> usize {
    let frame: usize = KEY.iter().map(|part| part.len()).sum();
    let encoded = |key: &SuppliedKey| frame + KEY_ID_CHARS + key.key.len().div_ceil(3) * 4;
    let commas = keys.len().saturating_sub(1);
    CONTAINER[0].len() + CONTAINER[1].len() + commas + keys.iter().map(encoded).sum::<usize>()
}

fn encode_key_container(keys: &[SuppliedKey], output: &mut Vec<u8>) {
    output.extend_from_slice(CONTAINER[0]);
    for (index, key) in keys.iter().enumerate() {
        if index > 0 {
            output.push(b',');
        }
        output.extend_from_slice(KEY[0]);
        output.extend_from_slice(&key.id.text());
        output.extend_from_slice(KEY[1]);
        let start = output.len();
        output.resize(start + key.key.len().div_ceil(3) * 4, b'=');
        // The room is exactly what the encoding takes.
        let _ = BASE64.encode_slice(key.key.expose(), &mut output[start..]);
        output.extend_from_slice(KEY[2]);
    }
    output.extend_from_slice(CONTAINER[1]);
}

fn status_line(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        204 => "204 No Content",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Content Too Large",
        414 => "414 URI Too Long",
        417 => "417 Expectation Failed",
        431 => "431 Request Header Fields Too Large",
        505 => "505 HTTP Version Not Supported",
        _ => "503 Service Unavailable",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::supply::KeyId;
    use keystore::Secret;

    #[test]
    fn a_container_takes_exactly_the_room_that_was_set_aside_for_it() {
        for count in 0..4 {
            for key_bytes in 0..70 {
                let keys: Vec<_> = (0..count)
                    .map(|index| SuppliedKey { id: KeyId([index; 16]), key: Secret::new(vec![index; key_bytes]) })
                    .collect();
                let mut output = vec![];
                encode_key_container(&keys, &mut output);
                assert_eq!(output.len(), key_container_bytes(&keys), "{count} keys of {key_bytes} bytes");
                let read: Value = serde_json::from_slice(&output).unwrap();
                for (index, key) in keys.iter().enumerate() {
                    let text = read["keys"][index]["key"].as_str().unwrap();
                    assert_eq!(BASE64.decode(text).unwrap(), key.key.expose());
                    assert_eq!(read["keys"][index]["key_ID"], key.id.to_string());
                }
            }
        }
    }

    #[test]
    fn an_answer_with_key_never_outgrows_its_first_allocation() {
        let keys = (0..9).map(|index| SuppliedKey { id: KeyId([index; 16]), key: Secret::new(vec![7; 500]) }).collect();
        let reply = Reply { allow: Some("GET, POST, OPTIONS"), retry_after_s: Some(u32::MAX), ..Reply::keys(keys) };
        let mut output = Vec::with_capacity(HEAD_BYTES + reply.body_bytes());
        let capacity = output.capacity();
        reply.encode(&mut output, false, true, &[b'x'; 29]);
        assert_eq!(output.capacity(), capacity);
    }

    #[test]
    fn a_store_that_was_put_back_is_a_lasting_condition_with_words() {
        let Reply { body: Body::Json(text), status, retry_after_s, .. } =
            Reply::from(Problem::from(SupplyError::RolledBack))
        else {
            panic!("not JSON")
        };
        assert_eq!((status, retry_after_s), (503, None));
        let read: Value = serde_json::from_slice(&text).unwrap();
        assert!(read["details"][0]["reason"].as_str().unwrap().contains("qkdnet restore"), "{read}");
    }

    #[test]
    fn details_are_an_array_of_objects() {
        let error = SupplyError::Exhausted { asked_bits: 512, available_bits: 8, retry_after_s: 3 };
        let Reply { body: Body::Json(text), status, retry_after_s, .. } = Reply::from(Problem::from(error)) else {
            panic!("not JSON")
        };
        assert_eq!((status, retry_after_s), (503, Some(3)));
        let read: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(read["details"], json!([{"asked_bits": 512, "available_bits": 8}]));
    }
}
