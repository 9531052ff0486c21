//! The tree of a task's tokens, with the standing of each token and its reported calls.

use crate::{
    app::{ApiCaller, Error, RequestContext, Service},
    domain::{audit::Record, id::TaskId, revocation::Standing, task::Task, time::Timestamp},
    ports::{PageRequest, TokenFilter, TokenRecord},
};

/// The maximum number of tokens in a tree.
const MAX_TOKENS: u32 = 1000;

/// A task and its tokens.
#[derive(Debug)]
pub struct TaskTree {
    /// The task.
    pub task: Task,
    /// The tokens that were exchanged for a token of the requester, oldest first. Each has its
    /// derived tokens.
    pub tokens: Vec<TokenNode>,
    /// Whether the task has more tokens or calls than are returned. The newest ones are returned.
    pub has_more: bool,
}

/// A token in the tree of its task.
#[derive(Debug)]
pub struct TokenNode {
    /// The token's record.
    pub token: TokenRecord,
    /// The token's standing now.
    pub standing: TokenStanding,
    /// The records of the calls that its resource reported, oldest first.
    pub calls: Vec<Record>,
    /// The tokens derived from it, oldest first.
    pub derived: Vec<TokenNode>,
}

impl TokenNode {
    /// Returns how many records the token, its calls and what is derived from it are.
    #[must_use]
    pub fn row_count(&self) -> usize {
        let derived = self.derived.iter().map(Self::row_count).sum::<usize>();
        derived.saturating_add(self.calls.len()).saturating_add(1)
    }
}

/// The standing of a token in the revocation log, or its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStanding {
    /// The token works.
    Live,
    /// The token, its task or an agent of its chain is suspended.
    Suspended,
    /// The token was revoked.
    Revoked,
    /// The token has expired.
    Expired,
}

impl TokenStanding {
    /// Returns the word of the API and of audit records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    pub(super) fn from_standing(standing: Standing, expires: Timestamp, now: Timestamp) -> Self {
        match standing {
            Standing::Revoked => Self::Revoked,
            Standing::Live | Standing::Suspended if expires.has_passed(now) => Self::Expired,
            Standing::Suspended => Self::Suspended,
            Standing::Live => Self::Live,
        }
    }
}

impl Service {
    /// Returns one task with the tree of its tokens.
    pub async fn read_task_tree(&self, admin: &ApiCaller, id: TaskId, cx: &RequestContext) -> Result<TaskTree, Error> {
        let task = self.read_task(id).await?;
        let filter = TokenFilter { task: Some(id), ..TokenFilter::default() };
        let page = self.store().list_tokens(&filter, &PageRequest { cursor: None, limit: MAX_TOKENS }).await?;
        let (reported, has_more_calls) = self.list_reported_calls(id).await?;
        let snapshot = admin.client().snapshot();
        let nodes = page.items.into_iter().rev().map(|token| {
            let standing =
                TokenStanding::from_standing(snapshot.standing(&token.revocation_keys()), token.expires, cx.now);
            let calls = reported.iter().filter(|call| call.token == Some(token.id)).cloned().collect();
            TokenNode { token, standing, calls, derived: Vec::new() }
        });
        let has_more = page.next.is_some() || has_more_calls;
        Ok(TaskTree { task, tokens: build_tree(nodes.collect()), has_more })
    }
}

/// Puts every token below its parent. A token whose parent is not in the list becomes a root. A
/// token is derived from older tokens only, so placing the deepest lineages first places every
/// token.
fn build_tree(mut nodes: Vec<TokenNode>) -> Vec<TokenNode> {
    let deepest = nodes.iter().map(|node| node.token.lineage.len()).max().unwrap_or_default();
    let mut roots = Vec::new();
    for depth in (1..=deepest).rev() {
        let (children, mut parents): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.token.lineage.len() == depth);
        for node in children {
            match parents.iter_mut().find(|parent| node.token.lineage.last() == Some(&parent.token.id)) {
                Some(parent) => parent.derived.push(node),
                None => roots.push(node),
            }
        }
        nodes = parents;
    }
    nodes.extend(roots);
    nodes.sort_by_key(|node| (node.token.issued, node.token.id));
    nodes
}
