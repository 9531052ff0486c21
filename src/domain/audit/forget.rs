//! Which values of an audit record are about a person.

use serde_json::Value;

use super::{personal::PERSONAL_MEMBERS, record::Record};
use crate::domain::requester::Requester;

/// Returns the members of a record whose values name or describe a person: all of them if the
/// person is the requester or acted, and otherwise those in which the person is named.
///
/// A person is named by the issuer together with the subject. A subject alone may be any word, and
/// a longer subject that begins alike is another person's.
#[must_use]
pub fn members_about(record: &Record, person: &Requester) -> Vec<&'static str> {
    let name = format!("{} {}", person.issuer, person.subject);
    let is_by_person = record.by.as_ref().is_some_and(|by| *by == format!("requester:{name}"));
    if record.requester.as_ref() == Some(person) || is_by_person {
        return PERSONAL_MEMBERS.to_vec();
    }
    let in_text = |text: &Option<String>| text.as_ref().is_some_and(|text| is_named_in(text, &name));
    let in_json = |value: &Option<Value>| value.as_ref().is_some_and(|value| names(value, person, &name));
    let is_named = |member: &&str| match *member {
        "by" => in_text(&record.by),
        "granted" => in_json(&record.granted),
        "purpose" => in_text(&record.purpose),
        "reason" => in_text(&record.reason),
        "requested" => in_json(&record.requested),
        "resource" => in_text(&record.resource),
        "source" => in_text(&record.source),
        _ => false,
    };
    PERSONAL_MEMBERS.into_iter().filter(is_named).collect()
}

fn names(value: &Value, person: &Requester, name: &str) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => is_named_in(text, name),
        Value::Array(items) => items.iter().any(|item| names(item, person, name)),
        Value::Object(members) => {
            let is = |key: &str, text: &str| members.get(key).and_then(Value::as_str) == Some(text);
            (is("issuer", person.issuer.as_str()) && is("subject", person.subject.as_str()))
                || members.values().any(|member| names(member, person, name))
        }
    }
}

/// Returns whether a text has the name as whole words.
fn is_named_in(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(start, _)| {
        let (before, rest) = text.split_at(start);
        let after = rest.strip_prefix(name).unwrap_or_default();
        !before.ends_with(char::is_alphanumeric) && !continues_name(after)
    })
}

/// Returns whether a subject goes on. Punctuation that ends a sentence does not continue it.
fn continues_name(after: &str) -> bool {
    let after = after.trim_start_matches(['.', ',', ';', ':', '!', '?']);
    after.starts_with(|c: char| c.is_alphanumeric() || "-_@+|/~=%&#$*".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        audit::{Event, Outcome},
        time::Timestamp,
    };

    #[test]
    fn values_about_a_person_are_found() {
        let person = |subject: &str| Requester {
            issuer: "https://login.example.com".parse().unwrap(),
            subject: subject.parse().unwrap(),
        };
        let alice = person("alice");
        let text = |text: &str| Some(text.to_owned());
        let none = || Record::new(Timestamp::EPOCH, Event::Revocation, Outcome::Done);
        let name = "https://login.example.com alice";
        for (record, want) in [
            (none(), &[][..]),
            (Record { requester: Some(alice.clone()), ..none() }, &PERSONAL_MEMBERS[..]),
            (Record { requester: Some(person("bob")), purpose: text("ask alice"), ..none() }, &[]),
            (Record { by: text(&format!("requester:{name}")), ..none() }, &PERSONAL_MEMBERS[..]),
            (Record { by: text("requester:https://login.example.com alicent"), ..none() }, &[]),
            (Record { reason: text(&format!("{name}: lost phone")), ..none() }, &["reason"]),
            (Record { reason: text(&format!("see \"{name}\".")), ..none() }, &["reason"]),
            (Record { reason: text(&format!("{name}.smith and {name}-2, {name}@b, {name}|x")), ..none() }, &[]),
            (Record { reason: text(&format!("{name}.smith and {name}.")), ..none() }, &["reason"]),
            (Record { resource: text(&format!("{name} planner")), ..none() }, &["resource"]),
            (Record { requested: Some(json!({"key": format!("{name}t")})), ..none() }, &[]),
            (Record { reason: text(&format!("x{name}")), ..none() }, &[]),
            (Record { reason: text(&format!("blocked {name}")), ..none() }, &["reason"]),
            (Record { resource: text(&format!("requester {name}")), ..none() }, &["resource"]),
            (Record { requested: Some(json!({"key": name})), ..none() }, &["requested"]),
            (Record { requested: Some(json!({"subject": "alice"})), ..none() }, &[]),
            (
                Record {
                    granted: Some(json!([{"issuer": "https://login.example.com", "subject": "alice"}])),
                    ..none()
                },
                &["granted"],
            ),
            (
                Record { granted: Some(json!({"issuer": "https://other.example.com", "subject": "alice"})), ..none() },
                &[],
            ),
        ] {
            assert_eq!(members_about(&record, &alice), want, "{record:?}");
        }
    }
}
