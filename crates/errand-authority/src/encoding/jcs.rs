//! JSON Canonicalization Scheme (JCS, RFC 8785): the text of a value that is hashed and audited. A
//! value has exactly one.
//!
//! Errand's own values usually have sorted members and short integers, so that their plain text is
//! canonical already. A check of the text recognizes most of these; all others go through the
//! library, which costs about ten times as much.

use serde::Serialize;

/// Returns the canonical text of a value, or `None` if it has none: a number that is not finite, or
/// a map whose keys are not strings.
pub fn to_string<T: Serialize>(value: &T) -> Option<String> {
    let plain = serde_json::to_string(value).ok()?;
    if is_canonical(&plain) { Some(plain) } else { serde_json_canonicalizer::to_string(value).ok() }
}

/// The container at a position of the text.
enum Container<'a> {
    Array,
    /// An object, with the last name so far.
    Object(Option<&'a str>),
}

/// Returns whether a text that `serde_json` wrote is canonical. May answer no for a canonical text:
/// with names outside plain ASCII, which are ordered by UTF-16, and with numbers that a double may
/// not represent exactly.
fn is_canonical(text: &str) -> bool {
    let mut containers = Vec::with_capacity(8);
    let (mut rest, mut at_name) = (text, false);
    while let Some(first) = rest.bytes().next() {
        let (token, after) = match first {
            b'"' => split_string(rest),
            b'-' | b'0'..=b'9' => split_number(rest),
            _ => rest.split_at_checked(1).unwrap_or((rest, "")),
        };
        rest = after;
        match first {
            b'{' => containers.push(Container::Object(None)),
            b'[' => containers.push(Container::Array),
            b'}' | b']' => drop(containers.pop()),
            b'"' if at_name => {
                let Some(Container::Object(last)) = containers.last_mut() else { return false };
                if !is_plain_ascii(token) || last.is_some_and(|last| last >= token) {
                    return false;
                }
                *last = Some(token);
            }
            b'-' | b'0'..=b'9' if !is_short_integer(token) => return false,
            _ => {}
        }
        at_name = match first {
            b'{' => true,
            b',' => matches!(containers.last(), Some(Container::Object(_))),
            _ => false,
        };
    }
    true
}

/// Splits off a string, without its quotes and with its escapes.
fn split_string(text: &str) -> (&str, &str) {
    let mut end = 1;
    while let Some(next) =
        text.as_bytes().get(end..).and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'\\')))
    {
        end += next;
        if text.as_bytes().get(end) == Some(&b'"') {
            break;
        }
        end += "\\n".len();
    }
    (text.get(1..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default())
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Returns whether a name sorts equally by bytes and by UTF-16. Excludes escapes.
fn is_plain_ascii(name: &str) -> bool {
    name.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
}

/// Returns whether a number is an integer of up to fifteen digits: a double represents it exactly,
/// and its canonical form is the same.
fn is_short_integer(number: &str) -> bool {
    number.len() <= 15 && number.bytes().all(|b| b == b'-' || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Map, Value, json};

    use super::*;

    fn number() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1_000_i64..1_000).prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{0,3}", "[ -~]{0,6}", any::<String>(), "[\u{0}-\u{1f}\"\\\\\u{7f}é\u{e000}\u{ffff}🦀]{0,4}"]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), text().prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                vec((text(), inner), 0..6).prop_map(|members| Value::Object(Map::from_iter(members))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn to_string_agrees_with_canonicalizer_library(value in value()) {
            let want = serde_json_canonicalizer::to_string(&value).unwrap();
            prop_assert_eq!(to_string(&value), Some(want.clone()));
            let plain = value.to_string();
            prop_assert!(!is_canonical(&plain) || plain == want);
        }
    }

    #[test]
    fn is_canonical_recognizes_sorted_plain_text() {
        for canonical in [
            json!({"a": 1, "a b": [{"x": null}, {"a": "\"\\{\u{1}é"}], "b": {"a": true, "b": {}}, "c": -999}),
            json!([]),
            json!("x\\"),
            json!({"aud": "x", "exp": 1_790_000_000, "scope": "a b"}),
        ] {
            assert!(is_canonical(&canonical.to_string()), "{canonical}");
        }
        for other in [
            r#"{"b":1,"a":2}"#,
            r#"{"x":[{"b":1,"a":2}]}"#,
            r#"{"a":{"z":1},"A":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"é":1}"#,
            r#"{"\n":1}"#,
            "1.0",
            "[1e3]",
            "1234567890123456",
        ] {
            assert!(!is_canonical(other), "{other}");
        }
    }
}
