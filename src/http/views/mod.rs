//! How things look in the JSON APIs. Times are RFC 3339; lists come in pages with a cursor.

mod tree;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::{CallReceipt, RevocationReceipt, TaskTrail, TrailEntry, TransitionOutcome},
    domain::{
        audit::{Record, WriterId},
        authority::Authority,
        grants::Grant,
        id::{CallId, ClientId, GrantId, KeyId, TaskId, TokenId},
        jose::jwk::SigningAlgorithm,
        keys::{KeySchedule, KeyState},
        registry::{Block, BlockKind, BlockSubject, Entry, Registry, RegistryObject, Source},
        revocation::LogEntry,
        task::{Requester, Task, TaskState, Transition, call_report::CallReport},
        time::Timestamp,
        token::TokenKind,
    },
    http::admin::replicas::PropagationView,
    ports::{AuditRow, Page, TokenRecord},
};

pub(super) use tree::TaskTreeView;

/// A page of anything.
#[derive(Serialize)]
pub(super) struct ListView<T> {
    items: Vec<T>,
    /// What to give as `after` for the next page; null on the last one.
    next: Option<String>,
}

impl<T> ListView<T> {
    pub(super) fn from_page<S>(page: Page<S>, view: impl Fn(S) -> T) -> Self {
        Self { items: page.items.into_iter().map(view).collect(), next: page.next }
    }

    pub(super) fn complete(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// An object of the registry with its owner; and whether an admin has shut it out, whatever it says itself.
#[derive(Serialize)]
pub(super) struct ObjectView {
    owner: Source,
    #[serde(flatten)]
    object: RegistryObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<BlockView>,
}

impl ObjectView {
    pub(super) fn new(entry: &Entry, registry: &Registry) -> Self {
        let who = BlockSubject::Object(entry.object.kind(), entry.object.id().to_owned());
        let shut_out = registry.find_block(&who).map(BlockView::from);
        Self { owner: entry.source, object: entry.object.clone(), block: shut_out }
    }
}

/// Somebody who is shut out.
#[derive(Serialize)]
pub(super) struct BlockView {
    kind: &'static str,
    id: String,
    mode: BlockKind,
    reason: String,
    by: String,
    at: String,
}

impl From<&Block> for BlockView {
    fn from(one: &Block) -> Self {
        Self {
            kind: one.subject.kind(),
            id: one.subject.id(),
            mode: one.kind,
            reason: one.reason.to_string(),
            by: one.by.clone(),
            at: one.at.to_rfc3339(),
        }
    }
}

/// A requester.
#[derive(Serialize)]
pub(super) struct RequesterView {
    issuer: String,
    subject: String,
}

impl From<&Requester> for RequesterView {
    fn from(requester: &Requester) -> Self {
        Self { issuer: requester.issuer.to_string(), subject: requester.subject.to_string() }
    }
}

/// A token's record; never the token.
#[derive(Serialize)]
pub(super) struct TokenView {
    jti: TokenId,
    kind: TokenKind,
    task: Option<TaskId>,
    grant: Option<GrantId>,
    /// Whether that grant is for an emergency.
    break_glass: bool,
    requester: Option<RequesterView>,
    client: ClientId,
    agents: Vec<ClientId>,
    audience: String,
    lineage: Vec<TokenId>,
    authorization_details: Authority,
    issued: String,
    expires: String,
    rev: u64,
}

impl From<TokenRecord> for TokenView {
    fn from(token: TokenRecord) -> Self {
        Self {
            jti: token.id,
            kind: token.kind,
            task: token.task,
            grant: token.grant,
            break_glass: token.break_glass,
            requester: token.requester.as_ref().map(Into::into),
            client: token.client,
            agents: token.agents,
            audience: token.audience,
            lineage: token.lineage,
            authorization_details: token.authority,
            issued: token.issued.to_rfc3339(),
            expires: token.expires.to_rfc3339(),
            rev: token.rev.number(),
        }
    }
}

/// A task.
#[derive(Serialize)]
pub(super) struct TaskView {
    id: TaskId,
    requester: RequesterView,
    root_agent: ClientId,
    purpose: String,
    authorization_details: Authority,
    authority_hash: String,
    state: TaskState,
    created: String,
    deadline: String,
    /// The grant that it rests on; null when it rests on none.
    grant: Option<GrantId>,
    /// The last change of its state; null when there was none.
    last_transition: Option<TransitionView>,
}

impl TaskView {
    pub(super) fn new(task: Task, now: Timestamp) -> Self {
        Self {
            state: task.state_at(now),
            id: task.id,
            requester: (&task.requester).into(),
            root_agent: task.root_agent,
            purpose: task.purpose.into(),
            authority_hash: task.authority.hash(),
            authorization_details: task.authority,
            created: task.created_at.to_rfc3339(),
            deadline: task.deadline.to_rfc3339(),
            grant: task.grant,
            last_transition: task.last_transition.map(Into::into),
        }
    }
}

/// A task whose state was changed, and how far the word of it got.
#[derive(Serialize)]
pub(super) struct TransitionedTaskView {
    #[serde(flatten)]
    task: TaskView,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl TransitionedTaskView {
    pub(super) fn new(TransitionOutcome { task, propagation: spread }: TransitionOutcome, now: Timestamp) -> Self {
        Self { task: TaskView::new(task, now), propagation: (&spread).into() }
    }
}

/// A change of a task's state.
#[derive(Serialize)]
pub(super) struct TransitionView {
    state: TaskState,
    at: String,
    by: String,
    reason: Option<String>,
    outcome: Option<String>,
}

impl From<Transition> for TransitionView {
    fn from(turn: Transition) -> Self {
        Self {
            state: turn.state,
            at: turn.at.to_rfc3339(),
            by: turn.by,
            reason: turn.reason.map(Into::into),
            outcome: turn.outcome.map(Into::into),
        }
    }
}

/// A report of a call that is on record.
#[derive(Serialize)]
pub(super) struct CallReceiptView {
    id: CallId,
    jti: TokenId,
    at: String,
    named_by_token: bool,
}

impl CallReceiptView {
    pub(super) fn new(report: &CallReport, reported: &CallReceipt) -> Self {
        let (at, named_by_token) = (reported.at.to_rfc3339(), reported.named_by_token);
        Self { id: report.id.clone(), jti: report.jti, at, named_by_token }
    }
}

/// A task and what happened in it, oldest first.
#[derive(Serialize)]
pub(super) struct TrailView {
    task: TaskView,
    steps: Vec<TrailEntryView>,
    /// Whether there are older steps that are not shown.
    more: bool,
    /// What to give as `after` to see those.
    next: Option<String>,
}

impl TrailView {
    pub(super) fn new(trail: TaskTrail, now: Timestamp) -> Self {
        let steps = trail.entries.into_iter().map(Into::into).collect();
        Self { task: TaskView::new(trail.task, now), steps, more: trail.next.is_some(), next: trail.next }
    }
}

/// A step: what it is about, in words, and the record; null if somebody edited that.
#[derive(Serialize)]
pub(super) struct TrailEntryView {
    at: String,
    kind: &'static str,
    text: String,
    record: Option<Box<Record>>,
}

impl From<TrailEntry> for TrailEntryView {
    fn from(step: TrailEntry) -> Self {
        let (at, kind, text) = (step.at().to_rfc3339(), step.category(), step.describe());
        let record = match step {
            TrailEntry::Record(record) => Some(record),
            TrailEntry::Edited(_) => None,
        };
        Self { at, kind, text, record }
    }
}

/// An entry of the revocation log.
#[derive(Serialize)]
pub(super) struct RevocationView {
    seq: u64,
    verb: &'static str,
    kind: &'static str,
    key: String,
    reason: String,
    by: String,
    at: String,
}

impl From<LogEntry> for RevocationView {
    fn from(LogEntry { seq, entry }: LogEntry) -> Self {
        Self {
            seq: seq.number(),
            verb: entry.verb.as_str(),
            kind: entry.target.kind(),
            key: entry.target.key(),
            reason: entry.reason,
            by: entry.by,
            at: entry.at.to_rfc3339(),
        }
    }
}

/// A revocation that was made, and how far it got.
#[derive(Serialize)]
pub(super) struct RevocationReceiptView {
    kind: &'static str,
    key: String,
    at: String,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl From<&RevocationReceipt> for RevocationReceiptView {
    fn from(RevocationReceipt { target, at, propagation: spread, .. }: &RevocationReceipt) -> Self {
        Self { kind: target.kind(), key: target.key(), at: at.to_rfc3339(), propagation: spread.into() }
    }
}

/// A grant.
#[derive(Serialize)]
pub(super) struct GrantView {
    id: GrantId,
    requester: RequesterView,
    agent: ClientId,
    /// What the requester consents to; null when it says only who may act.
    authorization_details: Option<Authority>,
    until: String,
    by: String,
    at: String,
    /// Whether it is for an emergency.
    break_glass: bool,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            id: grant.id,
            requester: (&grant.requester).into(),
            agent: grant.agent,
            authorization_details: grant.authority,
            until: grant.expires.to_rfc3339(),
            by: grant.by,
            at: grant.at.to_rfc3339(),
            break_glass: grant.break_glass,
        }
    }
}

/// A signing key; its dates, nothing of the key.
#[derive(Serialize)]
pub(super) struct KeyView {
    kid: KeyId,
    algorithm: SigningAlgorithm,
    state: KeyState,
    created: String,
    activates: String,
    retires: Option<String>,
    gone: Option<String>,
}

impl From<(KeySchedule, KeyState)> for KeyView {
    fn from((dates, state): (KeySchedule, KeyState)) -> Self {
        Self {
            kid: dates.kid,
            algorithm: dates.algorithm,
            state,
            created: dates.created_at.to_rfc3339(),
            activates: dates.activates_at.to_rfc3339(),
            retires: dates.retires_at.map(Timestamp::to_rfc3339),
            gone: dates.unpublished_at.map(Timestamp::to_rfc3339),
        }
    }
}

/// A key that was made.
#[derive(Serialize)]
pub(super) struct CreatedKeyView {
    pub(super) algorithm: SigningAlgorithm,
    pub(super) kid: KeyId,
}

/// A fresh secret: the only answer that ever shows one.
#[derive(Serialize)]
pub(super) struct SecretView<'a> {
    pub(super) client_id: &'a ClientId,
    pub(super) client_secret: &'a str,
}

/// An audit record in its place: when and what, to be read, the chained text as it is, and its hash.
#[derive(Serialize)]
pub(super) struct AuditView {
    writer: WriterId,
    n: u64,
    at: String,
    event: String,
    outcome: String,
    chained: Option<Box<RawValue>>,
    hash: String,
}

impl From<AuditRow> for AuditView {
    fn from(AuditRow { writer, n, body, hash, columns }: AuditRow) -> Self {
        Self {
            writer,
            n,
            at: columns.at.to_rfc3339(),
            event: columns.event,
            outcome: columns.outcome,
            chained: RawValue::from_string(body).ok(),
            hash,
        }
    }
}
