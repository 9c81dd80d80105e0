//! From the request's target to the standard's three methods.

use std::borrow::Cow;

use super::head::Method;
use super::reply::Problem;
use crate::supply::SaeId;

/// What is behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Get status, clause 5.2.
    Status,
    /// Get key, clause 5.3.
    EncKeys,
    /// Get key with key IDs, clause 5.4.
    DecKeys,
    /// Nothing.
    Other,
}

impl Route {
    pub const ALL: [Self; 4] = [Self::Status, Self::EncKeys, Self::DecKeys, Self::Other];

    /// The path with the SAE's place left open.
    pub const fn template(self) -> &'static str {
        match self {
            Self::Status => "/api/v1/keys/{slave_SAE_ID}/status",
            Self::EncKeys => "/api/v1/keys/{slave_SAE_ID}/enc_keys",
            Self::DecKeys => "/api/v1/keys/{master_SAE_ID}/dec_keys",
            Self::Other => "",
        }
    }

    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::Status => "GET, HEAD, OPTIONS",
            Self::EncKeys | Self::DecKeys => "GET, POST, OPTIONS",
            Self::Other => "GET, POST, OPTIONS",
        }
    }

    /// HEAD would take keys out of the pool and show them to nobody, so that the status alone has it.
    pub(super) fn allows(self, method: Method) -> bool {
        match self {
            Self::Status => matches!(method, Method::Get | Method::Head),
            Self::EncKeys | Self::DecKeys => matches!(method, Method::Get | Method::Post),
            Self::Other => false,
        }
    }
}

/// A target taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'t> {
    pub(super) route: Route,
    /// The peer, still percent-encoded.
    peer: &'t str,
    pub(super) path: &'t str,
    pub(super) query: &'t str,
}

impl<'t> Target<'t> {
    pub(super) fn parse(target: &'t str) -> Result<Self, Problem> {
        if target.contains('#') {
            return Err(Problem::request("the target holds a fragment"));
        }
        let origin = origin_form(target)?;
        let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
        let (route, peer) = match path.strip_prefix("/api/v1/keys/").and_then(|rest| rest.split_once('/')) {
            Some((peer, "status")) => (Route::Status, peer),
            Some((peer, "enc_keys")) => (Route::EncKeys, peer),
            Some((peer, "dec_keys")) => (Route::DecKeys, peer),
            _ => (Route::Other, ""),
        };
        Ok(Self { route, peer, path, query })
    }

    /// The SAE that the path names.
    pub(super) fn peer(&self) -> Result<SaeId, Problem> {
        SaeId::new(decode(self.peer)?).map_err(|error| Problem::request(error.to_string()))
    }

    /// The value of the one query parameter with this name.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<Cow<'t, str>>, Problem> {
        let mut found = None;
        for pair in self.query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !decode(key)?.eq_ignore_ascii_case(name) {
                continue;
            }
            if found.is_some() {
                return Err(Problem::request(format!("{name} is given twice")));
            }
            found = Some(decode(value)?);
        }
        Ok(found)
    }
}

/// The part of a target that begins with the path; a proxy's form of it is taken too.
fn origin_form(target: &str) -> Result<&str, Problem> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let scheme = ["https://", "http://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(scheme.len())
    });
    let Some(start) = scheme else { return Err(Problem::request("the target is no path")) };
    let rest = &target[start..];
    let path = rest.find(['/', '?']).map_or("/", |at| &rest[at..]);
    if path.starts_with('/') { Ok(path) } else { Err(Problem::request("the target is no path")) }
}

/// Decodes percent-encoding once.
pub(super) fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let invalid = || Problem::request("the target is not percent-encoded properly");
    let nibble = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let (high, low) = (nibble(bytes.get(at + 1)), nibble(bytes.get(at + 2)));
            let (Some(high), Some(low)) = (high, low) else { return Err(invalid()) };
            decoded.push((high << 4 | low) as u8);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| invalid())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_the_three_methods_and_nowhere_else() {
        let route = |path| Target::parse(path).unwrap().route;
        assert_eq!(route("/api/v1/keys/b/status"), Route::Status);
        assert_eq!(route("/api/v1/keys/b/enc_keys?number=3"), Route::EncKeys);
        assert_eq!(route("https://kme.example:8443/api/v1/keys/b/dec_keys"), Route::DecKeys);
        for path in
            ["/", "/api/v1/keys/b", "/api/v1/keys/b/status/", "/api/v1/keys/b/c/status", "/API/v1/keys/b/status"]
        {
            assert_eq!(route(path), Route::Other, "{path}");
        }
    }

    #[test]
    fn names_are_decoded_exactly_once() {
        let peer = |path: &str| Target::parse(path).unwrap().peer().map(|peer| peer.as_str().to_owned()).ok();
        assert_eq!(peer("/api/v1/keys/SAE%20A%2f1/status").as_deref(), Some("SAE A/1"));
        assert_eq!(peer("/api/v1/keys/a%2541/status").as_deref(), Some("a%41"));
        assert_eq!(peer("/api/v1/keys/%C3%A9/status").as_deref(), Some("é"));
        for path in ["%", "%4", "%zz", "%ff", "%00", "", "%2e%2e", "%+1", "a%"] {
            assert_eq!(peer(&format!("/api/v1/keys/{path}/status")), None, "{path}");
        }
    }

    #[test]
    fn a_parameter_is_given_once_or_not_at_all() {
        let target = Target::parse("/api/v1/keys/b/enc_keys?number=3&si%7ae=%32%35%36&x=1&x=2").unwrap();
        assert_eq!(target.parameter("number").unwrap().as_deref(), Some("3"));
        assert_eq!(target.parameter("size").unwrap().as_deref(), Some("256"));
        assert_eq!(target.parameter("key_ID").unwrap(), None);
        assert!(target.parameter("x").is_err());
    }
}
