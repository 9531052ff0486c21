//! Sample values.

use errand::{
    domain::{
        audit::{Event, Outcome, Record, WriterId},
        authority::{Authority, Permission},
        grants::Grant,
        id::{ClientId, GrantId, TaskId, TokenId},
        registry::{Entry, RegistryObject, Source},
        revocation::{
            LogAction, LogPosition, NewEntry, Target,
            evidence::{EvidenceDigest, PresentedEvidence},
        },
        status_list::{Shard, StatusIndex},
        task::{Requester, Task, TaskState, Transition},
        time::Timestamp,
        token::TokenKind,
    },
    ports::{IdempotentRequest, PageRequest, ReplayGuard, StateChange, Store, TokenRecord, WriteOutcome, WriteSet},
};
use serde_json::json;
use uuid::Uuid;

pub const WRITER: WriterId = WriterId(uuid(1));
pub const NOW: Timestamp = at(1_795_200_000);

/// Texts that a store must treat as data.
pub const HOSTILE: [&str; 6] = [
    "Robert'); DROP TABLE tokens;--",
    r#"{"$x": "a\"b", '\\': null}"#,
    "🦀 zoë — Ἀλίκη 👩‍👩‍👧‍👦",
    "%_$1?1:a::b",
    "\\u0000 \\n \\",
    " leading and trailing ",
];

pub const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

pub const fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub fn task_id(n: u128) -> TaskId {
    TaskId::new(uuid(n))
}

pub fn token_id(n: u128) -> TokenId {
    TokenId::new(uuid(n))
}

pub fn client(name: &str) -> ClientId {
    name.parse().unwrap()
}

pub fn requester(name: &str) -> Requester {
    Requester { issuer: "https://login.example.com".parse().unwrap(), subject: name.parse().unwrap() }
}

pub fn authority(tools: &[&str]) -> Authority {
    let permission = |tool: &&str| {
        Permission::unconstrained("https://files.example.com/mcp".parse().unwrap(), tool.parse().unwrap())
    };
    tools.iter().map(permission).collect()
}

pub fn grant_id(n: u128) -> GrantId {
    GrantId::new(uuid(n))
}

pub fn grant(n: u128, name: &str, agent: &str) -> Grant {
    Grant {
        id: grant_id(n),
        requester: requester(name),
        agent: client(agent),
        authority: n.is_multiple_of(2).then(|| authority(&["read"])),
        expires: at(NOW.unix() + 60),
        by: "client:portal".into(),
        at: NOW,
        break_glass: false,
    }
}

pub fn task(n: u128) -> Task {
    Task {
        id: task_id(n),
        requester: requester("alice"),
        root_agent: client("planner"),
        purpose: "quarterly report".parse().unwrap(),
        authority: authority(&["read", "write"]),
        state: TaskState::Active,
        created_at: NOW,
        deadline: at(NOW.unix() + 3600),
        grant: Some(grant_id(5)),
        version: 0,
        last_transition: None,
        rev: LogPosition::new(4711),
    }
}

pub fn transition(state: TaskState) -> Transition {
    Transition {
        state,
        at: NOW,
        by: "admin:ops".into(),
        reason: Some("lost laptop".parse().unwrap()),
        outcome: Some(HOSTILE[1].parse().unwrap()),
    }
}

/// Moves a task to a state.
pub fn transition_task(n: u128, state: TaskState) -> StateChange {
    StateChange::TransitionTask(task_id(n), transition(state))
}

pub fn status_index(number: u64) -> StatusIndex {
    StatusIndex { shard: Shard::for_expiry(at(NOW.unix() + 300)), number }
}

/// A user token of the second before the tests.
pub fn evidence(jti: &str, sid: Option<&str>) -> PresentedEvidence {
    let issuer = requester("alice").issuer;
    PresentedEvidence {
        token: EvidenceDigest::of_token_id(&issuer, jti),
        session: sid.map(|sid| EvidenceDigest::of_session(&issuer, sid)),
        issued: at(NOW.unix() - 1),
        expires: at(NOW.unix() + 600),
    }
}

pub fn token(n: u128) -> TokenRecord {
    TokenRecord {
        id: token_id(n),
        kind: TokenKind::Access,
        task: Some(task_id(1)),
        grant: Some(grant_id(5)),
        break_glass: n.is_multiple_of(2),
        requester: Some(requester("alice")),
        client: client("planner"),
        agents: vec![client("reader"), client("planner")],
        audience: "https://files.example.com/mcp".into(),
        lineage: vec![token_id(7), token_id(8)],
        authority: authority(&["read"]),
        issued: NOW,
        expires: at(NOW.unix() + 300),
        rev: LogPosition::new(4711),
        status_index: Some(status_index(u64::try_from(n).unwrap())),
        evidence: Some(evidence("jti", Some("sid"))),
    }
}

pub fn replay_guard(id: &str) -> ReplayGuard {
    ReplayGuard { party: "client:planner".into(), id: id.into(), keep_until: at(NOW.unix() + 60) }
}

pub fn idempotency_key(key: &str) -> IdempotentRequest {
    IdempotentRequest {
        caller: "admin:ops".into(),
        key: key.into(),
        fingerprint: format!("fingerprint of {key}"),
        response: format!(r#"{{"answer":"{key}"}}"#),
        keep_until: at(NOW.unix() + 60),
    }
}

pub fn entry(target: Target) -> NewEntry {
    NewEntry {
        verb: LogAction::Revoke,
        target,
        reason: "lost laptop".into(),
        by: "admin:ops".into(),
        at: NOW,
        forget_after: at(NOW.unix() + 900),
    }
}

pub fn record(n: u128) -> Record {
    let mut record = Record::new(NOW, Event::TokenIssue, Outcome::Done);
    record.requester = Some(requester("alice"));
    record.agents = vec!["reader".into(), "planner".into()];
    record.client = Some(client("planner"));
    record.task = Some(task_id(1));
    record.token = Some(token_id(n));
    record.requested = Some(json!({"scope": "files:read", "n": n.to_string()}));
    record
}

/// Returns an admin object; a different role makes a different version of it.
pub fn admin(id: &str, role: &str) -> Entry {
    let body = json!({"id": id, "role": role, "authentication": {"method": "client_secret_basic"}});
    let object: RegistryObject = serde_json::from_value(json!({"kind": "admin", "body": body})).unwrap();
    Entry { object, source: Source::Api }
}

/// Returns a write to every table that the issue of a token touches.
pub fn issue_token(n: u128) -> WriteSet {
    WriteSet {
        replay_guards: vec![replay_guard(&format!("jti {n}"))],
        task: Some(task(n)),
        token: Some(TokenRecord { task: Some(task_id(n)), ..token(n) }),
        audit_records: vec![record(n)],
        ..WriteSet::default()
    }
}

pub fn first_page(limit: u32) -> PageRequest {
    PageRequest { cursor: None, limit }
}

pub async fn commit(store: &dyn Store, batch: &[WriteSet]) -> Vec<WriteOutcome> {
    store.commit(WRITER, batch).await.unwrap()
}

pub async fn commit_one(store: &dyn Store, write: WriteSet) -> Option<LogPosition> {
    match &commit(store, &[write]).await[..] {
        [WriteOutcome::Committed { seq }] => *seq,
        other => panic!("not committed: {other:?}"),
    }
}
