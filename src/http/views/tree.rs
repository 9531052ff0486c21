//! A task with the tree of its tokens, and the calls made with each token.

use serde::Serialize;
use serde_json::Value;

use crate::{
    app::{TaskTree, TokenNode},
    domain::{audit::Record, time::Timestamp},
    http::views::{TaskView, TokenView},
};

/// A task with the tree of its tokens.
#[derive(Serialize)]
pub(in crate::http) struct TaskTreeView {
    #[serde(flatten)]
    task: TaskView,
    tokens: Vec<TokenNodeView>,
    /// Whether older tokens or calls are omitted.
    more: bool,
}

impl TaskTreeView {
    pub(in crate::http) fn new(tree: TaskTree, now: Timestamp) -> Self {
        let tokens = tree.tokens.into_iter().map(Into::into).collect();
        Self { task: TaskView::new(tree.task, now), tokens, more: tree.has_more }
    }
}

/// A token in the tree of its task.
#[derive(Serialize)]
struct TokenNodeView {
    #[serde(flatten)]
    token: TokenView,
    standing: &'static str,
    calls: Vec<CallView>,
    derived: Vec<TokenNodeView>,
}

/// A call, as reported by the resource.
#[derive(Serialize)]
struct CallView {
    at: String,
    /// The report: `call`, `tool`, `arguments` (a digest), `outcome`, `data`, and the facts about
    /// the token at that time.
    #[serde(flatten)]
    report: Option<Value>,
}

impl From<Record> for CallView {
    fn from(record: Record) -> Self {
        Self { at: record.at.to_rfc3339(), report: record.requested }
    }
}

impl From<TokenNode> for TokenNodeView {
    fn from(node: TokenNode) -> Self {
        Self {
            token: node.token.into(),
            standing: node.standing.as_str(),
            calls: node.calls.into_iter().map(Into::into).collect(),
            derived: node.derived.into_iter().map(Into::into).collect(),
        }
    }
}
