//! Index of ten million revoked tokens and tasks: memory, lookup time and start-up time.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use errand::domain::{
    id::{GrantId, TaskId, TokenId},
    revocation::{Index, LogAction, LogEntry, LogPosition, NewEntry, RevocationKeys, Standing, Target},
    task::Requester,
    time::Timestamp,
};
use uuid::Uuid;

use crate::{Line, measure_one};

const ENTRIES: u64 = 10_000_000;

/// Returns the `n`th id: distributed like random ids, but deterministic.
fn id(n: u64) -> Uuid {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    Uuid::from_u64_pair(mix(2 * n + 1), mix(2 * n + 2))
}

fn entry(n: u64) -> LogEntry {
    let target =
        if n.is_multiple_of(2) { Target::Token(TokenId::new(id(n))) } else { Target::Task(TaskId::new(id(n))) };
    let at = Timestamp::from_unix(1_795_200_000);
    let entry =
        NewEntry { verb: LogAction::Revoke, target, reason: String::new(), by: String::new(), at, forget_after: at };
    LogEntry { seq: LogPosition::new(n + 1), entry }
}

/// Returns the revocation keys of a token with a chain of two agents.
fn revocation_keys(n: u64) -> RevocationKeys {
    RevocationKeys {
        token: TokenId::new(id(n)),
        lineage: vec![TokenId::new(id(n + ENTRIES * 3))],
        task: Some(TaskId::new(id(n + ENTRIES * 2))),
        grant: Some(GrantId::new(id(n + ENTRIES * 4))),
        requester: Some(Requester {
            issuer: "https://login.example.com".parse().unwrap(),
            subject: "alice".parse().unwrap(),
        }),
        agents: ["planner", "reader"].map(|id| id.parse().unwrap()).into(),
        resources: ["https://files.example.com/mcp".parse().unwrap()].into(),
        tools: ["https://files.example.com/mcp read_file".to_owned()].into(),
        may_list: false,
        break_glass: false,
        rev: LogPosition::new(0),
    }
}

pub fn measure() -> Vec<Line> {
    let (mut index, mut took) = (Index::default(), Duration::ZERO);
    let info = allocation_counter::measure(|| {
        let start = Instant::now();
        for n in 0..ENTRIES {
            // A thousand revocations per second.
            index.apply(&entry(n), Duration::from_millis(n));
        }
        took = start.elapsed();
    });
    assert_eq!(index.len() as u64, ENTRIES);
    let line = |what: &str, number: f64, unit, at_most| Line {
        name: what.to_owned(),
        value: number,
        unit,
        allocations: None,
        limit: Some(at_most),
    };
    let memory = info.bytes_current as f64 / ENTRIES as f64;
    let mut lines = vec![
        line("index of ten million entries: memory per entry", memory, "bytes", 64.0),
        line("index of ten million entries: time to apply all", took.as_secs_f64(), "s", 10.0),
    ];
    for (from, standing) in [(0, Standing::Revoked), (ENTRIES, Standing::Live)] {
        let names = (0..4096).map(|n| revocation_keys(from + n * 2 * 1213)).collect::<Vec<_>>();
        assert!(names.iter().all(|names| index.standing(names) == standing));
        let mut next = 0;
        let what = format!("index of ten million entries: standing of a token, {standing:?}");
        lines.push(measure_one(what, Some(1.0), || {
            next += 1;
            index.standing(&names[next % names.len()])
        }));
    }
    let mut longest = Duration::ZERO;
    for n in 0..Index::SHARD_COUNT {
        let start = Instant::now();
        index.evict(n, Duration::from_secs(1_000_000));
        longest = longest.max(start.elapsed());
    }
    assert!(black_box(index).is_empty());
    lines.push(line(
        "index of ten million entries: longest pause of eviction",
        longest.as_secs_f64() * 1e3,
        "ms",
        10.0,
    ));
    lines
}
