//! A task with everything that came of it: the tree of its tokens, what each is worth, and the calls with it.

use crate::{
    app::{ApiCaller, Error, RequestContext, Service},
    domain::{audit::Record, id::TaskId, revocation::Standing, task::Task, time::Timestamp},
    ports::{PageRequest, TokenFilter, TokenRecord},
};

/// The most tokens that are shown of a task.
const MAX_TOKENS: u32 = 1000;

/// A task with the tokens that came of it.
#[derive(Debug)]
pub struct TaskTree {
    /// The task.
    pub task: Task,
    /// The tokens that were exchanged for a token of the requester, each with what was derived from it; oldest first.
    pub tokens: Vec<TokenNode>,
    /// Whether it has more tokens, or calls, than are shown: then the newest are.
    pub has_more: bool,
}

/// A token in the tree of its task.
#[derive(Debug)]
pub struct TokenNode {
    /// Its record.
    pub token: TokenRecord,
    /// What it is worth now.
    pub standing: TokenStanding,
    /// The records of the calls with it that its resource reported, oldest first.
    pub calls: Vec<Record>,
    /// The tokens that were derived from it, oldest first.
    pub derived: Vec<TokenNode>,
}

/// What a token is worth: its expiry, and what the log says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStanding {
    /// It works.
    Live,
    /// It is held back.
    Suspended,
    /// It was ended.
    Revoked,
    /// Its time is over.
    Expired,
}

impl TokenStanding {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    pub(in crate::app) fn from_standing(standing: Standing, expires: Timestamp, now: Timestamp) -> Self {
        match standing {
            Standing::Revoked => Self::Revoked,
            Standing::Live | Standing::Suspended if expires.has_passed(now) => Self::Expired,
            Standing::Suspended => Self::Suspended,
            Standing::Live => Self::Live,
        }
    }
}

impl Service {
    /// One task with the tree of its tokens, as of now.
    pub async fn read_task_tree(&self, admin: &ApiCaller, id: TaskId, cx: &RequestContext) -> Result<TaskTree, Error> {
        let task = self.read_task(id).await?;
        let of_task = TokenFilter { task: Some(id), ..TokenFilter::default() };
        let page = self.store().list_tokens(&of_task, &PageRequest { cursor: None, limit: MAX_TOKENS }).await?;
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

/// Puts every token below the one that it was derived from; what has no such one here stands at the top. A token is
/// derived from older ones only, so from the deepest lineage up, everything finds its place.
fn build_tree(mut nodes: Vec<TokenNode>) -> Vec<TokenNode> {
    let deepest = nodes.iter().map(|node| node.token.lineage.len()).max().unwrap_or_default();
    let mut tops = Vec::new();
    for depth in (1..=deepest).rev() {
        let (below, mut above): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.token.lineage.len() == depth);
        for node in below {
            match above.iter_mut().find(|parent| node.token.lineage.last() == Some(&parent.token.id)) {
                Some(parent) => parent.derived.push(node),
                None => tops.push(node),
            }
        }
        nodes = above;
    }
    nodes.extend(tops);
    nodes.sort_by_key(|node| (node.token.issued, node.token.id));
    nodes
}
