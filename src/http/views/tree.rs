//! A task and everything that came of it: the tree of its tokens, and the calls with each.

use serde::Serialize;
use serde_json::Value;

use super::{TaskView, TokenView};
use crate::{
    app::{TaskTree, TokenNode},
    domain::{audit::Record, time::Timestamp},
};

/// A task with the tree of its tokens.
#[derive(Serialize)]
pub(in crate::http) struct TaskTreeView {
    #[serde(flatten)]
    task: TaskView,
    tokens: Vec<TokenNodeView>,
    /// Whether there are older tokens or calls that are not shown.
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

/// A call, as its resource reported it.
#[derive(Serialize)]
struct CallView {
    at: String,
    /// The report: `call`, `tool`, `arguments` (a digest), `outcome`, `data`, and what was known of the token then.
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
