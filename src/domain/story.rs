//! The trail of a task in plain words: one sentence a record, for whoever wants to know what happened.

use serde_json::Value;

use crate::domain::audit::{Event, Outcome, Record};

/// What a record of a task's trail is about.
#[must_use]
pub fn chapter(record: &Record) -> &'static str {
    match record.event {
        Event::TokenIssue if is_opening(record) => "intent",
        Event::TokenIssue | Event::BreakGlassUse => "exchange",
        Event::TokenIntrospect => "introspection",
        Event::ToolCall => "call",
        Event::Revocation => "revocation",
        Event::TaskTurn => "state",
        Event::ClientAuthenticate
        | Event::RegistryChange
        | Event::CatalogueChange
        | Event::SecretChange
        | Event::GrantChange
        | Event::BreakGlassMake
        | Event::BreakGlassReview
        | Event::KeyRotate
        | Event::KeyRevoke => "other",
    }
}

/// Says what a record says. What strangers wrote into it can't steer a terminal.
#[must_use]
pub fn tell(record: &Record) -> String {
    let text = match record.event {
        Event::TokenIssue => issue(record),
        Event::TokenIntrospect => introspection(record),
        Event::ToolCall => call(record),
        Event::Revocation => revocation(record),
        Event::TaskTurn => turn(record),
        Event::BreakGlassUse => format!("{} got it by a grant for an emergency: break-glass", client(record)),
        Event::ClientAuthenticate
        | Event::RegistryChange
        | Event::CatalogueChange
        | Event::SecretChange
        | Event::GrantChange
        | Event::BreakGlassMake
        | Event::BreakGlassReview
        | Event::KeyRotate
        | Event::KeyRevoke => "something else happened that names this task".to_owned(),
    };
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether it is no sign of its own but does something to others: moves the cursor, turns writing around, hides.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The exchange that opened the task: of a token of the requester, and not to join one that was there.
fn is_opening(record: &Record) -> bool {
    let derived = in_granted(record, "lineage").and_then(Value::as_array).is_none_or(|lineage| !lineage.is_empty());
    record.outcome == Outcome::Done && !derived && in_asked(record, "task_id").is_none()
}

fn issue(record: &Record) -> String {
    let client = client(record);
    if record.outcome != Outcome::Done {
        return format!("{client} was refused a token: {}", reason(record));
    }
    let tools = tools(record);
    let target = record.resource.as_deref().unwrap_or("an unknown resource");
    let requester = record.requester.as_ref().map_or("somebody", |requester| requester.subject.as_str());
    if is_opening(record) {
        // So that it ends where it ends.
        let purpose = record.purpose.as_deref().unwrap_or("an unknown purpose").replace('"', "'");
        return format!(
            "{requester} sent {client} on an errand, \"{purpose}\": {client} got a token for {tools} at {target}"
        );
    }
    match (in_granted(record, "kind").and_then(Value::as_str), in_asked(record, "requested_actor")) {
        (Some("hand_over"), Some(Value::String(to))) => format!("{client} handed {tools} over to {to}"),
        (Some("txn"), _) => format!("{client} got a transaction token for {tools}, for {target}"),
        _ => format!("{client} got a token for {tools} at {target}, in the name of {requester}"),
    }
}

fn introspection(record: &Record) -> String {
    let agent = agent(record);
    let answer = if record.outcome == Outcome::Active { "it was live" } else { "it was not" };
    format!("{} asked about a token of {agent}: {answer}", client(record))
}

fn call(record: &Record) -> String {
    let word = |name| in_asked(record, name).and_then(Value::as_str).unwrap_or("unknown");
    let touched = in_asked(record, "data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let touched = touched.iter().map(|one| {
        let count = one.get("count").and_then(Value::as_u64).unwrap_or_default();
        format!("{count} {}", one.get("class").and_then(Value::as_str).unwrap_or("unknown"))
    });
    let touched = touched.collect::<Vec<_>>().join(", ");
    let touched = if touched.is_empty() { String::new() } else { format!(", and touched {touched}") };
    let is_named = in_asked(record, "named_by_token").and_then(Value::as_bool).unwrap_or(false);
    let warning = if is_named { "" } else { " (the token does not name this tool)" };
    let late = match word("token_standing") {
        "revoked" => " (reported when the token had been taken back)",
        "suspended" => " (reported while the token was held back)",
        "expired" => " (reported when the token had expired)",
        _ => "",
    };
    let (agent, tool, outcome) = (agent(record), word("tool"), word("outcome"));
    format!("{agent} called {tool} at {}{warning}: it {} {outcome}{touched}{late}", client(record), verb(outcome))
}

/// "it has succeeded", "it has failed", "it was refused".
fn verb(outcome: &str) -> &'static str {
    if outcome == "refused" { "was" } else { "has" }
}

fn revocation(record: &Record) -> String {
    if record.outcome != Outcome::Done {
        return format!("{} was not allowed to take a token back: {}", who(record), reason(record));
    }
    let what = match in_asked(record, "kind").and_then(Value::as_str) {
        Some("task") => "the task, with all its tokens,",
        _ => "a token, with all that was derived from it,",
    };
    let why = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} took {what} back{why}", who(record))
}

fn turn(record: &Record) -> String {
    if record.outcome != Outcome::Done {
        let act = in_asked(record, "act").and_then(Value::as_str).unwrap_or("change");
        return format!("{} wanted to {act} the task, in vain: {}", who(record), reason(record));
    }
    let why = record.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let outcome = in_granted(record, "outcome").and_then(Value::as_str);
    let outcome = outcome.map(|outcome| format!("; what came of it: {outcome}")).unwrap_or_default();
    let done = match in_granted(record, "state").and_then(Value::as_str) {
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
    format!("{} {done}{why}{outcome}", who(record))
}

fn who(record: &Record) -> &str {
    record.admin.as_deref().or(record.by.as_deref()).unwrap_or_else(|| client(record))
}

fn client(record: &Record) -> &str {
    record.client.as_ref().map_or("somebody", |client| client.as_str())
}

fn agent(record: &Record) -> &str {
    record.agents.first().map_or("somebody", String::as_str)
}

fn reason(record: &Record) -> &str {
    record.reason.as_deref().unwrap_or("no reason is on record")
}

/// The tools that were granted, by their names.
fn tools(record: &Record) -> String {
    let details = in_granted(record, "authorization_details").and_then(Value::as_array).map(Vec::as_slice);
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

fn in_asked<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.asked.as_ref().and_then(|asked| asked.get(name))
}

fn in_granted<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.granted.as_ref().and_then(|granted| granted.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn what_strangers_wrote_steers_no_terminal() {
        let mut record = Record::new(Timestamp::EPOCH, Event::TokenIntrospect, Outcome::Inactive);
        record.agents = vec!["\u{1b}[2Jplanner\n\u{202e}\u{2066}\u{200b}é".into()];
        let want = "somebody asked about a token of \u{fffd}[2Jplanner\u{fffd}\u{fffd}\u{fffd}\u{fffd}é: it was not";
        assert_eq!(tell(&record), want);
        let mut opening = Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done);
        opening.purpose = Some("a report\", and got all of it for \"nothing".into());
        opening.granted = Some(json!({"lineage": []}));
        assert!(
            tell(&opening).contains("errand, \"a report', and got all of it for 'nothing\": "),
            "{}",
            tell(&opening)
        );
    }

    #[test]
    fn every_record_has_a_sentence() {
        for event in [
            Event::TokenIssue,
            Event::TokenIntrospect,
            Event::ToolCall,
            Event::Revocation,
            Event::TaskTurn,
            Event::BreakGlassUse,
            Event::KeyRotate,
            Event::KeyRevoke,
        ] {
            for outcome in [Outcome::Done, Outcome::Refused, Outcome::Active, Outcome::Inactive, Outcome::Failed] {
                // Records of another version may have anything where this one looks.
                for odd in [None, Some(json!("x")), Some(json!({"kind": 1, "data": [1], "lineage": {}, "state": []}))] {
                    let mut record = Record::new(Timestamp::EPOCH, event, outcome);
                    record.asked.clone_from(&odd);
                    record.granted = odd;
                    assert!(!tell(&record).is_empty() && !chapter(&record).is_empty());
                }
            }
        }
    }
}
