//! The trail of a task in plain words: one sentence a record, for whoever wants to know what happened.

use serde_json::Value;

use crate::domain::audit::{Event, Outcome, Record};

/// What a record of a task's trail is about.
#[must_use]
pub fn category(record: &Record) -> &'static str {
    match record.event {
        Event::TokenIssue if opens_task(record) => "intent",
        Event::TokenIssue | Event::BreakGlassUse => "exchange",
        Event::TokenIntrospect => "introspection",
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
        | Event::KeyRotate
        | Event::KeyRevoke => "other",
    }
}

/// Says what a record says. What strangers wrote into it can't steer a terminal.
#[must_use]
pub fn describe(record: &Record) -> String {
    let text = match record.event {
        Event::TokenIssue => describe_issue(record),
        Event::TokenIntrospect => describe_introspection(record),
        Event::ToolCall => describe_call(record),
        Event::Revocation => describe_revocation(record),
        Event::TaskTransition => describe_transition(record),
        Event::BreakGlassUse => format!("{} got it by a grant for an emergency: break-glass", client_name(record)),
        Event::ClientAuthenticate
        | Event::RegistryChange
        | Event::CatalogueChange
        | Event::SecretChange
        | Event::GrantChange
        | Event::BreakGlassCreate
        | Event::BreakGlassReview
        | Event::KeyRotate
        | Event::KeyRevoke => "something else happened that names this task".to_owned(),
    };
    text.chars().map(|c| if is_bidi_or_control(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether it is no sign of its own but does something to others: moves the cursor, turns writing around, hides.
fn is_bidi_or_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The exchange that opened the task: of a token of the requester, and not to join one that was there.
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
    let requester = record.requester.as_ref().map_or("somebody", |requester| requester.subject.as_str());
    if opens_task(record) {
        // So that it ends where it ends.
        let purpose = record.purpose.as_deref().unwrap_or("an unknown purpose").replace('"', "'");
        return format!(
            "{requester} sent {client} on an errand, \"{purpose}\": {client} got a token for {tools} at {target}"
        );
    }
    match (grant_field(record, "kind").and_then(Value::as_str), request_field(record, "requested_actor")) {
        (Some("hand_over"), Some(Value::String(to))) => format!("{client} handed {tools} over to {to}"),
        (Some("txn"), _) => format!("{client} got a transaction token for {tools}, for {target}"),
        _ => format!("{client} got a token for {tools} at {target}, in the name of {requester}"),
    }
}

fn describe_introspection(record: &Record) -> String {
    let agent = agent_name(record);
    let answer = if record.outcome == Outcome::Active { "it was live" } else { "it was not" };
    format!("{} asked about a token of {agent}: {answer}", client_name(record))
}

fn describe_call(record: &Record) -> String {
    let word = |name| request_field(record, name).and_then(Value::as_str).unwrap_or("unknown");
    let touched = request_field(record, "data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let touched = touched.iter().map(|one| {
        let count = one.get("count").and_then(Value::as_u64).unwrap_or_default();
        format!("{count} {}", one.get("class").and_then(Value::as_str).unwrap_or("unknown"))
    });
    let touched = touched.collect::<Vec<_>>().join(", ");
    let touched = if touched.is_empty() { String::new() } else { format!(", and touched {touched}") };
    let is_named = request_field(record, "named_by_token").and_then(Value::as_bool).unwrap_or(false);
    let warning = if is_named { "" } else { " (the token does not name this tool)" };
    let late = match word("token_standing") {
        "revoked" => " (reported when the token had been taken back)",
        "suspended" => " (reported while the token was held back)",
        "expired" => " (reported when the token had expired)",
        _ => "",
    };
    let (agent, tool, outcome) = (agent_name(record), word("tool"), word("outcome"));
    format!(
        "{agent} called {tool} at {}{warning}: it {} {outcome}{touched}{late}",
        client_name(record),
        outcome_verb(outcome)
    )
}

/// "it has succeeded", "it has failed", "it was refused".
fn outcome_verb(outcome: &str) -> &'static str {
    if outcome == "refused" { "was" } else { "has" }
}

fn describe_revocation(record: &Record) -> String {
    if record.outcome != Outcome::Done {
        return format!("{} was not allowed to take a token back: {}", actor_name(record), reason_text(record));
    }
    let what = match request_field(record, "kind").and_then(Value::as_str) {
        Some("task") => "the task, with all its tokens,",
        _ => "a token, with all that was derived from it,",
    };
    let why = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} took {what} back{why}", actor_name(record))
}

fn describe_transition(record: &Record) -> String {
    if record.outcome != Outcome::Done {
        let act = request_field(record, "act").and_then(Value::as_str).unwrap_or("change");
        return format!("{} wanted to {act} the task, in vain: {}", actor_name(record), reason_text(record));
    }
    let why = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let outcome = grant_field(record, "outcome").and_then(Value::as_str);
    let outcome = outcome.map(|outcome| format!("; what came of it: {outcome}")).unwrap_or_default();
    let done = match grant_field(record, "state").and_then(Value::as_str) {
        Some("active") => "resumed the task",
        Some("suspended") => "suspended the task",
        Some("completed") => "completed the task, and all its tokens ended",
        Some("failed") => "gave the task up, and all its tokens ended",
        Some("revoked") if record.by.as_deref().is_some_and(|by| by.starts_with("grant:")) => {
            return "the grant that the task rests on was withdrawn: the task is over".to_owned();
        }
        Some("revoked") if record.by.as_deref() == Some("removal") => {
            return "the agent that opened the task, or the issuer of its requester, was removed: the task is over"
                .to_owned();
        }
        Some("revoked") => "took the task back, and all its tokens ended",
        Some("expired") => return "the task ended at its deadline".to_owned(),
        _ => "changed the task",
    };
    format!("{} {done}{why}{outcome}", actor_name(record))
}

fn actor_name(record: &Record) -> &str {
    record.admin.as_deref().or(record.by.as_deref()).unwrap_or_else(|| client_name(record))
}

fn client_name(record: &Record) -> &str {
    record.client.as_ref().map_or("somebody", |client| client.as_str())
}

fn agent_name(record: &Record) -> &str {
    record.agents.first().map_or("somebody", String::as_str)
}

fn reason_text(record: &Record) -> &str {
    record.reason.as_deref().unwrap_or("no reason is on record")
}

/// The tools that were granted, by their names.
fn tool_list(record: &Record) -> String {
    let details = grant_field(record, "authorization_details").and_then(Value::as_array).map(Vec::as_slice);
    // What lists something names no tool.
    let action = |detail: &'_ Value| {
        detail.get("actions").and_then(|actions| actions.get(0)).and_then(Value::as_str).map(str::to_owned)
    };
    let name =
        |detail: &Value| detail.get("identifier").and_then(Value::as_str).map(str::to_owned).or_else(|| action(detail));
    let names = details.unwrap_or_default().iter().filter_map(name);
    let names = names.collect::<Vec<_>>().join(", ");
    if names.is_empty() { "nothing".to_owned() } else { names }
}

fn request_field<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.requested.as_ref().and_then(|asked| asked.get(name))
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
    fn describe_replaces_terminal_control_characters() {
        let mut record = Record::new(Timestamp::EPOCH, Event::TokenIntrospect, Outcome::Inactive);
        record.agents = vec!["\u{1b}[2Jplanner\n\u{202e}\u{2066}\u{200b}é".into()];
        let want = "somebody asked about a token of \u{fffd}[2Jplanner\u{fffd}\u{fffd}\u{fffd}\u{fffd}é: it was not";
        assert_eq!(describe(&record), want);
        let mut opening = Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done);
        opening.purpose = Some("a report\", and got all of it for \"nothing".into());
        opening.granted = Some(json!({"lineage": []}));
        assert!(
            describe(&opening).contains("errand, \"a report', and got all of it for 'nothing\": "),
            "{}",
            describe(&opening)
        );
    }

    #[test]
    fn describe_returns_text_for_every_event_and_outcome() {
        for event in [
            Event::TokenIssue,
            Event::TokenIntrospect,
            Event::ToolCall,
            Event::Revocation,
            Event::TaskTransition,
            Event::BreakGlassUse,
            Event::KeyRotate,
            Event::KeyRevoke,
        ] {
            for outcome in [Outcome::Done, Outcome::Refused, Outcome::Active, Outcome::Inactive, Outcome::Failed] {
                // Records of another version may have anything where this one looks.
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
