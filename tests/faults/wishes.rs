//! What an admin asks for, in the words of the API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::history::{Selection, Target, Verb};

const REASON: &str = "the fault test";

/// A change that is asked for. Sent again, it is the same request.
#[derive(Clone, Debug)]
pub struct Wish {
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub verb: Verb,
    pub target: Target,
    /// Its idempotency key, where there is such a thing.
    pub key: Option<String>,
}

impl Wish {
    fn new(path: String, body: Value, verb: Verb, target: Target) -> Self {
        let key = Some(uuid::Uuid::new_v4().to_string());
        Self { method: Method::POST, path, body, verb, target, key }
    }

    /// One thing is taken back, or somebody is shut out or let in.
    pub fn change(verb: Verb, target: Target) -> Self {
        let (kind, key) = target.in_log();
        let mut body = match key.split_once(' ') {
            Some((issuer, subject)) => json!({"issuer": issuer, "subject": subject}),
            None if kind == "resource" => json!({"uri": key}),
            None => json!({"id": key}),
        };
        body["kind"] = json!(kind);
        body["reason"] = json!(REASON);
        match verb {
            Verb::End => {}
            Verb::Disable => body["disable"] = json!(true),
            Verb::Suspend | Verb::Resume | Verb::Enable => body["verb"] = word(verb),
        }
        Self::new("/v1/admin/revocations".to_owned(), body, verb, target)
    }

    /// Something is done to a task: `suspend`, `resume`, `complete`, `fail`.
    pub fn turn(task: &str, act: &str) -> Self {
        let (verb, body) = match act {
            "suspend" => (Verb::Suspend, json!({"reason": REASON})),
            "resume" => (Verb::Resume, json!({})),
            "fail" => (Verb::End, json!({"reason": REASON})),
            _ => (Verb::End, json!({})),
        };
        Self::new(format!("/v1/admin/tasks/{task}/{act}"), body, verb, Target::Task(task.to_owned()))
    }

    /// Something is done to many tasks: what is shown before. See [`Wish::confirmed`].
    pub fn selection(verb: Verb, selection: Selection) -> Self {
        let mut body = json!({"kind": "tasks", "reason": REASON, "verb": word(verb), "dry_run": true});
        if let Some((issuer, subject)) = selection.requester.as_ref().and_then(|requester| requester.split_once(' ')) {
            (body["issuer"], body["subject"]) = (json!(issuer), json!(subject));
        }
        if let Some(agent) = &selection.agent {
            body["agent"] = json!(agent);
        }
        if !selection.ids.is_empty() {
            body["ids"] = json!(selection.ids);
        }
        let wish = Self::new("/v1/admin/revocations".to_owned(), body, verb, Target::Tasks(selection));
        Self { key: None, ..wish }
    }

    /// What was shown is to be done.
    pub fn confirmed(mut self, confirmation: &str) -> Self {
        let body = self.body.as_object_mut().unwrap();
        body.remove("dry_run");
        body.insert("confirmation".to_owned(), json!(confirmation));
        Self { key: Some(confirmation.to_owned()), ..self }
    }

    /// A grant is withdrawn.
    pub fn withdraw(grant: &str) -> Self {
        let wish =
            Self::new(format!("/v1/admin/grants/{grant}"), Value::Null, Verb::End, Target::Grant(grant.to_owned()));
        Self { method: Method::DELETE, key: None, ..wish }
    }

    /// A signing key is removed.
    pub fn remove_key(key: &str) -> Self {
        let path = format!("/v1/admin/keys/{key}/revoke");
        Self::new(path, json!({"reason": REASON}), Verb::End, Target::Key(key.to_owned()))
    }
}

fn word(verb: Verb) -> Value {
    json!(match verb {
        Verb::End => "revoke",
        Verb::Suspend => "suspend",
        Verb::Resume => "resume",
        Verb::Disable => "disable",
        Verb::Enable => "enable",
    })
}
