//! What an admin asks for, in the words of the API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::history::{Action, Target, TaskSelection};

const REASON: &str = "the fault test";

/// A change that is asked for. Sent again, it is the same request.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub verb: Action,
    pub target: Target,
    /// Its idempotency key, where there is such a thing.
    pub key: Option<String>,
}

impl AdminRequest {
    fn new(path: String, body: Value, verb: Action, target: Target) -> Self {
        let key = Some(uuid::Uuid::new_v4().to_string());
        Self { method: Method::POST, path, body, verb, target, key }
    }

    /// One thing is taken back, or somebody is shut out or let in.
    pub fn change(verb: Action, target: Target) -> Self {
        let (kind, key) = target.log_key();
        let mut body = match key.split_once(' ') {
            Some((issuer, subject)) => json!({"issuer": issuer, "subject": subject}),
            None if kind == "resource" => json!({"uri": key}),
            None => json!({"id": key}),
        };
        body["kind"] = json!(kind);
        body["reason"] = json!(REASON);
        match verb {
            Action::End => {}
            Action::Block | Action::Suspend | Action::Resume | Action::Unblock => body["verb"] = action_name(verb),
        }
        Self::new("/v1/admin/revocations".to_owned(), body, verb, target)
    }

    /// Something is done to a task: `suspend`, `resume`, `complete`, `fail`.
    pub fn transition(task: &str, act: &str) -> Self {
        let (verb, body) = match act {
            "suspend" => (Action::Suspend, json!({"reason": REASON})),
            "resume" => (Action::Resume, json!({})),
            "fail" => (Action::End, json!({"reason": REASON})),
            _ => (Action::End, json!({})),
        };
        Self::new(format!("/v1/admin/tasks/{task}/{act}"), body, verb, Target::Task(task.to_owned()))
    }

    /// Something is done to many tasks: what is shown before. See [`Wish::confirmed`].
    pub fn selection(verb: Action, selection: TaskSelection) -> Self {
        let mut body = json!({"kind": "tasks", "reason": REASON, "verb": action_name(verb), "dry_run": true});
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
            Self::new(format!("/v1/admin/grants/{grant}"), Value::Null, Action::End, Target::Grant(grant.to_owned()));
        Self { method: Method::DELETE, key: None, ..wish }
    }

    /// A signing key is removed.
    pub fn remove_key(key: &str) -> Self {
        let path = format!("/v1/admin/keys/{key}/revoke");
        Self::new(path, json!({"reason": REASON}), Action::End, Target::Key(key.to_owned()))
    }
}

fn action_name(verb: Action) -> Value {
    json!(match verb {
        Action::End => "revoke",
        Action::Suspend => "suspend",
        Action::Resume => "resume",
        Action::Block => "block",
        Action::Unblock => "unblock",
    })
}
