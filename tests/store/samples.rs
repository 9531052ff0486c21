//! Things to put into a store.

use errand::{
    domain::{
        audit::{Event, Outcome, Record, Writer},
        authority::{Authority, Permission},
        grant::Grant,
        id::{ClientId, GrantId, TaskId, TokenId},
        registry::{Entry, Object, Owner},
        revocation::{NewEntry, Seq, Target, Verb},
        status_list::{Shard, StatusPlace},
        task::{Requester, Task, TaskState, Turn},
        time::Timestamp,
        token::TokenKind,
    },
    ports::{Change, Idempotency, OneTimeId, Page, Store, TokenRecord, Write, Written},
};
use serde_json::json;
use uuid::Uuid;

pub const WRITER: Writer = Writer(uuid(1));
pub const NOW: Timestamp = at(1_795_200_000);

/// What a store must not choke on: it is data, whatever it looks like.
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
        until: at(NOW.unix() + 60),
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
        created: NOW,
        deadline: at(NOW.unix() + 3600),
        grant: Some(grant_id(5)),
        turns: 0,
        turned: None,
        rev: Seq::new(4711),
    }
}

pub fn turn(state: TaskState) -> Turn {
    Turn {
        state,
        at: NOW,
        by: "admin:ops".into(),
        reason: Some("lost laptop".parse().unwrap()),
        outcome: Some(HOSTILE[1].parse().unwrap()),
    }
}

/// Brings a task to a state.
pub fn turning(n: u128, state: TaskState) -> Change {
    Change::TurnTask(task_id(n), turn(state))
}

pub fn place(number: u64) -> StatusPlace {
    StatusPlace { shard: Shard::of(at(NOW.unix() + 300)), number }
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
        rev: Seq::new(4711),
        status: Some(place(u64::try_from(n).unwrap())),
    }
}

pub fn once(id: &str) -> OneTimeId {
    OneTimeId { party: "client:planner".into(), id: id.into(), keep_until: at(NOW.unix() + 60) }
}

pub fn key(key: &str) -> Idempotency {
    Idempotency {
        caller: "admin:ops".into(),
        key: key.into(),
        fingerprint: format!("fingerprint of {key}"),
        answer: format!(r#"{{"answer":"{key}"}}"#),
        keep_until: at(NOW.unix() + 60),
    }
}

pub fn entry(target: Target) -> NewEntry {
    NewEntry {
        verb: Verb::Revoke,
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
    record.asked = Some(json!({"scope": "files:read", "n": n.to_string()}));
    record
}

/// A registry object; `name` tells one state of it from another.
pub fn admin(id: &str, role: &str) -> Entry {
    let body = json!({"id": id, "role": role, "authentication": {"method": "client_secret_basic"}});
    let object: Object = serde_json::from_value(json!({"kind": "admin", "body": body})).unwrap();
    Entry { object, owner: Owner::Api }
}

/// A write that touches every table that issuing touches.
pub fn issue(n: u128) -> Write {
    Write {
        once: vec![once(&format!("jti {n}"))],
        task: Some(task(n)),
        token: Some(TokenRecord { task: Some(task_id(n)), ..token(n) }),
        audit: vec![record(n)],
        ..Write::default()
    }
}

pub fn first(limit: u32) -> Page {
    Page { after: None, limit }
}

pub async fn commit(store: &dyn Store, batch: &[Write]) -> Vec<Written> {
    store.commit(WRITER, batch).await.unwrap()
}

pub async fn done(store: &dyn Store, write: Write) -> Option<Seq> {
    match &commit(store, &[write]).await[..] {
        [Written::Done { seq }] => *seq,
        other => panic!("not done: {other:?}"),
    }
}
