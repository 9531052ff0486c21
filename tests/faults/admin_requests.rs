//! The requests of an admin, in the wire form of the API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::history::{Action, Target, TaskSelection};

const REASON: &str = "the fault test";

/// A request for a change. A retry sends the same value and is therefore the same request.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub verb: Action,
    pub target: Target,
    /// The idempotency key or the confirmation, if the request has one.
    pub key: Option<String>,
}

impl AdminRequest {
    fn new(path: String, body: Value, verb: Action, target: Target) -> Self {
        let key = Some(uuid::Uuid::new_v4().to_string());
        Self { method: Method::POST, path, body, verb, target, key }
    }

    /// Returns the request that revokes, suspends, resumes, blocks or unblocks one target.
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

    /// Returns the request for a task transition: `suspend`, `resume`, `complete` or `fail`.
    pub fn transition(task: &str, transition: &str) -> Self {
        let (verb, body) = match transition {
            "suspend" => (Action::Suspend, json!({"reason": REASON})),
            "resume" => (Action::Resume, json!({})),
            "fail" => (Action::End, json!({"reason": REASON})),
            _ => (Action::End, json!({})),
        };
        Self::new(format!("/v1/admin/tasks/{task}/{transition}"), body, verb, Target::Task(task.to_owned()))
    }

    /// Returns the dry run of a change of many tasks. [`AdminRequest::confirmed`] executes it.
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
        let request = Self::new("/v1/admin/revocations".to_owned(), body, verb, Target::Tasks(selection));
        Self { key: None, ..request }
    }

    /// Returns the request that executes the change of the dry run.
    pub fn confirmed(mut self, confirmation: &str) -> Self {
        let body = self.body.as_object_mut().unwrap();
        body.remove("dry_run");
        body.insert("confirmation".to_owned(), json!(confirmation));
        Self { key: Some(confirmation.to_owned()), ..self }
    }

    /// Returns the request that withdraws a grant.
    pub fn withdraw(grant: &str) -> Self {
        let request =
            Self::new(format!("/v1/admin/grants/{grant}"), Value::Null, Action::End, Target::Grant(grant.to_owned()));
        Self { method: Method::DELETE, key: None, ..request }
    }

    /// Returns the request that removes a signing key.
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
