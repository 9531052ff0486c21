//! JSON from strangers, read strictly: no member twice (RFC 8725bis, I-JSON), no endless nesting.
//!
//! `serde_json` keeps the last of two equal members and another parser may keep the first; a signature over such a text
//! means two things. So the text is refused.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// JSON that we don't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not JSON, nested too deep, or a member stands in it twice")]
pub struct NotStrictJson;

/// Reads JSON whose objects have no member twice and that is at most `depth` levels deep (a scalar is level 0).
pub fn parse(text: &[u8], depth: usize) -> Result<Value, NotStrictJson> {
    let mut input = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth }.deserialize(&mut input).map_err(|_| NotStrictJson)?;
    input.end().map_err(|_| NotStrictJson)?;
    Ok(value)
}

/// Reads a strict JSON object member by member, without keeping it: `take` gets each with its name, and says whether it is
/// the first one of that name. What is in a member is read strictly, as part of an object that is `depth` levels deep.
pub fn each_member(text: &[u8], depth: usize, take: impl FnMut(&str, Value) -> bool) -> Result<(), NotStrictJson> {
    let mut input = serde_json::Deserializer::from_slice(text);
    input.deserialize_map(Members { depth, take }).map_err(|_| NotStrictJson)?;
    input.end().map_err(|_| NotStrictJson)
}

/// Reads a JSON object straight into a type that is as strict itself: one that denies what it does not know, and in which
/// nothing is of any depth or any kind but what `members` or the like have read.
pub fn parse_own<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, NotStrictJson> {
    let text = std::str::from_utf8(text).map_err(|_| NotStrictJson)?;
    // To serde, an array is a struct too.
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok()).flatten().ok_or(NotStrictJson)
}

/// Reads the members of a strict object that stands in a text of ours, or `null`, and is at most `depth` levels deep.
pub(super) fn members<'de, D>(input: D, depth: usize) -> Result<Option<Map<String, Value>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match (Strict { depth }).deserialize(input)? {
        Value::Null => Ok(None),
        Value::Object(members) => Ok(Some(members)),
        _ => Err(de::Error::custom("must be an object")),
    }
}

/// Reads a strict JSON object straight into a type of ours.
pub fn parse_as<T: for<'de> Deserialize<'de>>(text: &[u8], depth: usize) -> Result<T, NotStrictJson> {
    let value = parse(text, depth)?;
    if !value.is_object() {
        return Err(NotStrictJson);
    }
    serde_json::from_value(value).map_err(|_| NotStrictJson)
}

struct Strict {
    depth: usize,
}

impl Strict {
    fn below<E: de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(TWICE));
            }
            object.insert(name, members.next_value_seed(self.below()?)?);
        }
        Ok(Value::Object(object))
    }
}

const TWICE: &str = "member stands twice";

struct Members<F> {
    depth: usize,
    take: F,
}

impl<'de, F: FnMut(&str, Value) -> bool> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key_seed(Name)? {
            let value = members.next_value_seed(Strict { depth: self.depth }.below()?)?;
            if !(self.take)(&name, value) {
                return Err(de::Error::custom(TWICE));
            }
        }
        Ok(())
    }
}

/// The name of a member, where it stands.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_two_parsers_could_read_in_two_ways() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"[{"a":1,"a":1}]"#,
            r#"{"a":1} x"#,
            r#"{"a":1}{"a":1}"#,
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            "",
            "\u{feff}{}",
        ] {
            assert_eq!(parse(bad.as_bytes(), 8), Err(NotStrictJson), "{bad}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}", 8).is_err());
        assert_eq!(parse(br#" {"a":[1,-2,0.5,"x",null,true]} "#, 8).unwrap()["a"][2], 0.5);
    }

    #[test]
    fn depth_is_counted_and_never_a_stack_overflow() {
        assert!(parse(b"[[1]]", 2).is_ok());
        assert!(parse(b"[[[1]]]", 2).is_err());
        assert!(parse("[".repeat(100_000).as_bytes(), 64).is_err());
        assert!(parse_as::<Value>(b"[]", 8).is_err(), "an object is wanted");
    }
}
