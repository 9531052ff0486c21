//! Strict JSON for untrusted input: rejects duplicate members (RFC 8725bis, I-JSON) and deep
//! nesting.
//!
//! Of two members with one name, `serde_json` keeps the last, and another parser may keep the
//! first. A signature over such a text covers two meanings, so the text is rejected.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// JSON that is not strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid JSON, a duplicate member, or nested too deeply")]
pub struct StrictJsonError;

/// Parses strict JSON with at most `depth` levels (a scalar is level 0).
pub fn parse(text: &[u8], depth: usize) -> Result<Value, StrictJsonError> {
    let mut input = serde_json::Deserializer::from_slice(text);
    let value = StrictValueVisitor { depth }.deserialize(&mut input).map_err(|_| StrictJsonError)?;
    input.end().map_err(|_| StrictJsonError)?;
    Ok(value)
}

/// Parses a strict JSON object member by member, without collecting them. `take` gets each name and
/// value, and returns whether the name is new. The values are parsed strictly, as parts of an
/// object of at most `depth` levels.
pub fn for_each_member(
    text: &[u8],
    depth: usize,
    take: impl FnMut(&str, Value) -> bool,
) -> Result<(), StrictJsonError> {
    let mut input = serde_json::Deserializer::from_slice(text);
    input.deserialize_map(MemberVisitor { depth, handler: take }).map_err(|_| StrictJsonError)?;
    input.end().map_err(|_| StrictJsonError)
}

/// Parses a JSON object directly into a type that is strict itself: it denies unknown members, and
/// reads values of arbitrary kind or depth with [`deserialize_members`] only.
pub fn parse_own<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, StrictJsonError> {
    let text = std::str::from_utf8(text).map_err(|_| StrictJsonError)?;
    // serde accepts an array for a struct.
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok()).flatten().ok_or(StrictJsonError)
}

/// Deserializes a strict object of at most `depth` levels, or `null`.
///
/// # Errors
///
/// Returns an error if the input is neither, has a duplicate member, or nests deeper.
pub fn deserialize_members<'de, D>(input: D, depth: usize) -> Result<Option<Map<String, Value>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match (StrictValueVisitor { depth }).deserialize(input)? {
        Value::Null => Ok(None),
        Value::Object(members) => Ok(Some(members)),
        _ => Err(de::Error::custom("must be an object")),
    }
}

/// Parses a strict JSON object into a type.
pub fn parse_as<T: for<'de> Deserialize<'de>>(text: &[u8], depth: usize) -> Result<T, StrictJsonError> {
    let value = parse(text, depth)?;
    if !value.is_object() {
        return Err(StrictJsonError);
    }
    serde_json::from_value(value).map_err(|_| StrictJsonError)
}

struct StrictValueVisitor {
    depth: usize,
}

impl StrictValueVisitor {
    fn descend<E: de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for StrictValueVisitor {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValueVisitor {
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
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
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
        while let Some(item) = items.next_element_seed(self.descend()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(DUPLICATE_MEMBER));
            }
            object.insert(name, members.next_value_seed(self.descend()?)?);
        }
        Ok(Value::Object(object))
    }
}

const DUPLICATE_MEMBER: &str = "duplicate member";

struct MemberVisitor<F> {
    depth: usize,
    handler: F,
}

impl<'de, F: FnMut(&str, Value) -> bool> Visitor<'de> for MemberVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key_seed(MemberName)? {
            let value = members.next_value_seed(StrictValueVisitor { depth: self.depth }.descend()?)?;
            if !(self.handler)(&name, value) {
                return Err(de::Error::custom(DUPLICATE_MEMBER));
            }
        }
        Ok(())
    }
}

/// Reads the name of a member, borrowed if possible.
struct MemberName;

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for MemberName {
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
    use serde::de::value::{BytesDeserializer, Error as ValueError, U64Deserializer};

    use super::*;

    #[test]
    fn errors_say_what_is_expected() {
        let bytes = || BytesDeserializer::<ValueError>::new(b"");
        let number = || U64Deserializer::<ValueError>::new(1);
        let members = MemberVisitor { depth: 1, handler: |_: &str, _| true };
        for (error, expected) in [
            (StrictValueVisitor { depth: 1 }.deserialize(bytes()).unwrap_err(), "JSON"),
            (number().deserialize_map(members).unwrap_err(), "an object"),
            (MemberName.deserialize(number()).unwrap_err(), "a name"),
        ] {
            assert!(error.to_string().ends_with(&format!(", expected {expected}")), "{error}");
        }
        assert_eq!(deserialize_members(number(), 1).unwrap_err().to_string(), "must be an object");
    }

    #[test]
    fn parse_ambiguous_json_is_rejected() {
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
            assert_eq!(parse(bad.as_bytes(), 8), Err(StrictJsonError), "{bad}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}", 8).is_err());
        assert_eq!(parse(br#" {"a":[1,-2,0.5,"x",null,true]} "#, 8).unwrap()["a"][2], 0.5);
    }

    #[test]
    fn parse_beyond_depth_limit_is_rejected_without_stack_overflow() {
        assert!(parse(b"[[1]]", 2).is_ok());
        assert!(parse(b"[[[1]]]", 2).is_err());
        assert!(parse("[".repeat(100_000).as_bytes(), 64).is_err());
        assert!(parse_as::<Value>(b"[]", 8).is_err(), "not an object");
    }
}
