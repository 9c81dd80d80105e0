//! What a client asks for: the data formats of clauses 6.2 and 6.4, and the limits they are held against.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::json;

use super::reply::{Problem, message};
use super::route::Target;
use super::shape;
use crate::supply::{KeyId, KeyLimits, SaeId, SaeIdError};

/// A request for keys, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRequest {
    pub(super) number: u32,
    pub(super) size_bits: u32,
    pub(super) additional: Vec<SaeId>,
}

/// As it came in, with what was left out or null missing.
#[derive(Default)]
struct KeyRequestBody {
    number: Option<u64>,
    size: Option<u64>,
    additional: Vec<String>,
    mandatory: bool,
}

impl KeyRequest {
    /// Of a GET: nothing but number and size can be asked for.
    pub(super) fn from_query(target: &Target<'_>, slave: &SaeId, limits: KeyLimits) -> Result<Self, Problem> {
        let body = KeyRequestBody {
            number: decimal(target, "number")?,
            size: decimal(target, "size")?,
            mandatory: target.parameter("extension_mandatory")?.is_some(),
            additional: vec![],
        };
        if target.parameter("additional_slave_SAE_IDs")?.is_some() {
            return Err(Problem::request("additional_slave_SAE_IDs take a POST"));
        }
        Self::checked(body, slave, limits)
    }

    /// Of a POST. An empty body asks for what an empty object asks for.
    pub(super) fn from_body(body: &[u8], slave: &SaeId, limits: KeyLimits) -> Result<Self, Problem> {
        let body = if body.trim_ascii().is_empty() { KeyRequestBody::default() } else { read(body)? };
        Self::checked(body, slave, limits)
    }

    fn checked(body: KeyRequestBody, slave: &SaeId, limits: KeyLimits) -> Result<Self, Problem> {
        if body.mandatory {
            return Err(Problem::request(message::EXTENSION_MANDATORY));
        }
        let number = body.number.unwrap_or(1);
        if number == 0 || number > u64::from(limits.max_key_per_request) {
            return Err(out_of_range("number", number, 1, limits.max_key_per_request));
        }
        let size = body.size.unwrap_or(u64::from(limits.key_size_bits));
        if !size.is_multiple_of(8) {
            return Err(Problem::request(message::SIZE));
        }
        if !(u64::from(limits.min_key_size_bits)..=u64::from(limits.max_key_size_bits)).contains(&size) || size == 0 {
            return Err(out_of_range("size", size, limits.min_key_size_bits, limits.max_key_size_bits));
        }
        let additional = additional(body.additional, slave, limits.max_sae_id_count)?;
        let narrow = |value| u32::try_from(value).map_err(|_| Problem::request("the request is out of range"));
        Ok(Self { number: narrow(number)?, size_bits: narrow(size)?, additional })
    }
}

/// The further slaves, each once.
fn additional(names: Vec<String>, slave: &SaeId, limit: u32) -> Result<Vec<SaeId>, Problem> {
    let named = u32::try_from(names.len()).unwrap_or(u32::MAX);
    if named > 0 && limit == 0 {
        return Err(Problem::request("additional_slave_SAE_IDs are not supported"));
    }
    if named > limit {
        return Err(out_of_range("additional_slave_SAE_IDs", u64::from(named), 0, limit));
    }
    let mut saes: Vec<SaeId> = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        let named = |error: SaeIdError| Problem::request(format!("additional_slave_SAE_IDs[{index}]: {error}"));
        let sae = SaeId::new(name).map_err(named)?;
        if sae != *slave && !saes.contains(&sae) {
            saes.push(sae);
        }
    }
    Ok(saes)
}

fn out_of_range(what: &'static str, asked: u64, least: u32, most: u32) -> Problem {
    Problem::request(format!("{what} is outside of what is allowed"))
        .details(json!({"parameter": what, "asked": asked, "minimum": least, "maximum": most}))
}

fn decimal(target: &Target<'_>, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = target.parameter(name)? else { return Ok(None) };
    // `parse` alone would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|_| digits);
    value.map(Some).ok_or_else(|| Problem::request(format!("{name} is not a decimal number")))
}

/// The one key that a GET names.
pub(super) fn key_ids_of_query(target: &Target<'_>) -> Result<Vec<KeyId>, Problem> {
    let Some(text) = target.parameter("key_ID")? else {
        return Err(Problem::request("key_ID is missing"));
    };
    key_ids([text.as_ref()].into_iter())
}

/// The keys that a POST names.
pub(super) fn key_ids_of_body(body: &[u8], limit: usize) -> Result<Vec<KeyId>, Problem> {
    let named = read::<KeyIdsBody>(body)?.0;
    if named.is_empty() {
        return Err(Problem::request("key_IDs is missing or empty"));
    }
    if named.len() > limit {
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        return Err(out_of_range("key_IDs", named.len() as u64, 1, most));
    }
    key_ids(named.iter().map(|name| name.0.as_str()))
}

fn key_ids<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Result<Vec<KeyId>, Problem> {
    // Every key here has a UUID: what is none names a key that is not here.
    let no_id = |name: &str| {
        let named: String = name.chars().take(NAMED_CHARS_MAX).collect();
        Problem::request(message::KEYS_NOT_FOUND).details(json!({"key_ID": named, "reason": "not a UUID"}))
    };
    let ids = names.map(|name| name.parse().map_err(|_| no_id(name))).collect::<Result<Vec<KeyId>, _>>()?;
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Problem::request("key_IDs names a key twice").details(json!({"key_ID": pair[0].to_string()})));
    }
    Ok(ids)
}

/// Characters of what a client called a key that it hears again.
const NAMED_CHARS_MAX: usize = 64;

struct KeyIdsBody(Vec<KeyIdName>);
struct KeyIdName(String);

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    // JSON is UTF-8 throughout, also in members that are skipped.
    let text = std::str::from_utf8(body).map_err(|_| Problem::request("the body is not UTF-8"))?;
    // The parser's own words would quote the body.
    serde_json::from_str(text).map_err(|error| {
        let problem = match serde_json::from_str(text) {
            Ok(value) => shape::problem(&value),
            Err(_) => Problem::request("the body is not JSON"),
        };
        problem.detail("line", error.line()).detail("column", error.column())
    })
}

/// A JSON object read member by member. Unlike a derived implementation it takes no array in an object's place.
trait Members<'de>: Default {
    fn member<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error>;
}

struct ObjectOf<T>(PhantomData<T>);

impl<'de, T: Members<'de>> Visitor<'de> for ObjectOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
        let mut object = T::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            object.member(&name, &mut map)?;
        }
        Ok(object)
    }
}

/// An object of no interest but that it is one.
#[derive(Default)]
struct AnyObject;

impl<'de> Members<'de> for AnyObject {
    fn member<M: MapAccess<'de>>(&mut self, _name: &str, map: &mut M) -> Result<(), M::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }
}

#[derive(Default)]
struct KeyRequestMembers {
    body: KeyRequestBody,
    seen: [bool; 4],
}

impl KeyRequestMembers {
    fn first<E: serde::de::Error>(&mut self, index: usize) -> Result<(), E> {
        if std::mem::replace(&mut self.seen[index], true) { Err(E::custom("a member is given twice")) } else { Ok(()) }
    }
}

impl<'de> Members<'de> for KeyRequestMembers {
    fn member<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "number" => {
                self.first(0)?;
                self.body.number = map.next_value()?;
            }
            "size" => {
                self.first(1)?;
                self.body.size = map.next_value()?;
            }
            "additional_slave_SAE_IDs" => {
                self.first(2)?;
                self.body.additional = map.next_value::<Option<Vec<String>>>()?.unwrap_or_default();
            }
            "extension_mandatory" => {
                self.first(3)?;
                let parameters = map.next_value::<Option<Vec<AnyObject>>>()?;
                self.body.mandatory = parameters.is_some_and(|parameters| !parameters.is_empty());
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

#[derive(Default)]
struct KeyIdsMembers(Option<Vec<KeyIdName>>);

impl<'de> Members<'de> for KeyIdsMembers {
    fn member<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        if name != "key_IDs" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        match self.0.replace(map.next_value::<Option<_>>()?.unwrap_or_default()) {
            None => Ok(()),
            Some(_) => Err(serde::de::Error::custom("a member is given twice")),
        }
    }
}

#[derive(Default)]
struct KeyIdMembers(Option<String>);

impl<'de> Members<'de> for KeyIdMembers {
    fn member<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        if name != "key_ID" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        match self.0.replace(map.next_value()?) {
            None => Ok(()),
            Some(_) => Err(serde::de::Error::custom("a member is given twice")),
        }
    }
}

macro_rules! from_object {
    ($members:ty => $into:ty, $finish:expr) => {
        impl<'de> Deserialize<'de> for $into {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let members = deserializer.deserialize_map(ObjectOf::<$members>(PhantomData))?;
                let finish: fn($members) -> Result<Self, &'static str> = $finish;
                finish(members).map_err(serde::de::Error::custom)
            }
        }
    };
}

from_object!(AnyObject => AnyObject, Ok);
from_object!(KeyRequestMembers => KeyRequestBody, |members| Ok(members.body));
from_object!(KeyIdsMembers => KeyIdsBody, |members| Ok(KeyIdsBody(members.0.unwrap_or_default())));
from_object!(KeyIdMembers => KeyIdName, |members| members.0.map(KeyIdName).ok_or("key_ID is missing"));

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
