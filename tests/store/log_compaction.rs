//! A revocation log in which most entries are past their retention: the others are found, and
//! skipping costs nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use errand::{
    adapters::store,
    domain::{
        revocation::{LogEntry, LogPosition, Target},
        time::Timestamp,
    },
    ports::{StoreSealer, WriteSet},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};

use crate::{
    fixtures::*,
    support::{TestStore, sealer},
};

/// The number of entries past their retention.
const EXPIRED_ENTRIES: u64 = 200_000;
/// The positions of the retained entries, the first and the last among them.
const LIVE_SEQS: [u64; 5] = [1, 70_000, 70_003, 150_000, EXPIRED_ENTRIES + 20];

/// Appends entries with these values of `forget_after`.
async fn append(on: &TestStore, from: u64, until: &[i64]) {
    let key = |n: usize| uuid(n as u128);
    let row = |(n, until): (usize, &i64)| {
        format!("({}, 'revoke', 'token', '{}', 'x', 'admin:ops', 0, {until}, '', '')", from + n as u64, key(n))
    };
    let rows = until.iter().enumerate().map(row).collect::<Vec<_>>().join(", ");
    on.tamper(&format!(
        "INSERT INTO revocation_log (seq, verb, kind, key, reason, actor, occurred_at, forget_after, previous, tag) VALUES {rows}"
    ))
    .await;
    on.reseal_log(&*sealer()).await;
}

/// A page equals the result of a full scan, for every position, time and page size.
async fn live_entries_are_found(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(store.read_log_after(LogPosition::new(0), NOW, 10).await.unwrap(), []);
    // Hour boundaries and their neighbors, expired and never expiring entries, in runs and mixed.
    let hour = NOW.unix() / 3600 * 3600;
    let far = Timestamp::MAX.unix();
    let times = [hour - 7200, hour - 1, hour, hour + 1, NOW.unix(), NOW.unix() + 1, hour + 3600, hour + 90_000, far, 0];
    let mut rng_state = 7_u64;
    let mut roll = |n: usize| {
        rng_state = rng_state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(rng_state >> 33).unwrap() % n
    };
    let mut until = Vec::new();
    while until.len() < 500 {
        let (one, other) = (times[roll(times.len())], times[roll(times.len())]);
        let length = 1 + roll(40);
        until.extend((0..length).map(|_| if roll(6) == 0 { other } else { one }));
    }
    append(on, 1, &until).await;
    let alive = |seq: u64, now: i64| {
        let all = until.iter().enumerate().map(|(n, until)| (n as u64 + 1, *until));
        // From the epoch on, these are all entries.
        all.filter(move |(n, until)| *n > seq && (*until > now || now == 0)).map(|(n, _)| n)
    };
    let last = until.len() as u64;
    for now in
        [0, 1, hour - 7201, hour - 2, hour - 1, hour, hour + 1, NOW.unix(), hour + 3599, hour + 3600, far - 1, far]
    {
        for limit in [1, 3, 20, 1000] {
            let mut from = 0;
            // All pages, as a follower reads them.
            loop {
                let page = store.read_log_after(LogPosition::new(from), at(now), limit).await.unwrap();
                let positions = page.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>();
                let want = alive(from, now).take(limit as usize).collect::<Vec<_>>();
                assert_eq!(positions, want, "after {from} at {now}, {limit} of them");
                let is_its_own = |e: &LogEntry| {
                    let position = usize::try_from(e.seq.number()).unwrap();
                    e.entry.forget_after.unix() == until[position - 1]
                };
                assert!(page.iter().all(is_its_own));
                match positions.last() {
                    Some(last) if limit < 1000 => from = *last,
                    Some(_) | None => break,
                }
            }
        }
        for from in (0..=last + 1).step_by(17) {
            let page = store.read_log_after(LogPosition::new(from), at(now), 5).await.unwrap();
            let want = alive(from, now).take(5).collect::<Vec<_>>();
            assert_eq!(page.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>(), want, "after {from} at {now}");
        }
    }
}

/// Few retained entries among very many past their retention, in the hours before and in the
/// current hour.
async fn fill_long_log(on: &TestStore) {
    let dead = NOW.unix() - 7200;
    let series = if on.url().starts_with("sqlite") {
        format!(
            "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s)",
            EXPIRED_ENTRIES + 20
        )
    } else {
        format!("(SELECT n FROM generate_series(1, {}) AS n)", EXPIRED_ENTRIES + 20)
    };
    let (far, near) = (Timestamp::MAX.unix(), NOW.unix() + 900);
    // A reader verifies what it reads, and skips the others.
    let tag = |n: u64| {
        let forget_after = if n < 100_000 { far } else { near };
        let row = format!(
            r#"["revocation_log",{{"seq":{n},"verb":"revoke","kind":"token","key":"{}","reason":"x","actor":"admin:ops","occurred_at":0,"forget_after":{forget_after},"min_version":"0.1.0","previous":""}}]"#,
            uuid(1)
        );
        format!("WHEN {n} THEN '{}'", sealer().tag_row(&row).unwrap())
    };
    let tags = LIVE_SEQS.map(tag).join(" ");
    let positions = LIVE_SEQS.map(|n| n.to_string()).join(", ");
    on.tamper(&format!(
        "INSERT INTO revocation_log (seq, verb, kind, key, reason, actor, occurred_at, forget_after, previous, tag)
        SELECT n, 'revoke', 'token', '{}', 'x', 'admin:ops', 0,
            CASE WHEN n IN ({positions}) THEN CASE WHEN n < 100000 THEN {} ELSE {} END ELSE {dead} - n % 100000 END, '', CASE n {tags} ELSE '' END FROM {series} AS s",
        uuid(1),
        far,
        near,
    ))
    .await;
}

/// The number of steps that SQLite takes for a page.
const READS: [u64; 4] = [0, 1, 69_999, 150_000];

#[tokio::test]
async fn sqlite_skips_expired_entries() {
    let on = TestStore::sqlite().await;
    let steps = async |after: u64| {
        let mut connection = SqliteConnection::connect(on.url()).await.unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        connection.lock_handle().await.unwrap().set_progress_handler(1, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let rows = sqlx::query(statement_of(store::sqlite::STATEMENTS))
            .bind(i64::try_from(after).unwrap())
            .bind(NOW.end_of_previous_hour().unix())
            .bind(10_i64)
            .bind(160_000_i64)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        (
            rows.iter().map(|row| row.get::<i64, _>("seq").unsigned_abs()).collect::<Vec<_>>(),
            steps.load(Ordering::Relaxed),
        )
    };
    fill_long_log(&on).await;
    for analyzed in [false, true] {
        for after in READS {
            let (positions, steps) = steps(after).await;
            assert_eq!(positions.first(), LIVE_SEQS.iter().find(|position| **position > after), "{positions:?}");
            assert!((10..2_000).contains(&steps), "{steps} steps for {positions:?}, statistics: {analyzed}");
        }
        on.tamper("ANALYZE").await;
    }
    let found = on.open().await.read_log_after(LogPosition::default(), NOW.end_of_previous_hour(), 10).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>(), LIVE_SEQS);
}

/// The number of blocks that PostgreSQL reads for a page, with any statistics and with generic and
/// custom plans.
#[tokio::test]
async fn postgres_skips_expired_entries() {
    let on = TestStore::postgres().await;
    // Statistics of the empty table, which are not updated.
    on.tamper("ALTER TABLE revocation_log SET (autovacuum_enabled = off); ANALYZE").await;
    fill_long_log(&on).await;
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    let prepare =
        format!("PREPARE page (bigint, bigint, bigint, bigint) AS {}", statement_of(store::postgres::STATEMENTS));
    connection.execute("SET jit = off").await.unwrap();
    connection.execute(AssertSqlSafe(prepare)).await.unwrap();
    for statistics in ["SELECT 1", "ANALYZE", "VACUUM ANALYZE"] {
        connection.execute(statistics).await.unwrap();
        for mode in ["force_generic_plan", "force_custom_plan"] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            for after in READS {
                let page = format!("EXECUTE page ({after}, {}, 10, 160000)", NOW.end_of_previous_hour().unix());
                let rows = connection.fetch_all(AssertSqlSafe(page.clone())).await.unwrap();
                let positions = rows.iter().map(|row| row.get::<i64, _>("seq").unsigned_abs()).collect::<Vec<_>>();
                assert_eq!(positions.first(), LIVE_SEQS.iter().find(|position| **position > after), "{positions:?}");
                let explain = format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {page}");
                let plan = connection.fetch_all(AssertSqlSafe(explain)).await.unwrap();
                let plan = plan.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
                let blocks = block_reads(&plan);
                assert!((1..200).contains(&blocks), "{blocks} blocks, {mode} after {statistics}:\n{plan}");
                assert!(!plan.contains("revocation_log_pkey") && !plan.contains("Seq Scan"), "{plan}");
            }
        }
    }
    let found = on.open().await.read_log_after(LogPosition::default(), NOW.end_of_previous_hour(), 10).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>(), LIVE_SEQS);
}

fn statement_of(of: &'static [(&'static str, &'static str)]) -> &'static str {
    of.iter().find(|(name, _)| *name == "RETAINED_LOG_AFTER").unwrap().1
}

/// Returns the number of blocks read, tables and indexes together. The first such line is the
/// total.
fn block_reads(plan: &str) -> u64 {
    let line = plan.lines().find(|line| line.contains("Buffers: shared")).unwrap();
    let counts = line.split_whitespace().filter_map(|word| word.split_once('='));
    counts.filter(|(what, _)| ["hit", "read"].contains(what)).map(|(_, n)| n.parse::<u64>().unwrap()).sum()
}

/// A reader that follows a growing log misses nothing, even if all entries are retained.
async fn growing_log_is_read_without_gaps(on: &TestStore) {
    const TIMES: u64 = 400;
    const AT_ONCE: u64 = 25;
    let store = on.open().await;
    let writer = on.open().await;
    let write = async {
        for n in 0..TIMES {
            let log_entries = (1..=AT_ONCE).map(|k| entry(Target::Token(token_id((n * AT_ONCE + k).into())))).collect();
            commit_one(&*writer, WriteSet { log_entries, ..WriteSet::default() }).await;
        }
    };
    let read = async {
        let mut last = 0;
        while last < TIMES * AT_ONCE {
            let page = store.read_log_after(LogPosition::new(last), NOW, 20).await.unwrap();
            for entry in page {
                assert_eq!(entry.seq.number(), last + 1, "the entries in between would be skipped for good");
                last = entry.seq.number();
            }
        }
    };
    tokio::join!(write, read);
}

conformance!(live_entries_are_found, growing_log_is_read_without_gaps);
