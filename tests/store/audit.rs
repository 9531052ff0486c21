//! The audit trail: every writer's chain stays complete under concurrent writes, and its head names
//! its last record.

use errand::{
    domain::audit::{Event, Head, Outcome, Record, SearchColumns, Tampering, WriterId, verify},
    ports::{AuditFilter, AuditKeys, AuditRow, PageRequest, Store, WriteSet},
};

use crate::{
    fixtures::*,
    support::{TestStore, sealer},
};

/// Verifies a whole chain, read in pages, against its head.
async fn verify_chain(store: &dyn Store, writer: WriterId) -> Result<Vec<Record>, Tampering> {
    let mut head = Head::empty();
    let mut records = Vec::new();
    loop {
        let rows = store.read_audit_chain(writer, head.n, 7).await.unwrap();
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let record = verify(writer, &mut head, row.text())?.record;
            if !sealer().is_authentic(&row.hash, &row.seal) {
                return Err(Tampering::Seal(row.n));
            }
            if row.columns != SearchColumns::from_record(&record) {
                return Err(Tampering::Columns(row.n));
            }
            records.push(record);
        }
    }
    let heads = store.list_audit_heads().await.unwrap();
    let stored = heads.into_iter().find(|(of, _)| *of == writer).map_or_else(Head::empty, |(_, head)| head);
    if stored.n > head.n {
        return Err(Tampering::Truncated { expected: stored.n, found: head.n });
    }
    if stored == head { Ok(records) } else { Err(Tampering::Head(head.n)) }
}

async fn records_are_appended_in_order(on: &TestStore) {
    let store = on.open().await;
    let write =
        |range: std::ops::Range<u128>| WriteSet { audit_records: range.map(record).collect(), ..WriteSet::default() };
    commit(&*store, &[write(0..3), WriteSet::default(), write(3..4)]).await;
    commit(&*store, &[write(4..20)]).await;
    assert_eq!(verify_chain(&*store, WRITER).await, Ok((0..20).map(record).collect()));
    let heads = store.list_audit_heads().await.unwrap();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].1.n, 20);
    assert!(store.read_audit_chain(WriterId(uuid(99)), 0, 10).await.unwrap().is_empty());
}

/// The size of a page, or of a part of a chain, is limited however large its records are. The next
/// page continues there.
async fn large_records_limit_page_size(on: &TestStore) {
    const MANY: u128 = 100;
    const MOST: usize = 5 << 20;
    let store = on.open().await;
    let large = |n: u128| Record { reason: Some("x".repeat(64 << 10)), ..record(n) };
    for n in 0..MANY {
        commit(&*store, &[WriteSet { audit_records: vec![large(n)], ..WriteSet::default() }]).await;
    }
    let size = |rows: &[AuditRow]| rows.iter().map(|row| row.body.len() + row.personal.len()).sum::<usize>();
    let (mut page, mut seen, mut pages) = (PageRequest { cursor: None, limit: 1000 }, Vec::new(), 0);
    loop {
        let got = store.list_audit_records(&AuditFilter::default(), &page).await.unwrap();
        assert!(size(&got.items) < MOST);
        seen.extend(got.items.iter().map(|row| row.n));
        pages += 1;
        page.cursor = got.next;
        if page.cursor.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    let all = (1..=u64::try_from(MANY).unwrap()).collect::<Vec<_>>();
    assert_eq!((seen, pages), (all.clone(), 2));
    let (mut seen, mut pieces) = (Vec::new(), 0);
    loop {
        let rows = store.read_audit_chain(WRITER, seen.last().copied().unwrap_or_default(), 1000).await.unwrap();
        if rows.is_empty() {
            break;
        }
        assert!(size(&rows) < MOST);
        seen.extend(rows.iter().map(|row| row.n));
        pieces += 1;
    }
    assert_eq!((seen, pieces), (all, 2));
}

/// Four writers have two connections each. Commits of one writer overtake each other, and still
/// form one chain.
async fn chains_stay_intact_under_concurrent_writes(on: &TestStore) {
    const WRITERS: u128 = 4;
    const BATCHES: u128 = 15;
    let mut tasks = Vec::new();
    for n in 0..WRITERS * 2 {
        let (store, writer) = (on.open().await, WriterId(uuid(n % WRITERS)));
        tasks.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                let of = |m: u128| issue_token(n * 1000 + batch * 2 + m);
                store.commit(writer, &[of(0), of(1)]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let store = on.open().await;
    for n in 0..WRITERS {
        let records = verify_chain(&*store, WriterId(uuid(n))).await.unwrap();
        assert_eq!(records.len(), usize::try_from(BATCHES * 2 * 2).unwrap());
    }
    assert_eq!(store.list_audit_heads().await.unwrap().len(), usize::try_from(WRITERS).unwrap());
}

async fn audit_search_matches_filters(on: &TestStore) {
    let store = on.open().await;
    let mut all = Vec::new();
    for n in 0..48_u128 {
        let mut record = record(n);
        record.at = at(NOW.unix() + i64::try_from(n / 2 % 6).unwrap());
        record.requester = (n % 2 == 0).then(|| requester(if n % 4 == 0 { "alice" } else { "bob" }));
        record.agents = if n % 3 == 0 { vec![] } else { vec![format!("agent {}", n % 3), "planner".into()] };
        record.client = (n % 5 != 0).then(|| client(if n % 5 == 1 { "reader" } else { "planner" }));
        record.task = (n % 2 == 0).then(|| task_id(n % 3));
        record.token = (n % 7 != 0).then(|| token_id(n % 7));
        record.resource = Some(format!("https://{}.example.com", n % 2));
        record.request_id = Some(format!("r-{}", n / 4).parse().unwrap());
        record.event = if n % 8 < 3 { Event::Revocation } else { Event::TokenIssue };
        record.outcome = if n % 9 < 4 { Outcome::Refused } else { Outcome::Done };
        let writer = WriterId(uuid(n % 3));
        store.commit(writer, &[WriteSet { audit_records: vec![record.clone()], ..WriteSet::default() }]).await.unwrap();
        all.push((record.at, writer, n / 3 + 1, record));
    }
    all.sort_by_key(|(at, writer, n, _)| std::cmp::Reverse((*at, *writer, *n)));
    let who = |name: &str| (requester(name).issuer, name.to_owned());
    let tasks = [None, Some(task_id(0)), Some(task_id(2)), Some(task_id(9))];
    let requesters = [None, Some("alice"), Some("bob")];
    let agents = [None, Some("agent 1"), Some("planner"), Some("reader"), Some("unknown agent")];
    let from = [None, Some(at(NOW.unix() + 2))];
    let until = [None, Some(at(NOW.unix() + 4))];
    let mut seen = 0;
    for code in 0..240_usize {
        let rare = code % 13;
        let filter = AuditFilter {
            token: (rare == 1).then(|| token_id(3)),
            resource: matches!(rare, 2 | 3 | 7).then(|| "https://1.example.com".to_owned()),
            request_id: matches!(rare, 4 | 5).then(|| "r-5".parse().unwrap()),
            event: matches!(rare, 3 | 6 | 7).then_some(Event::Revocation),
            outcome: matches!(rare, 6 | 8).then_some(Outcome::Refused),
            task: tasks[code % 4],
            requester: requesters[code / 4 % 3].map(who),
            agent: agents[code / 12 % 5].map(str::to_owned),
            occurred_from: from[code / 60 % 2],
            occurred_before: until[code / 120 % 2],
        };
        let mut page = first_page(5);
        let mut got = Vec::new();
        loop {
            let part = store.list_audit_records(&filter, &page).await.unwrap();
            got.extend(part.items);
            match part.next {
                Some(next) => page = PageRequest { cursor: Some(next), limit: 5 },
                None => break,
            }
        }
        let fits = |record: &Record| {
            filter.task.is_none_or(|task| record.task == Some(task))
                && requesters[code / 4 % 3].is_none_or(|name| record.requester == Some(requester(name)))
                && filter.agent.as_ref().is_none_or(|agent| {
                    record.agents.contains(agent) || record.client.as_ref().is_some_and(|c| c.as_str() == agent)
                })
                && filter.token.is_none_or(|token| record.token == Some(token))
                && filter.resource.as_ref().is_none_or(|resource| record.resource.as_ref() == Some(resource))
                && filter.request_id.as_ref().is_none_or(|id| record.request_id.as_ref() == Some(id))
                && filter.event.is_none_or(|event| record.event == event)
                && filter.outcome.is_none_or(|outcome| record.outcome == outcome)
                && filter.occurred_from.is_none_or(|from| record.at >= from)
                && filter.occurred_before.is_none_or(|until| record.at < until)
        };
        let want = all.iter().filter(|(.., record)| fits(record));
        let want =
            want.map(|(_, writer, n, record)| (*writer, *n, SearchColumns::from_record(record))).collect::<Vec<_>>();
        let got = got.into_iter().map(|row| (row.writer, u128::from(row.n), row.columns)).collect::<Vec<_>>();
        assert_eq!(got, want, "{filter:?}");
        seen += got.len();
    }
    assert!(seen > 300, "{seen}");
}

/// Names of acting parties may be untrusted. Whatever they contain, the record is kept and the
/// batch is committed.
async fn hostile_text_does_not_block_audit_record(on: &TestStore) {
    let store = on.open().await;
    let mut hostile = record(1);
    hostile.agents = vec![format!("a\0b\u{1}\n{}", "🦀".repeat(16_000))];
    hostile.reason = Some("nul \0 and the like \u{1b}[31m".into());
    let batch = [WriteSet { audit_records: vec![hostile.clone()], ..WriteSet::default() }, issue_token(2)];
    commit(&*store, &batch).await;
    assert_eq!(verify_chain(&*store, WRITER).await, Ok(vec![hostile, record(2)]));
}

async fn tampering_is_detected(on: &TestStore) {
    let store = on.open().await;
    for (sql, want) in [
        ("DELETE FROM audit WHERE n = 3", Tampering::Gap { after: 2, found: 4 }),
        ("DELETE FROM audit WHERE n > 4", Tampering::Truncated { expected: 6, found: 4 }),
        ("UPDATE audit SET body = replace(body, 'planner', 'reader') WHERE n = 2", Tampering::Edited(2)),
        ("UPDATE audit SET personal = replace(personal, 'alice', 'carol') WHERE n = 2", Tampering::Edited(2)),
        ("UPDATE audit SET mac = 'x' WHERE n = 2", Tampering::Seal(2)),
        ("UPDATE audit SET mac = (SELECT mac FROM audit AS b WHERE b.n = 3) WHERE n = 2", Tampering::Seal(2)),
        ("UPDATE audit SET epoch = 2 WHERE n = 2", Tampering::Seal(2)),
        ("UPDATE audit SET requester_subject = 'carol' WHERE n = 5", Tampering::Columns(5)),
        ("UPDATE audit SET task = NULL WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit SET token = NULL WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit SET resource = 'x' WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit SET request_id = 'x' WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit SET event = 'x' WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit SET outcome = 'x' WHERE n = 1", Tampering::Columns(1)),
        ("UPDATE audit_agents SET agent = 'x' WHERE n = 4 AND agent = 'planner'", Tampering::Columns(4)),
        ("UPDATE audit_agents SET occurred_at = 1 WHERE n = 4 AND agent = 'planner'", Tampering::Columns(4)),
        ("DELETE FROM audit_agents WHERE n = 4 AND agent = 'reader'", Tampering::Columns(4)),
        (
            "INSERT INTO audit_agents (writer, n, agent, occurred_at) SELECT writer, n, 'x', 1 FROM audit WHERE n = 2",
            Tampering::Columns(2),
        ),
        ("UPDATE audit_writers SET hash = 'x'", Tampering::Head(6)),
        ("UPDATE audit_writers SET n = 5", Tampering::Head(6)),
    ] {
        commit_one(&*store, WriteSet { audit_records: (0..6).map(record).collect(), ..WriteSet::default() }).await;
        assert!(verify_chain(&*store, WRITER).await.is_ok());
        assert!(on.tamper(sql).await > 0, "{sql}");
        assert_eq!(verify_chain(&*store, WRITER).await, Err(want), "{sql}");
        on.tamper("DELETE FROM audit").await;
        on.tamper("DELETE FROM audit_agents").await;
        on.tamper("DELETE FROM audit_writers").await;
    }
}

conformance!(
    records_are_appended_in_order,
    large_records_limit_page_size,
    chains_stay_intact_under_concurrent_writes,
    audit_search_matches_filters,
    hostile_text_does_not_block_audit_record,
    tampering_is_detected,
);
