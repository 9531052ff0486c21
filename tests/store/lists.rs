//! Reads return what was written: one by one, and in complete pages without duplicates.

use std::{collections::BTreeSet, future::Future};

use errand::{
    domain::{
        authority::Permission,
        grants::Grant,
        revocation::{LogPosition, evidence::PresentedEvidence},
        task::{Task, TaskState},
        token::TokenKind,
    },
    ports::{
        AuditFilter, EvidenceSelector, GrantFilter, ListError, Page, PageRequest, SeenEvidence, Store, TaskFilter,
        TokenFilter, TokenRecord, WriteSet,
    },
};

use crate::{fixtures::*, support::TestStore};

/// Reads all pages of a list.
async fn read_all_pages<T, F: Future<Output = Result<Page<T>, ListError>>>(
    limit: u32,
    list: impl Fn(PageRequest) -> F,
) -> Vec<T> {
    let mut items = Vec::new();
    let mut page = first_page(limit);
    loop {
        let got = list(page.clone()).await.unwrap();
        assert!(got.items.len() <= usize::try_from(limit).unwrap());
        assert!(got.next.is_none() || !got.items.is_empty(), "an empty page is the last");
        items.extend(got.items);
        assert!(items.len() < 1000, "the list does not end");
        match got.next {
            Some(next) => page.cursor = Some(next),
            None => return items,
        }
    }
}

async fn put_records(store: &dyn Store, tasks: &[Task], tokens: &[TokenRecord]) {
    let tasks = tasks.iter().map(|task| WriteSet { task: Some(task.clone()), ..WriteSet::default() });
    let tokens = tokens.iter().map(|token| WriteSet { token: Some(token.clone()), ..WriteSet::default() });
    commit(store, &tasks.chain(tokens).collect::<Vec<_>>()).await;
}

async fn task_round_trips(on: &TestStore) {
    let store = on.open().await;
    let mut odd = task(2);
    odd.authority = authority(&[]);
    odd.state = TaskState::Revoked;
    odd.grant = None;
    odd.version = 3;
    odd.last_transition = Some(transition(TaskState::Revoked));
    odd.deadline = errand::domain::time::Timestamp::MAX;
    odd.created_at = errand::domain::time::Timestamp::EPOCH;
    put_records(&*store, &[task(1), odd.clone()], &[]).await;
    assert_eq!(store.find_task(task_id(1)).await.unwrap(), Some(task(1)));
    assert_eq!(store.find_task(task_id(2)).await.unwrap(), Some(odd));
    assert_eq!(store.find_task(task_id(3)).await.unwrap(), None);
}

async fn token_round_trips(on: &TestStore) {
    let store = on.open().await;
    let api = TokenRecord {
        kind: TokenKind::Api,
        task: None,
        requester: None,
        agents: Vec::new(),
        audience: "https://sts.example.com".into(),
        lineage: Vec::new(),
        grant: None,
        break_glass: false,
        authority: authority(&[]),
        rev: LogPosition::new(0),
        status_index: None,
        evidence: None,
        ..token(2)
    };
    let kinds = [TokenKind::Access, TokenKind::HandOver, TokenKind::Txn, TokenKind::Api];
    let many = (10..).zip(kinds).map(|(n, kind)| TokenRecord { kind, ..token(n) }).collect::<Vec<_>>();
    put_records(&*store, &[], &[token(1), api.clone()]).await;
    put_records(&*store, &[], &many).await;
    assert_eq!(store.find_token(token_id(1)).await.unwrap(), Some(token(1)));
    assert_eq!(store.find_token(token_id(2)).await.unwrap(), Some(api));
    assert_eq!(store.find_token(token_id(3)).await.unwrap(), None);
    for token in many {
        assert_eq!(store.find_token(token.id).await.unwrap(), Some(token));
    }
}

async fn hostile_text_is_stored_verbatim(on: &TestStore) {
    let store = on.open().await;
    let longest = ["é".repeat(127), "👩".repeat(63), "x".repeat(255)];
    let names = HOSTILE.iter().copied().chain(longest.iter().map(String::as_str)).collect::<Vec<_>>();
    for (n, name) in (0..).zip(&names) {
        let mut task = task(n);
        task.requester = requester(name);
        task.purpose = name.parse().unwrap();
        let mut token = token(n);
        token.requester = Some(requester(name));
        token.audience = format!("https://x.example/{name}");
        let mut log = entry(errand::domain::revocation::Target::for_requester(&requester(name)));
        log.reason = (*name).into();
        let grant = Grant { by: (*name).into(), ..grant(n, name, "planner") };
        let mut record = record(n);
        record.requester = Some(requester(name));
        record.agents = vec![(*name).into()];
        record.reason = Some((*name).into());
        let mut key = idempotency_key(name);
        key.response = serde_json::to_string(name).unwrap();
        let write = WriteSet {
            replay_guards: vec![replay_guard(name)],
            idempotency: Some(key.clone()),
            task: Some(task.clone()),
            token: Some(token.clone()),
            state_changes: vec![errand::ports::StateChange::PutGrant(Box::new(grant.clone()))],
            log_entries: vec![log.clone()],
            audit_records: vec![record.clone()],
            ..WriteSet::default()
        };
        let seq = commit_one(&*store, write).await.unwrap();
        assert_eq!(store.find_task(task.id).await.unwrap(), Some(task.clone()));
        assert_eq!(store.find_token(token.id).await.unwrap(), Some(token.clone()));
        assert_eq!(store.find_grant(grant.id).await.unwrap(), Some(grant));
        assert_eq!(store.read_log_after(LogPosition::new(seq.number() - 1), NOW, 1).await.unwrap()[0].entry, log);
        let who = (task.requester.issuer.clone(), (*name).to_owned());
        let filter = TaskFilter { requester: Some(who.clone()), ..TaskFilter::default() };
        assert_eq!(store.list_tasks(&filter, &first_page(9)).await.unwrap().items, [task]);
        let filter = TokenFilter {
            requester: Some(who.clone()),
            audience: Some(token.audience.clone()),
            ..TokenFilter::default()
        };
        assert_eq!(store.list_tokens(&filter, &first_page(9)).await.unwrap().items, [token]);
        let filter = AuditFilter { requester: Some(who), agent: Some((*name).into()), ..AuditFilter::default() };
        let rows = store.list_audit_records(&filter, &first_page(9)).await.unwrap().items;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].columns, errand::domain::audit::SearchColumns::from_record(&record));
        let Some(errand::ports::WriteOutcome::AlreadyApplied { response: answer, .. }) =
            store.find_idempotent_response("admin:ops", name).await.unwrap()
        else {
            panic!("{name} was not used before");
        };
        assert_eq!(answer, key.response);
    }
    let grants = read_all_pages(2, async |page| store.list_grants(&GrantFilter::default(), &page).await).await;
    assert_eq!(grants.len(), names.len());
}

async fn pages_are_complete_without_duplicates(on: &TestStore) {
    let store = on.open().await;
    // Many items of the same second, so that the time alone does not determine the order.
    let tasks = (0..50).map(|n| Task { created_at: at(NOW.unix() + i64::try_from(n % 4).unwrap()), ..task(n) });
    let tokens = (0..50).map(|n| TokenRecord { issued: at(NOW.unix() + i64::try_from(n % 3).unwrap()), ..token(n) });
    let (mut tasks, mut tokens) = (tasks.collect::<Vec<_>>(), tokens.collect::<Vec<_>>());
    put_records(&*store, &tasks, &tokens).await;
    tasks.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
    tokens.sort_by_key(|token| std::cmp::Reverse((token.issued, token.id)));
    for limit in [1, 7, 25, 50, 51, 1000] {
        let (none, nothing) = (TaskFilter::default(), TokenFilter::default());
        assert_eq!(read_all_pages(limit, async |page| store.list_tasks(&none, &page).await).await, tasks, "{limit}");
        assert_eq!(
            read_all_pages(limit, async |page| store.list_tokens(&nothing, &page).await).await,
            tokens,
            "{limit}"
        );
    }
    // Items that are added during pagination come before the pages and shift nothing.
    let page = store.list_tokens(&TokenFilter::default(), &first_page(20)).await.unwrap();
    put_records(&*store, &[], &[TokenRecord { issued: at(NOW.unix() + 99), ..token(999) }]).await;
    let rest = PageRequest { cursor: page.next, limit: 1000 };
    let rest = store.list_tokens(&TokenFilter::default(), &rest).await.unwrap();
    assert_eq!([page.items, rest.items].concat(), tokens);
    // A limit outside the bounds is clamped.
    assert_eq!(store.list_tokens(&TokenFilter::default(), &first_page(0)).await.unwrap().items.len(), 1);
    assert_eq!(store.list_tokens(&TokenFilter::default(), &first_page(u32::MAX)).await.unwrap().items.len(), 51);
}

async fn all_filter_conditions_apply(on: &TestStore) {
    let store = on.open().await;
    let users = ["alice", "bob"];
    let agents = ["planner", "reader"];
    let states = [TaskState::Active, TaskState::Revoked];
    let audiences = ["https://files.example.com/mcp", "https://notes.example.com/mcp"];
    let (mut tasks, mut tokens) = (Vec::new(), Vec::new());
    for n in 0..32_u128 {
        let bit = |b: u32| usize::try_from(n >> b & 1).unwrap();
        let mut task = task(n);
        task.requester = requester(users[bit(0)]);
        task.root_agent = client(agents[bit(1)]);
        let all = [TaskState::Active, TaskState::Revoked, TaskState::Suspended, TaskState::Expired];
        task.state = all[bit(2) + 2 * bit(3)];
        tasks.push(task);
        let mut token = token(n);
        token.requester = (bit(4) == 0).then(|| requester(users[bit(0)]));
        token.client = client(agents[bit(1)]);
        token.audience = audiences[bit(2)].into();
        token.task = (bit(4) == 0).then(|| task_id(u128::from(bit(3) == 1)));
        token.issued = at(NOW.unix() + i64::try_from(n / 8).unwrap());
        token.expires = at(NOW.unix() + i64::try_from(n).unwrap());
        tokens.push(token);
    }
    put_records(&*store, &tasks, &tokens).await;
    let who = |name: &str| (requester(name).issuer, name.to_owned());
    let mut seen = 0;
    // Every combination of set and unset conditions.
    for code in 0..54_u32 {
        let pick = |n: u32| usize::try_from(code / 3_u32.pow(n) % 3).unwrap();
        let filter = TaskFilter {
            requester: users.get(pick(0)).map(|name| who(name)),
            agent: agents.get(pick(1)).map(|name| client(name)),
            state: states.get(pick(2)).copied(),
            only_open: code >= 27,
            ..TaskFilter::default()
        };
        let got = read_all_pages(5, async |page| store.list_tasks(&filter, &page).await).await;
        let fits = |task: &&Task| {
            users.get(pick(0)).is_none_or(|name| task.requester == requester(name))
                && filter.agent.as_ref().is_none_or(|agent| task.root_agent == *agent)
                && filter.state.is_none_or(|state| task.state == state)
                && (!filter.only_open || matches!(task.state, TaskState::Active | TaskState::Suspended))
        };
        assert_eq!(got, tasks.iter().rev().filter(fits).cloned().collect::<Vec<_>>(), "{filter:?}");
        seen += got.len();
    }
    assert!(seen > 200, "{seen}");
    seen = 0;
    for code in 0..729_u32 {
        let pick = |n: u32| usize::try_from(code / 3_u32.pow(n) % 3).unwrap();
        let filter = TokenFilter {
            task: [0, 1].get(pick(0)).copied().map(task_id),
            requester: users.get(pick(1)).map(|name| who(name)),
            client: agents.get(pick(2)).map(|name| client(name)),
            audience: audiences.get(pick(3)).map(|&uri| uri.to_owned()),
            unexpired_at: [at(NOW.unix() + 9), at(NOW.unix() + 20)].get(pick(4)).copied(),
            issued_from: [at(NOW.unix() + 2), NOW].get(pick(5)).copied(),
        };
        let got = store.list_tokens(&filter, &first_page(99)).await.unwrap().items;
        let fits = |token: &&TokenRecord| {
            filter.task.is_none_or(|task| token.task == Some(task))
                && users.get(pick(1)).is_none_or(|name| token.requester == Some(requester(name)))
                && filter.client.as_ref().is_none_or(|client| token.client == *client)
                && filter.audience.as_ref().is_none_or(|uri| token.audience == *uri)
                && filter.unexpired_at.is_none_or(|now| !token.expires.has_passed(now))
                && filter.issued_from.is_none_or(|from| token.issued >= from)
        };
        assert_eq!(got, tokens.iter().rev().filter(fits).cloned().collect::<Vec<_>>(), "{filter:?}");
        seen += got.len();
    }
    assert!(seen > 500, "{seen}");
    // The same subject at another issuer is another requester.
    let other = ("https://login.example.org".parse().unwrap(), "alice".to_owned());
    let filter = TaskFilter { requester: Some(other), ..TaskFilter::default() };
    assert_eq!(store.list_tasks(&filter, &first_page(9)).await.unwrap().items, []);
}

async fn foreign_cursor_is_rejected(on: &TestStore) {
    let store = on.open().await;
    let page = |after: &str| PageRequest { cursor: Some(after.to_owned()), limit: 10 };
    let of_tokens = {
        put_records(&*store, &[], &[token(1), token(2)]).await;
        store.list_tokens(&TokenFilter::default(), &first_page(1)).await.unwrap().next.unwrap()
    };
    let foreign = |error: ListError| matches!(error, ListError::InvalidCursor);
    let nul = errand::domain::encode_base64url(br#"["https://login.example.com","a\u0000b","planner"]"#);
    for bad in ["", "x", "!", "W10", "bnVsbA", "7", &nul] {
        assert!(foreign(store.list_tokens(&TokenFilter::default(), &page(bad)).await.unwrap_err()), "{bad}");
        assert!(foreign(store.list_tasks(&TaskFilter::default(), &page(bad)).await.unwrap_err()), "{bad}");
        assert!(foreign(store.list_grants(&GrantFilter::default(), &page(bad)).await.unwrap_err()), "{bad}");
        assert!(foreign(store.list_revocations(&page(bad)).await.unwrap_err()), "{bad}");
        assert!(foreign(store.list_audit_records(&AuditFilter::default(), &page(bad)).await.unwrap_err()), "{bad}");
    }
    assert!(foreign(store.list_revocations(&page(&of_tokens)).await.unwrap_err()));
}

async fn tasks_are_filtered_by_resource_and_age(on: &TestStore) {
    let store = on.open().await;
    let mut tasks = Vec::new();
    for n in 0..6_u128 {
        let mut task = task(n);
        task.created_at = at(NOW.unix() + i64::try_from(n).unwrap());
        if n % 2 == 1 {
            let elsewhere = Permission::unconstrained(
                "https://notes.example.com/mcp".parse().unwrap(),
                "read_notes".parse().unwrap(),
            );
            task.authority = task.authority.iter().cloned().chain([elsewhere]).collect();
        }
        tasks.push(task);
    }
    put_records(&*store, &tasks, &[]).await;
    let found = async |filter: TaskFilter| {
        let got = read_all_pages(2, async |page| store.list_tasks(&filter, &page).await).await;
        got.iter().map(|found| tasks.iter().position(|task| task == found).unwrap()).collect::<Vec<_>>()
    };
    let at_resource = |uri: &str| TaskFilter { resource: Some(uri.parse().unwrap()), ..TaskFilter::default() };
    assert_eq!(found(at_resource("https://notes.example.com/mcp")).await, [5, 3, 1]);
    assert_eq!(found(at_resource("https://files.example.com/mcp")).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(at_resource("https://files.example.com/mc")).await, [] as [usize; 0]);
    let seconds = |n: i64| Some(at(NOW.unix() + n));
    assert_eq!(found(TaskFilter { created_from: seconds(2), ..TaskFilter::default() }).await, [5, 4, 3, 2]);
    assert_eq!(found(TaskFilter { created_before: seconds(2), ..TaskFilter::default() }).await, [1, 0]);
    let both = TaskFilter {
        created_from: seconds(1),
        created_before: seconds(4),
        ..at_resource("https://notes.example.com/mcp")
    };
    assert_eq!(found(both).await, [3, 1]);
}

async fn exchanged_user_tokens_are_listed(on: &TestStore) {
    let store = on.open().await;
    let with = |n: u128, jti: &str, sid: Option<&str>| TokenRecord { evidence: Some(evidence(jti, sid)), ..token(n) };
    let tokens = [
        TokenRecord { task: Some(task_id(1)), ..with(1, "one", Some("s1")) },
        TokenRecord { task: Some(task_id(1)), ..with(2, "one", Some("s1")) },
        TokenRecord { task: Some(task_id(1)), client: client("reader"), ..with(3, "one", None) },
        TokenRecord { task: Some(task_id(2)), requester: Some(requester("bob")), ..with(4, "two", Some("s2")) },
        TokenRecord { task: Some(task_id(2)), evidence: None, ..token(5) },
        TokenRecord { task: Some(task_id(9)), requester: Some(requester("dave")), ..with(6, "four", Some("s7")) },
        TokenRecord { task: Some(task_id(9)), requester: Some(requester("dave")), ..with(7, "five", Some("s5")) },
        TokenRecord { task: Some(task_id(9)), requester: Some(requester("dave")), ..with(8, "six", Some("s6")) },
        TokenRecord { task: Some(task_id(9)), requester: Some(requester("dave")), ..with(9, "six", Some("s6")) },
    ];
    put_records(&*store, &[], &tokens).await;
    for record in &tokens {
        assert_eq!(store.find_token(record.id).await.unwrap().as_ref(), Some(record));
    }
    let seen = |name: &str, jti: &str| {
        let PresentedEvidence { token, expires, .. } = evidence(jti, None);
        SeenEvidence { client: client(name), token, expires }
    };
    let (one, reader, two) = (seen("planner", "one"), seen("reader", "one"), seen("planner", "two"));
    let list = async |selector: EvidenceSelector, now| store.list_evidence(&selector, now).await.unwrap();
    let tasks = |ids: &[u128]| EvidenceSelector::Tasks(ids.iter().map(|id| task_id(*id)).collect());
    assert_eq!(list(tasks(&[1]), NOW).await, [one.clone(), reader.clone()]);
    assert_eq!(list(tasks(&[2, 3]), NOW).await, [two]);
    assert_eq!(list(tasks(&[]), NOW).await, []);
    assert_eq!(list(tasks(&[1, 2]), at(NOW.unix() + 600)).await, [], "expired");
    let of = |name: &str, from| EvidenceSelector::Requester(requester(name), from);
    assert_eq!(list(of("alice", at(NOW.unix() - 1)), NOW).await, [one, reader]);
    assert_eq!(list(of("alice", NOW), NOW).await, [], "issued before");
    assert_eq!(list(of("alic", at(0)), NOW).await, []);
    let sessions = async |name: &str| store.list_sessions(&requester(name)).await.unwrap();
    assert_eq!(sessions("alice").await, [evidence("one", Some("s1")).session.unwrap()]);
    assert_eq!(sessions("bob").await, [evidence("two", Some("s2")).session.unwrap()]);
    assert_eq!(sessions("carol").await, []);
    let of_dave = ["s5", "s6", "s7"].map(|sid| evidence("six", Some(sid)).session.unwrap());
    assert_eq!(BTreeSet::from_iter(sessions("dave").await), BTreeSet::from(of_dave));
    assert_eq!(sessions("dave").await.len(), 3);
}

conformance!(
    exchanged_user_tokens_are_listed,
    tasks_are_filtered_by_resource_and_age,
    task_round_trips,
    token_round_trips,
    hostile_text_is_stored_verbatim,
    pages_are_complete_without_duplicates,
    all_filter_conditions_apply,
    foreign_cursor_is_rejected,
);
