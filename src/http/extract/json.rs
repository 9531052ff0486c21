//! JSON bodies: media type, size limit, strict parsing, and errors that name the member.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use serde::{
    Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use serde_path_to_error::{Path, Segment};

use crate::{
    app::RequestError,
    domain::{authority::Arg, encoding::strict_json},
    http::{AppState, error::problem::Problem, extract::body::read_body},
};

/// Maximum nesting of a body.
const MAX_DEPTH: usize = 16;
/// Maximum length of a member name in an error text.
const MAX_NAME_LENGTH: usize = 32;

/// A JSON object in the body that has exactly the members of `T`.
#[derive(Debug)]
pub(in crate::http) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        let (text, object) = read_object(request).await?;
        check_numbers(&text, &object)?;
        Ok(Self(from_value(object)?))
    }
}

/// Like [`JsonBody`], but deserialized from the text itself, so that numbers in a raw value keep
/// every digit.
#[derive(Debug)]
pub(in crate::http) struct RawJsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for RawJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        let (text, _) = read_object(request).await?;
        Ok(Self(deserialize(&mut serde_json::Deserializer::from_slice(&text))?))
    }
}

/// Deserializes a JSON value. An error names the member.
pub(in crate::http) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, RequestError> {
    deserialize(value)
}

/// Deserializes an enum whose variant is the member `tag`, and whose other members are those of the
/// variant. An error names the member, unlike that of serde's internally tagged enums.
pub(in crate::http) fn from_tagged<T: DeserializeOwned>(
    mut members: Map<String, Value>,
    tag: &str,
) -> Result<T, RequestError> {
    let variant = match members.remove(tag) {
        Some(Value::String(variant)) => variant,
        Some(_) => return Err(RequestError::MalformedJson(format!("`{tag}` must be a string"))),
        None => return Err(RequestError::MalformedJson(format!("missing member `{tag}`"))),
    };
    let tagged = Map::from_iter([(variant, Value::Object(members))]);
    deserialize_as(Value::Object(tagged), &format!("`{tag}`"))
}

fn deserialize<'de, T: DeserializeOwned>(
    input: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, RequestError> {
    deserialize_as(input, "the body")
}

/// Deserializes. `whole` names the value in an error that concerns no single member of it.
fn deserialize_as<'de, T: DeserializeOwned>(
    input: impl Deserializer<'de, Error = serde_json::Error>,
    whole: &str,
) -> Result<T, RequestError> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        RequestError::MalformedJson(describe_mismatch(error.path(), whole, &error.inner().to_string()))
    })
}

/// Reads a body that must be a JSON object.
async fn read_object(request: Request) -> Result<(Bytes, Value), Problem> {
    if parse_media_type(request.headers()).is_none_or(|media| media != "application/json") {
        return Err(Problem::unsupported_media_type());
    }
    let body = read_body(request).await?.ok_or_else(Problem::too_large)?;
    Ok(parse_object(&body).map(|object| (body, object))?)
}

/// Parses strict JSON of at most `depth` levels that must be an object, and keeps every digit of
/// its numbers.
pub(in crate::http) fn parse_exact_object(body: &[u8], depth: usize) -> Result<BTreeMap<String, Arg>, RequestError> {
    let malformed = |text: &str| RequestError::MalformedJson(text.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?;
    match Arg::parse(text, depth) {
        Ok(Arg::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("must be an object")),
        Err(_) => Err(RequestError::MalformedJson(describe_rejected_text(text, depth))),
    }
}

fn parse_object(body: &[u8]) -> Result<Value, RequestError> {
    let value =
        strict_json::parse(body, MAX_DEPTH).map_err(|_| RequestError::MalformedJson(describe_rejected(body)))?;
    if value.is_object() { Ok(value) } else { Err(RequestError::MalformedJson("must be an object".into())) }
}

/// Rejects a body with a number that parsing rounded: a limit must not become a wider one.
fn check_numbers(body: &[u8], parsed: &Value) -> Result<(), RequestError> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    if Arg::is_lossless(text, MAX_DEPTH, parsed) {
        return Ok(());
    }
    let exact = Arg::parse(text, MAX_DEPTH).ok().zip(Arg::try_from(parsed.clone()).ok());
    let place = exact.and_then(|(exact, parsed)| find_difference(&exact, &parsed)).filter(|place| !place.is_empty());
    let subject = place.map_or_else(|| "the body".to_owned(), |place| format!("`{place}`"));
    Err(RequestError::MalformedJson(format!(
        "{subject} contains a number that a double can't represent exactly (RFC 8785); use fewer digits"
    )))
}

/// Returns the path to the first difference, as far as it consists of plain names.
fn find_difference(exact: &Arg, parsed: &Arg) -> Option<String> {
    let join = |first: String, rest: &str| match rest.chars().next() {
        None | Some('[') => first + rest,
        Some(_) => format!("{first}.{rest}"),
    };
    match (exact, parsed) {
        (Arg::List(exact), Arg::List(parsed)) => {
            exact.iter().zip(parsed).enumerate().find_map(|(n, (exact, parsed))| {
                let rest = find_difference(exact, parsed)?;
                Some(join(format!("[{n}]"), &rest))
            })
        }
        (Arg::Object(exact), Arg::Object(parsed)) => exact.iter().find_map(|(name, exact)| {
            let rest = find_difference(exact, parsed.get(name)?)?;
            Some(if is_plain(name) { join(name.clone(), &rest) } else { String::new() })
        }),
        _ => (exact != parsed).then(String::new),
    }
}

/// Returns the media type of the body, unless it declares a charset other than UTF-8.
pub(in crate::http) fn parse_media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().map(str::to_owned);
    let utf8 = parts.filter_map(|p| p.strip_prefix("charset=")).all(|set| set.trim_matches('"') == "utf-8");
    media.filter(|_| utf8)
}

// ---- error texts -------------------------------------------------------------------------------

/// Describes why a value does not have the expected form, from the path and the message of serde.
///
/// serde's message quotes what was sent before it names the expectation. Sent values must not
/// return to the client, so this function keeps only the expectation, which is the last part. It
/// names members, because a developer needs that.
fn describe_mismatch(path: &Path, whole: &str, message: &str) -> String {
    // `serde_json` appends the position in the text.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return match member_name(path, Depth::Whole) {
            None => format!("missing member `{name}`"),
            Some(parent) => format!("missing member `{parent}.{name}`"),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let known = rest.rsplit_once("`, expected ").map(|(name, _)| name);
        let name = known.or_else(|| rest.strip_suffix("`, there are no fields")).unwrap_or_default();
        if !is_plain(name) {
            return "unknown member".to_owned();
        }
        // With a struct, the path ends in the unknown member; with a tagged enum, it ends above.
        let is_last = matches!(path.iter().next_back(), Some(Segment::Map { key }) if key == name);
        return match member_name(path, if is_last { Depth::Parent } else { Depth::Whole }) {
            None => format!("unknown member `{name}`"),
            Some(parent) => format!("unknown member `{parent}.{name}`"),
        };
    }
    let subject = member_name(path, Depth::Whole).map_or_else(|| whole.to_owned(), |name| format!("`{name}`"));
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    if message.starts_with("unknown variant `") {
        // A list of words is ours if each is quoted; serde has another text where no word is
        // possible.
        let words = expected.map(|text| text.strip_prefix("one of ").map_or_else(|| text.to_owned(), str::to_owned));
        return match words.filter(|words| words.split([' ', ',']).all(is_quoted_word)) {
            Some(words) if words.contains(", ") => format!("{subject} must be one of {words}"),
            Some(words) => format!("{subject} must be {words}"),
            None => format!("{subject}: not a valid value"),
        };
    }
    // `serde_json` says "expected value" where an enum is neither a string nor an object.
    if message.starts_with("invalid type: ") || message == "expected value" {
        return match expected.and_then(json_type) {
            Some(expected) => format!("{subject} must be {expected}"),
            None => format!("{subject}: wrong type"),
        };
    }
    // The rule of the domain for this value. Its texts are fixed; those of other crates quote what
    // they reject.
    let is_fixed = !message.contains(['`', '"', '\'']) && !message.starts_with("invalid ");
    if is_fixed { format!("{subject}: {message}") } else { format!("{subject}: not a valid value") }
}

/// Returns whether this is a word of a list such as `` `a`, `b` or `c` ``.
fn is_quoted_word(word: &str) -> bool {
    word.is_empty()
        || word == "or"
        || word.strip_prefix('`').and_then(|word| word.strip_suffix('`')).is_some_and(is_plain)
}

/// Translates an expectation of serde to a JSON type.
fn json_type(expected: &str) -> Option<&'static str> {
    match expected {
        "a string" | "a borrowed string" | "a character" => Some("a string"),
        "a boolean" => Some("a boolean"),
        "an object" | "a map" => Some("an object"),
        "an array" | "a sequence" => Some("an array"),
        "an array of objects" => Some("an array of objects"),
        "u8" | "u16" | "u32" | "u64" | "usize" => Some("a non-negative integer"),
        "i8" | "i16" | "i32" | "i64" | "isize" => Some("an integer"),
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged enum ") => Some("an object"),
        _ if expected.starts_with("enum ") || expected.starts_with("variant identifier") => Some("a string"),
        _ => None,
    }
}

/// How much of a path names the member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Whole,
    Parent,
}

/// Returns the path to a member, such as `tools[0].name`, or `None` for the body itself. The path
/// ends before the first key that is not a plain name, because the caller may have chosen that key.
fn member_name(path: &Path, depth: Depth) -> Option<String> {
    let mut segments = path.iter().collect::<Vec<_>>();
    if depth == Depth::Parent {
        segments.pop();
    }
    let mut name = String::new();
    for segment in segments {
        match segment {
            Segment::Map { key } if is_plain(key) => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            Segment::Seq { index } => {
                name.push('[');
                name.push_str(&index.to_string());
                name.push(']');
            }
            // The variant of an enum is not a member of its own.
            Segment::Enum { .. } => {}
            _ => break,
        }
    }
    (!name.is_empty()).then_some(name)
}

/// Returns whether a name looks like a member of the API: short, a letter first, then letters,
/// digits and `_`. Other names are not repeated to the client, since a misplaced value could be
/// one.
fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Describes why strict parsing without loss of digits rejected a text.
fn describe_rejected_text(text: &str, depth: usize) -> String {
    if let Err(error) = serde_json::from_str::<&RawValue>(text) {
        return format!("not valid JSON at line {}, column {}", error.line(), error.column());
    }
    if nesting_of_text(text) > depth {
        return format!("nested more than {depth} levels deep");
    }
    find_duplicate(text.as_bytes()).unwrap_or_else(|| "a number whose exponent is too large".to_owned())
}

/// Returns the nesting of valid JSON, without recursion.
fn nesting_of_text(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns the text about the first duplicate member, if there is one.
fn find_duplicate(body: &[u8]) -> Option<String> {
    let text = FindDuplicate.deserialize(&mut serde_json::Deserializer::from_slice(body)).err()?.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    text.starts_with(DUPLICATE).then(|| text.to_owned())
}

/// Describes why strict parsing rejected a body.
fn describe_rejected(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Err(error) => {
            format!("not valid JSON at line {}, column {}", error.line(), error.column())
        }
        Ok(value) if nesting(&value) > MAX_DEPTH => format!("nested more than {MAX_DEPTH} levels deep"),
        Ok(_) => find_duplicate(body).unwrap_or_else(|| "not strict JSON".to_owned()),
    }
}

fn nesting(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(nesting).max(),
        Value::Object(members) => members.values().map(nesting).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    below.unwrap_or_default() + 1
}

const DUPLICATE: &str = "duplicate member";

/// Fails at the first duplicate member and names it.
struct FindDuplicate;

impl<'de> DeserializeSeed<'de> for FindDuplicate {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FindDuplicate {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                let text = if is_plain(&name) { format!("{DUPLICATE} `{name}`") } else { DUPLICATE.to_owned() };
                return Err(de::Error::custom(text));
            }
            names.insert(name);
            members.next_value_seed(Self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::domain::id::ClientId;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialized")]
    struct Body {
        id: ClientId,
        reason: String,
        #[serde(default)]
        dry_run: bool,
        lifetime: Option<u32>,
        role: Option<Role>,
        details: Option<Box<RawValue>>,
        #[serde(default)]
        tools: Vec<Tool>,
        method: Option<Method>,
        #[serde(default)]
        names: BTreeMap<String, u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Role {
        Operator,
        Auditor,
        Owner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialized")]
    struct Tool {
        name: String,
        effect: Option<Effect>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Effect {
        Read,
        Write,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialized")]
    enum Method {
        Secret { age: u32 },
    }

    fn error_of<T: DeserializeOwned + fmt::Debug>(body: &str) -> [String; 2] {
        let object = parse_object(body.as_bytes()).unwrap();
        let text = |error| match error {
            RequestError::MalformedJson(text) => text,
            other => panic!("{other:?}"),
        };
        [
            text(from_value::<Value>(object.clone()).and_then(from_value::<T>).unwrap_err()),
            text(deserialize::<T>(&mut serde_json::Deserializer::from_slice(body.as_bytes())).unwrap_err()),
        ]
    }

    #[test]
    fn mismatch_names_the_member() {
        for (members, text) in [
            // Unknown members.
            (r#""foo":1"#, "unknown member `foo`"),
            (r#""foo bar":1"#, "unknown member"),
            (r#""a_name_that_is_longer_than_any_of_the_api":1"#, "unknown member"),
            (r#""x`, expected `secret":1"#, "unknown member"),
            (r#""tools":[{"name":"x","foo":1}]"#, "unknown member `tools[0].foo`"),
            (r#""method":{"kind":"secret","age":1,"foo":1}"#, "unknown member `method.foo`"),
            // Missing members.
            (r#""tools":[{"name":"x"},{}]"#, "missing member `tools[1].name`"),
            (r#""method":{"kind":"secret"}"#, "missing member `method.age`"),
            (r#""method":{}"#, "missing member `method.kind`"),
            // Wrong types.
            (r#""dry_run":"secret, expected a string""#, "`dry_run` must be a boolean"),
            (r#""lifetime":"secret""#, "`lifetime` must be a non-negative integer"),
            (r#""role":7"#, "`role`: wrong type"),
            (r#""tools":{}"#, "`tools` must be an array"),
            (r#""tools":["secret"]"#, "`tools[0]` must be an object"),
            (r#""tools":[{"name":7}]"#, "`tools[0].name` must be a string"),
            (r#""names":{"a secret of the caller":"x"}"#, "`names` must be a non-negative integer"),
            // Values.
            (r#""role":"secret, expected `x`""#, "`role` must be one of `operator`, `auditor`, `owner`"),
            (r#""tools":[{"name":"x","effect":"secret"}]"#, "`tools[0].effect` must be `read` or `write`"),
            (r#""method":{"kind":"secret2","age":1}"#, "`method.kind` must be `secret`"),
            (r#""lifetime":-1"#, "`lifetime`: not a valid value"),
            (r#""lifetime":4294967296"#, "`lifetime`: not a valid value"),
        ] {
            let body = format!(r#"{{"id":"reader","reason":"x",{members}}}"#);
            for error in error_of::<Body>(&body) {
                assert_eq!(error, text, "{members}");
            }
        }
        for (body, text) in [
            (r"{}", "missing member `id`"),
            (r#"{"id":"reader"}"#, "missing member `reason`"),
            (r#"{"id":"reader","reason":7}"#, "`reason` must be a string"),
            (r#"{"id":"reader","reason":null}"#, "`reason` must be a string"),
        ] {
            assert_eq!(error_of::<Body>(body), [text, text], "{body}");
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialized")]
    enum Target {
        Task { id: u32, tools: Option<Vec<Tool>> },
        Agents {},
    }

    #[test]
    fn mismatch_in_tagged_enum_names_the_member() {
        for (body, text) in [
            (r#"{"id":1}"#, "missing member `kind`"),
            (r#"{"kind":7,"id":1}"#, "`kind` must be a string"),
            (r#"{"kind":"secret","id":1}"#, "`kind` must be `task` or `agents`"),
            (r#"{"kind":"task"}"#, "missing member `id`"),
            (r#"{"kind":"task","id":"secret"}"#, "`id` must be a non-negative integer"),
            (r#"{"kind":"task","id":1,"foo":1}"#, "unknown member `foo`"),
            (r#"{"kind":"task","id":1,"tools":[{"name":7}]}"#, "`tools[0].name` must be a string"),
            (r#"{"kind":"agents","id":1}"#, "unknown member `id`"),
        ] {
            let Value::Object(members) = parse_object(body.as_bytes()).unwrap() else { panic!("{body}") };
            let RequestError::MalformedJson(error) = from_tagged::<Target>(members, "kind").unwrap_err() else {
                panic!("{body}")
            };
            assert_eq!(error, text, "{body}");
        }
    }

    #[test]
    fn invalid_value_has_the_rule_of_the_domain() {
        for error in error_of::<Body>(r#"{"id":"not an id","reason":"x"}"#) {
            assert!(error.starts_with("`id`: not a valid "), "{error}");
        }
    }

    #[test]
    fn rounded_number_is_rejected_with_its_place() {
        let check = |body: &str| check_numbers(body.as_bytes(), &parse_object(body.as_bytes()).unwrap());
        for exact in [r#"{"a":[1,-2.5,{"b":1e2}],"c":18446744073709551615,"d":0.1}"#, "{}", r#"{"a":1.0}"#] {
            assert_eq!(check(exact), Ok(()), "{exact}");
        }
        let rule = "contains a number that a double can't represent exactly (RFC 8785); use fewer digits";
        for (body, subject) in [
            (r#"{"max":99.99999999999999999}"#, "`max`"),
            (r#"{"a":[{"b":{"max":1}},{"b":{"max":99.99999999999999999}}]}"#, "`a[1].b.max`"),
            (r#"{"a":[[0],[18446744073709551616.5]]}"#, "`a[1][0]`"),
            (r#"{"a":{"a value":1e-400}}"#, "`a`"),
            (r#"{"a value":1e-400}"#, "the body"),
        ] {
            assert_eq!(check(body), Err(RequestError::MalformedJson(format!("{subject} {rule}"))), "{body}");
        }
    }

    #[test]
    fn raw_value_keeps_its_digits() {
        let body = br#"{"id":"reader","reason":"x","details":{"n":1.0000000000000000000001}}"#;
        let body = deserialize::<Body>(&mut serde_json::Deserializer::from_slice(body)).unwrap();
        assert_eq!(body.details.unwrap().get(), r#"{"n":1.0000000000000000000001}"#);
    }

    #[test]
    fn rejected_text_is_described() {
        let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        for exact in [r#"{"a":1e400,"b":[-0.10000000000000000000001]}"#, "{}", &nested(64), r#"{"a":"\\","b":"[{"}"#] {
            assert!(parse_exact_object(exact.as_bytes(), 64).is_ok(), "{exact}");
        }
        for (body, text) in [
            ("", "not valid JSON at line 1, column 0"),
            ("{\n  \"a\": secret}", "not valid JSON at line 2, column 8"),
            ("\u{feff}{}", "not valid JSON at line 1, column 1"),
            (r#"{"a":1} x"#, "not valid JSON at line 1, column 9"),
            ("[]", "must be an object"),
            (r#"{"a":[{"name":1,"name":1}]}"#, "duplicate member `name`"),
            (r#"{"a secret":1,"a secret":2}"#, "duplicate member"),
            (&nested(65), "nested more than 64 levels deep"),
            (&nested(10_000), "nested more than 64 levels deep"),
            (r#"{"a":1e99999999999999999999}"#, "a number whose exponent is too large"),
        ] {
            let error = parse_exact_object(body.as_bytes(), 64);
            assert_eq!(error, Err(RequestError::MalformedJson(text.into())), "{body}");
        }
        assert_eq!(parse_exact_object(b"{\"a\":\"\xff\"}", 64), Err(RequestError::MalformedJson("not UTF-8".into())));
    }

    #[test]
    fn rejected_body_is_described() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(16), "]".repeat(16));
        for (body, text) in [
            ("", "not valid JSON at line 1, column 0"),
            ("{\n  \"a\": secret}", "not valid JSON at line 2, column 8"),
            (r#"{"a":1e400}"#, "not valid JSON at line 1, column 10"),
            ("[]", "must be an object"),
            ("\"secret\"", "must be an object"),
            (r#"{"id":1,"id":2}"#, "duplicate member `id`"),
            (r#"{"id":1,"\u0069d":2}"#, "duplicate member `id`"),
            (r#"{"a":[{"name":1,"name":1}]}"#, "duplicate member `name`"),
            (r#"{"a secret":1,"a secret":2}"#, "duplicate member"),
            (&deep, "nested more than 16 levels deep"),
        ] {
            assert_eq!(parse_object(body.as_bytes()), Err(RequestError::MalformedJson(text.into())), "{body}");
        }
    }
}
