//! Differences between two states of the registry, object by object and member by member.

use std::fmt;

use serde_json::Value;

use super::{Entry, ObjectKind};

/// A difference of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDifference {
    /// The kind of object.
    pub kind: ObjectKind,
    /// The id of the object.
    pub id: String,
    /// What differs.
    pub difference: Difference,
}

/// How an object differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the second state has it.
    Added,
    /// Only the first state has it.
    Removed,
    /// Both have it, with different members. An owner alone may differ as well.
    Changed(Vec<MemberDifference>),
}

/// A member with different values. An absent value is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDifference {
    /// The path of the member, with dots.
    pub path: String,
    /// The first value.
    pub before: Option<Value>,
    /// The second value.
    pub after: Option<Value>,
}

/// Returns the differences between two states: removed objects first, then the others in the order
/// of the second state.
#[must_use]
pub fn diff_entries(before: &[Entry], after: &[Entry]) -> Vec<ObjectDifference> {
    let find = |entries: &[Entry], wanted: &Entry| {
        let is_same = |e: &&Entry| e.object.kind() == wanted.object.kind() && e.object.id() == wanted.object.id();
        entries.iter().find(is_same).cloned()
    };
    let describe = |entry: &Entry, difference| ObjectDifference {
        kind: entry.object.kind(),
        id: entry.object.id().to_owned(),
        difference,
    };
    let removed = before.iter().filter(|entry| find(after, entry).is_none());
    let removed = removed.map(|entry| describe(entry, Difference::Removed));
    let others = after.iter().filter_map(|entry| match find(before, entry) {
        None => Some(describe(entry, Difference::Added)),
        Some(old) if old == *entry => None,
        Some(old) => Some(describe(entry, Difference::Changed(diff_members(&old, entry)))),
    });
    removed.chain(others).collect()
}

fn diff_members(before: &Entry, after: &Entry) -> Vec<MemberDifference> {
    let mut found = Vec::new();
    let to_value = |entry: &Entry| {
        let object = serde_json::to_value(&entry.object).unwrap_or_default();
        object.get("body").cloned().unwrap_or_default()
    };
    collect_differences("", &to_value(before), &to_value(after), &mut found);
    if before.source != after.source {
        let owner = |entry: &Entry| Some(Value::from(entry.source.as_str()));
        found.push(MemberDifference { path: "owner".into(), before: owner(before), after: owner(after) });
    }
    found
}

/// Compares objects member by member, and other values as a whole.
fn collect_differences(path: &str, before: &Value, after: &Value, found: &mut Vec<MemberDifference>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        let (before, after) = (Some(before.clone()), Some(after.clone()));
        found.push(MemberDifference { path: path.to_owned(), before, after });
        return;
    };
    let added = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(added) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (old.get(name), new.get(name)) {
            (Some(before), Some(after)) => collect_differences(&path, before, after, found),
            (before, after) => {
                found.push(MemberDifference { path, before: before.cloned(), after: after.cloned() });
            }
        }
    }
}

impl fmt::Display for ObjectDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = (self.kind, &self.id);
        match &self.difference {
            Difference::Added => write!(f, "add {kind} {id}"),
            Difference::Removed => write!(f, "remove {kind} {id}"),
            Difference::Changed(members) => {
                write!(f, "change {kind} {id}")?;
                for (n, member) in members.iter().enumerate() {
                    write!(f, "{}{member}", if n == 0 { ": " } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for MemberDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_VALUE_CHARS: usize = 200;
        let shorten = |value: &Option<Value>| match value {
            None => "none".to_owned(),
            Some(value) => {
                let text = value.to_string();
                let shortened = text.chars().take(MAX_VALUE_CHARS).collect::<String>();
                if shortened.len() < text.len() { format!("{shortened}…") } else { text }
            }
        };
        write!(f, "{} from {} to {}", self.path, shorten(&self.before), shorten(&self.after))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::registry::{RegistryObject, Source};

    fn admin(id: &str, role: &str, source: Source) -> Entry {
        let body = json!({"id": id, "role": role, "authentication": {"method": "client_secret_basic"}});
        let body = json!({"kind": "admin", "body": body});
        let object = serde_json::from_value::<RegistryObject>(body).unwrap();
        Entry { object, source }
    }

    #[test]
    fn every_difference_is_listed() {
        let before = [
            admin("audit", "auditor", Source::File),
            admin("ops", "operator", Source::File),
            admin("night", "auditor", Source::Api),
        ];
        let after = [
            admin("ops", "auditor", Source::File),
            admin("day", "auditor", Source::File),
            admin("night", "auditor", Source::File),
        ];
        let lines = diff_entries(&before, &after).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "remove admin audit",
                "change admin ops: role from \"operator\" to \"auditor\"",
                "add admin day",
                "change admin night: owner from \"api\" to \"file\"",
            ]
        );
        assert_eq!(diff_entries(&before, &before), []);
    }

    #[test]
    fn nested_members_are_compared_one_by_one() {
        let mut found = Vec::new();
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "d": null});
        collect_differences("", &before, &json!({"a": {"b": 2, "c": [1]}, "e": "x".repeat(300)}), &mut found);
        let lines = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines[..3], ["a.b from 1 to 2", "a.c from [1,2] to [1]", "d from null to none"]);
        assert!(lines[3].starts_with("e from none to \"xxx") && lines[3].ends_with('…') && lines[3].len() < 300);
    }
}
