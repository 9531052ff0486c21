//! Plain-language rendering of a task's audit trail: one sentence for each record.

use serde_json::Value;

use crate::domain::{
    audit::{Event, Outcome, Record, wire_name},
    printable::escape_invisible,
};

/// Returns the category of a record in the trail of a task.
#[must_use]
pub fn category(record: &Record) -> &'static str {
    match record.event {
        Event::TokenIssue if opens_task(record) => "intent",
        Event::TokenIssue | Event::BreakGlassUse => "exchange",
        Event::TokenIntrospect => "introspection",
        Event::CallEvaluate => "decision",
        Event::ToolCall => "call",
        Event::Revocation => "revocation",
        Event::TaskTransition => "state",
        Event::ClientAuthenticate
        | Event::RegistryChange
        | Event::CatalogueChange
        | Event::SecretChange
        | Event::GrantChange
        | Event::BreakGlassCreate
        | Event::BreakGlassReview
        | Event::AdminApprove
        | Event::KeyRotate
        | Event::KeyRevoke
        | Event::KeyRekey
        | Event::AuditCheckpoint
        | Event::AuditPrune
        | Event::PersonForget
        | Event::IssuerKeysRefresh => "other",
    }
}

/// Describes a record in one sentence. Invisible characters are escaped, because other parties
/// wrote parts of the record and must not be able to control a terminal.
#[must_use]
pub fn describe(record: &Record) -> String {
    let text = match record.event {
        Event::TokenIssue => describe_issue(record),
        Event::TokenIntrospect => describe_introspection(record),
        Event::CallEvaluate => describe_evaluation(record),
        Event::ToolCall => describe_call(record),
        Event::Revocation => describe_revocation(record),
        Event::TaskTransition => describe_transition(record),
        Event::BreakGlassUse => format!("{} used a break-glass grant to get the token", client_name(record)),
        Event::ClientAuthenticate
        | Event::RegistryChange
        | Event::CatalogueChange
        | Event::SecretChange
        | Event::GrantChange
        | Event::BreakGlassCreate
        | Event::BreakGlassReview
        | Event::AdminApprove
        | Event::KeyRotate
        | Event::KeyRevoke
        | Event::KeyRekey
        | Event::AuditCheckpoint
        | Event::AuditPrune
        | Event::PersonForget
        | Event::IssuerKeysRefresh => format!("another event about this task ({})", wire_name(record.event)),
    };
    escape_invisible(&text).into_owned()
}

/// Returns whether this exchange opened the task: with a token of the requester, and without
/// joining an existing task.
fn opens_task(record: &Record) -> bool {
    let derived = grant_field(record, "lineage").and_then(Value::as_array).is_none_or(|lineage| !lineage.is_empty());
    record.outcome == Outcome::Done && !derived && request_field(record, "task_id").is_none()
}

fn describe_issue(record: &Record) -> String {
    let client = client_name(record);
    if record.outcome != Outcome::Done {
        return format!("{client} was refused a token: {}", reason_text(record));
    }
    let tools = tool_list(record);
    let target = record.resource.as_deref().unwrap_or("an unknown resource");
    let requester = record.requester.as_ref().map_or("an unknown requester", |requester| requester.subject.as_str());
    if opens_task(record) {
        // A quotation mark in the purpose must not end the quotation.
        let purpose = record.purpose.as_deref().unwrap_or("an unknown purpose").replace('"', "'");
        return format!(
            "{requester} delegated \"{purpose}\" to {client}: {client} got a token for {tools} at {target}"
        );
    }
    match (grant_field(record, "kind").and_then(Value::as_str), request_field(record, "requested_actor")) {
        (Some("hand_over"), Some(Value::String(to))) => format!("{client} delegated {tools} to {to}"),
        (Some("txn"), _) => format!("{client} got a transaction token for {tools} in {target}"),
        _ => format!("{client} got a token for {tools} at {target} on behalf of {requester}"),
    }
}

fn describe_introspection(record: &Record) -> String {
    let state = if record.outcome == Outcome::Active { "active" } else { "inactive" };
    format!("{} introspected a token of {}: {state}", client_name(record), agent_name(record))
}

fn describe_evaluation(record: &Record) -> String {
    let word = |name| request_field(record, name).and_then(Value::as_str);
    let subject = word("tool").or(word("action")).unwrap_or("an unknown action");
    let at = word("at").map(|at| format!(" ({at})")).unwrap_or_default();
    let decision = match record.outcome {
        Outcome::Done => "permitted".to_owned(),
        _ => format!("denied: {}{at}", reason_text(record)),
    };
    format!("{} asked for {subject} at {}: {decision}", agent_name(record), client_name(record))
}

fn describe_call(record: &Record) -> String {
    let word = |name| request_field(record, name).and_then(Value::as_str).unwrap_or("unknown");
    let data = request_field(record, "data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let counts = data.iter().map(|access| {
        let count = access.get("count").and_then(Value::as_u64).unwrap_or_default();
        let class = access.get("class").and_then(Value::as_str).unwrap_or("unknown");
        format!("{count} {class} {}", if count == 1 { "record" } else { "records" })
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    let accessed = if counts.is_empty() { String::new() } else { format!("; accessed {counts}") };
    let is_named = request_field(record, "named_by_token").and_then(Value::as_bool).unwrap_or(false);
    let warning = if is_named { "" } else { " (the token does not name this tool)" };
    let late = match word("token_standing") {
        "revoked" => " (reported after the token was revoked)",
        "suspended" => " (reported while the token was suspended)",
        "expired" => " (reported after the token expired)",
        _ => "",
    };
    let (agent, resource) = (agent_name(record), client_name(record));
    format!("{agent} called {} at {resource}{warning}: {}{accessed}{late}", word("tool"), word("outcome"))
}

fn describe_revocation(record: &Record) -> String {
    let actor = actor_name(record);
    let is_task = request_field(record, "kind").and_then(Value::as_str) == Some("task");
    if record.outcome != Outcome::Done {
        let target = if is_task { "the task" } else { "a token" };
        return format!("{actor} could not revoke {target}: {}", reason_text(record));
    }
    let target = if is_task { "the task and all its tokens" } else { "a token and all tokens derived from it" };
    format!("{actor} revoked {target}{}", reason_suffix(record))
}

fn describe_transition(record: &Record) -> String {
    let actor = actor_name(record);
    if record.outcome != Outcome::Done {
        let action = request_field(record, "verb").and_then(Value::as_str).unwrap_or("change");
        return format!("{actor} could not {action} the task: {}", reason_text(record));
    }
    let reason = reason_suffix(record);
    let outcome = grant_field(record, "outcome").and_then(Value::as_str);
    let outcome = outcome.map(|outcome| format!("; outcome: {outcome}")).unwrap_or_default();
    let ended = |action: &str| format!("{actor} {action}{reason}; all its tokens ended{outcome}");
    match grant_field(record, "state").and_then(Value::as_str) {
        Some("active") => format!("{actor} resumed the task{reason}"),
        Some("suspended") => format!("{actor} suspended the task{reason}"),
        Some("completed") => ended("completed the task"),
        Some("failed") => ended("ended the task as failed"),
        Some("revoked") if record.by.as_deref().is_some_and(|by| by.starts_with("grant:")) => {
            "the grant on which the task is based was withdrawn; the task ended".to_owned()
        }
        Some("revoked") if record.by.as_deref() == Some("removal") => {
            "the agent that opened the task, or the issuer of its requester, was removed; the task ended".to_owned()
        }
        Some("revoked") if record.by.as_deref() == Some("revocation") => {
            "the requester, their issuer, or the agent that opened the task was revoked; the task ended".to_owned()
        }
        Some("revoked") => ended("revoked the task"),
        Some("expired") => "the task ended at its deadline".to_owned(),
        _ => format!("{actor} changed the task{reason}{outcome}"),
    }
}

fn reason_suffix(record: &Record) -> String {
    record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn actor_name(record: &Record) -> &str {
    record.admin.as_deref().or(record.by.as_deref()).unwrap_or_else(|| client_name(record))
}

fn client_name(record: &Record) -> &str {
    record.client.as_ref().map_or("an unknown client", |client| client.as_str())
}

fn agent_name(record: &Record) -> &str {
    record.agents.first().map_or("an unknown agent", String::as_str)
}

fn reason_text(record: &Record) -> &str {
    record.reason.as_deref().unwrap_or("no recorded reason")
}

/// Returns the names of the granted tools.
fn tool_list(record: &Record) -> String {
    let details = grant_field(record, "authorization_details").and_then(Value::as_array).map(Vec::as_slice);
    // A permission to list names no tool, so its action is shown.
    let action = |detail: &Value| {
        detail.get("actions").and_then(|actions| actions.get(0)).and_then(Value::as_str).map(str::to_owned)
    };
    let name =
        |detail: &Value| detail.get("identifier").and_then(Value::as_str).map(str::to_owned).or_else(|| action(detail));
    let names = details.unwrap_or_default().iter().filter_map(name);
    let names = names.collect::<Vec<_>>().join(", ");
    if names.is_empty() { "no tools".to_owned() } else { names }
}

fn request_field<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.requested.as_ref().and_then(|requested| requested.get(name))
}

fn grant_field<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.granted.as_ref().and_then(|granted| granted.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn describe_escapes_terminal_control_characters() {
        let mut record = Record::new(Timestamp::EPOCH, Event::TokenIntrospect, Outcome::Inactive);
        record.agents = vec!["\u{1b}[2Jplanner\n\u{202e}\u{2066}\u{200b}é".into()];
        let want = "an unknown client introspected a token of \\u001b[2Jplanner\\u000a\\u202e\\u2066\\u200bé: inactive";
        assert_eq!(describe(&record), want);
        let mut opening = Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done);
        opening.purpose = Some("a report\", and got all of it for \"nothing".into());
        opening.granted = Some(json!({"lineage": []}));
        assert!(
            describe(&opening).contains("delegated \"a report', and got all of it for 'nothing\" to "),
            "{}",
            describe(&opening)
        );
    }

    #[test]
    fn describe_returns_text_for_every_event_and_outcome() {
        for event in [
            Event::TokenIssue,
            Event::TokenIntrospect,
            Event::CallEvaluate,
            Event::ToolCall,
            Event::Revocation,
            Event::TaskTransition,
            Event::BreakGlassUse,
            Event::KeyRotate,
            Event::KeyRevoke,
            Event::IssuerKeysRefresh,
        ] {
            for outcome in [Outcome::Done, Outcome::Refused, Outcome::Active, Outcome::Inactive, Outcome::Failed] {
                // Records of another version may have any JSON in these fields.
                for odd in [None, Some(json!("x")), Some(json!({"kind": 1, "data": [1], "lineage": {}, "state": []}))] {
                    let mut record = Record::new(Timestamp::EPOCH, event, outcome);
                    record.requested.clone_from(&odd);
                    record.granted = odd;
                    assert!(!describe(&record).is_empty() && !category(&record).is_empty());
                }
            }
        }
    }
}
