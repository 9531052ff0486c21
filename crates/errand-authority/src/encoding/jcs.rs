//! The canonical text of a value (RFC 8785): what is hashed, and what is put on record. One value has one such text.
//!
//! What we write ourselves mostly has its members in order already, and its numbers are short and whole: then its plain
//! text is the canonical one. That is looked at, and where it is not so, or not seen at once to be so, the library puts
//! it in order, which costs about ten times as much.

use serde::Serialize;

/// The canonical text. None where there is none: a number that is none, a map whose keys are no names.
pub fn to_string<T: Serialize>(value: &T) -> Option<String> {
    let plain = serde_json::to_string(value).ok()?;
    if is_canonical(&plain) { Some(plain) } else { serde_json_canonicalizer::to_string(value).ok() }
}

/// What the text is in at some place.
enum Container<'a> {
    Array,
    /// An object, and its last name so far.
    Object(Option<&'a str>),
}

/// Whether a text that `serde_json` has written is canonical. It may say no of one that is: of names that are not plain
/// ASCII, whose order is that of UTF-16, and of numbers that a double might hold otherwise.
fn is_canonical(text: &str) -> bool {
    let mut within = Vec::with_capacity(8);
    let (mut rest, mut at_name) = (text, false);
    while let Some(first) = rest.bytes().next() {
        let (token, after) = match first {
            b'"' => split_string(rest),
            b'-' | b'0'..=b'9' => split_number(rest),
            _ => rest.split_at_checked(1).unwrap_or((rest, "")),
        };
        rest = after;
        match first {
            b'{' => within.push(Container::Object(None)),
            b'[' => within.push(Container::Array),
            b'}' | b']' => drop(within.pop()),
            b'"' if at_name => {
                let Some(Container::Object(last)) = within.last_mut() else { return false };
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
            b',' => matches!(within.last(), Some(Container::Object(_))),
            _ => false,
        };
    }
    true
}

/// A string, as it stands there without its quotes, and what comes after it.
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

/// Names like this stand in one order, by bytes as by UTF-16. A quote mark, which ends them here, is less than all of them.
fn is_plain_ascii(name: &str) -> bool {
    name.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
}

/// Up to fifteen digits: a double holds that exactly and is written in this way.
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
        for good in [
            json!({"a": 1, "a b": [{"x": null}, {"a": "\"\\{\u{1}é"}], "b": {"a": true, "b": {}}, "c": -999}),
            json!([]),
            json!("x\\"),
            json!({"aud": "x", "exp": 1_790_000_000, "scope": "a b"}),
        ] {
            assert!(is_canonical(&good.to_string()), "{good}");
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
