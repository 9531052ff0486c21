//! `./dev bench engine audit`: verification of a million audit records on SQLite.

use std::{sync::Arc, time::Instant};

use errand::{
    bootstrap::{Application, MigrationPolicy},
    config::Config,
    domain::audit::{Event, Outcome, Record, WriterId},
    ports::WriteSet,
};
use serde_json::json;
use uuid::Uuid;

use crate::{Line, fixtures::Fixtures, support::TestStore};

const RECORDS: usize = 1_000_000;
const RECORDS_PER_COMMIT: usize = 2_000;

/// Measures seconds of wall time. The records are like those of exchanges.
pub async fn measure() -> Vec<Line> {
    let store = TestStore::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Fixtures::new(([127, 0, 0, 1], 1).into());
    fixtures.configure(folder.path(), store.url());
    let config = Config::load(&folder.path().join("errand.toml"), &|_| None).unwrap();
    let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
    application.initialize(&config).await.unwrap();
    let opened = errand::bootstrap::connect_store(&config).await.unwrap();
    opened.unlock(Arc::clone(&application.store_sealer));
    let writer = WriterId(Uuid::new_v4());
    for commit in 0..RECORDS / RECORDS_PER_COMMIT {
        let numbers = commit * RECORDS_PER_COMMIT..(commit + 1) * RECORDS_PER_COMMIT;
        let write = WriteSet { audit_records: numbers.map(record).collect(), ..WriteSet::default() };
        opened.commit(writer, &[write]).await.unwrap();
    }
    let context = application.system_context().unwrap();
    application.service.sign_checkpoint(&context).await.unwrap();
    let started = Instant::now();
    let report = application.service.verify_audit(&[], &context).await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(report.findings.is_empty() && report.records > RECORDS as u64, "{report:?}");
    let name = format!("verification of {RECORDS} audit records (SQLite, wall time)");
    vec![Line { name, value: seconds, unit: "s", allocations: None, limit: Some(10.0) }]
}

fn record(n: usize) -> Record {
    let id = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n as u128).to_string();
    let value = json!({
        "admin": null,
        "agents": ["planner"],
        "requested": {"scope": "files:read", "expires_in": 120},
        "at": 1_795_200_000 + n / 100,
        "client": "planner",
        "event": Event::TokenIssue,
        "granted": {"kind": "access", "scope": "files:read", "expires": 1_795_200_300, "basis": "client"},
        "outcome": Outcome::Done,
        "purpose": "the quarterly report",
        "request_id": id,
        "requester": {"issuer": "https://login.example.com", "subject": format!("user-{}", n % 1000)},
        "resource": "https://files.example.com/mcp",
        "task": id,
        "token": id,
    });
    serde_json::from_value(value).unwrap()
}
