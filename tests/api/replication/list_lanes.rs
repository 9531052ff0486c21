//! Lists never delay what has connections of its own: the lease, readiness, exchanges and
//! revocations.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    server::{FILES, NOTES, Server, decode_claims, wait_until},
    support::TestStore,
};

/// The number of parallel lists.
const LISTS: usize = 60;

/// One test per store, since each has a configuration of its own.
macro_rules! on_both_stores_with {
    ($edit:expr; $($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let store = crate::support::TestStore::sqlite().await;
                super::$name(crate::server::Server::start_edited(store, $edit).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let store = crate::support::TestStore::postgres().await;
                super::$name(crate::server::Server::start_edited(store, $edit).await).await;
            })*
        }
    };
}

/// Lists that never end, and more of them than there are connections.
fn with_short_lists(text: String) -> String {
    let text = text.replace("[store]\n", "[store]\nlist_connections = 2\nlist_timeout_seconds = 1\n");
    format!("{text}\n[requests]\nlists_per_client = {LISTS}\n")
}

on_both_stores_with! { super::with_short_lists; endless_lists_delay_nothing_else }

mod indexed {
    on_both_stores!(lists_of_many_tasks_are_read_by_index, lists_of_a_client_are_limited);

    use super::{lists_of_a_client_are_limited, lists_of_many_tasks_are_read_by_index};
}

fn is_sqlite(store: &TestStore) -> bool {
    store.url().starts_with("sqlite")
}

/// Makes the list of break-glass grants endless. Its rows depend on a number, so that no planner
/// can see that none of them fits the list.
async fn make_list_endless(store: &TestStore) {
    store.tamper("ALTER TABLE break_glass RENAME TO break_glass_away").await;
    let last = "ffffffff-ffff-ffff-ffff-ffffffffffff";
    let id = if is_sqlite(store) { format!("'{last}'") } else { format!("'{last}'::uuid") };
    let texts = [
        "requester_issuer",
        "requester_subject",
        "agent",
        "authority",
        "actor",
        "reason",
        "reviewed_by",
        "note",
        "tag",
    ];
    let texts = texts.map(|column| format!("CAST('' AS text) AS {column}")).join(", ");
    let view = format!(
        "CREATE VIEW break_glass AS
         WITH RECURSIVE n (i) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT i + 1 FROM n)
         SELECT {id} AS id, {texts}, i AS until, CASE WHEN i > 0 THEN 9223372036854775807 ELSE 0 END AS occurred_at,
             CAST(NULL AS bigint) AS reviewed_at FROM n"
    );
    store.tamper(&view).await;
}

async fn list(server: &Server, token: &str, path: &str) -> (StatusCode, Value) {
    let request = server.request(Method::GET, path).bearer_auth(token);
    crate::server::read_response(request.send().await.unwrap()).await
}

async fn endless_lists_delay_nothing_else(server: Server) {
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let token = server.task_token().await;
    wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
    make_list_endless(&server.store).await;
    let are_listed = AtomicBool::new(false);
    let lists = async {
        let lists = (0..LISTS).map(|_| list(&server, &api, "/v1/admin/break-glass"));
        let lists = futures_util::future::join_all(lists).await;
        are_listed.store(true, Ordering::SeqCst);
        lists
    };
    // Requests that had to wait for the lists would end no round before them.
    let others = async {
        let mut rounds = 0;
        while !are_listed.load(Ordering::SeqCst) {
            let ready = server.request(Method::GET, "/readyz").send().await.unwrap();
            assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
            assert!(server.application.service.holds_lease(), "the lease lapsed");
            let issued = server.task_token().await;
            assert!(server.is_active(&issued).await);
            let revoked =
                server.revoke(json!({"kind": "token", "id": decode_claims(&issued)["jti"], "reason": "a test"})).await;
            assert!(!server.is_active(&issued).await, "{revoked}");
            rounds += 1;
        }
        rounds
    };
    let (lists, rounds) = tokio::join!(lists, others);
    assert!(rounds >= 2, "{rounds} rounds during the lists");
    for (status, body) in &lists {
        assert_eq!(*status, 503, "{body}");
    }
    let timed_out = lists.iter().filter(|(_, body)| body["type"] == "urn:errand:problem:list_timed_out").count();
    assert!(timed_out >= 2, "{timed_out} lists took too long");
    assert!(server.is_active(&token).await);
    // A list that was stopped does not occupy its connection.
    server.store.tamper("DROP VIEW break_glass").await;
    server.store.tamper("ALTER TABLE break_glass_away RENAME TO break_glass").await;
    wait_until("lists work again", || async { list(&server, &api, "/v1/admin/break-glass").await.0 == 200 }).await;
    server.stop().await;
}

/// The number of tasks in the store.
const TASKS: u32 = 60_000;

/// Inserts tasks of `planner` for alice at `files`, all of them completed.
async fn insert_tasks(store: &TestStore) {
    let (numbers, id) = if is_sqlite(store) {
        let numbers = format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {TASKS})");
        (numbers, "printf('00000000-0000-7000-8000-%012d', i)")
    } else {
        let numbers = format!("WITH n (i) AS (SELECT generate_series(1, {TASKS}))");
        (numbers, "('00000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid")
    };
    let tasks = format!(
        "INSERT INTO tasks (id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, tag)
         {numbers} SELECT {id}, 'https://login.example.com', 'alice', 'planner', 'x', '[]', 'completed', 1000000000 + i, 2000000000, 1, '' FROM n"
    );
    let resources = format!(
        "INSERT INTO task_resources (resource, opened, task, agent, issuer, subject)
         {numbers} SELECT '{FILES}', 1000000000 + i, {id}, 'planner', 'https://login.example.com', 'alice' FROM n"
    );
    store.tamper(&tasks).await;
    store.tamper(&resources).await;
    if !is_sqlite(store) {
        store.tamper("ANALYZE tasks").await;
        store.tamper("ANALYZE task_resources").await;
    }
}

/// None of these lists finds a task, so each would read all of them if no index served it.
async fn lists_of_many_tasks_are_read_by_index(server: Server) {
    let (api, planner) =
        (server.api_token("ops", "errand:admin errand:audit").await, server.api_token("planner", "errand:tasks").await);
    insert_tasks(&server.store).await;
    wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
    let requester = "issuer=https%3A%2F%2Flogin.example.com&subject=alice";
    let admin_lists = [
        format!("resource={NOTES}"),
        format!("resource={NOTES}&agent=planner"),
        format!("resource={NOTES}&{requester}"),
        format!("resource={FILES}&from=2100-01-01T00:00:00Z"),
        format!("resource={FILES}&until=1999-01-01T00:00:00Z"),
        format!("resource={FILES}&state=suspended"),
        "agent=reader".to_owned(),
        "agent=planner&state=failed".to_owned(),
        format!("{requester}&state=active"),
        "state=revoked".to_owned(),
        "from=2100-01-01T00:00:00Z".to_owned(),
        "agent=planner&until=1999-01-01T00:00:00Z".to_owned(),
    ];
    for filter in &admin_lists {
        let (status, body) = list(&server, &api, &format!("/v1/admin/tasks?{filter}")).await;
        assert_eq!((status.as_u16(), &body["items"]), (200, &json!([])), "{filter}: {body}");
    }
    let own = [format!("resource={NOTES}"), "state=failed".into(), "from=2100-01-01T00:00:00Z".into()];
    let paths = own.iter().cycle().take(LISTS).map(|filter| format!("/v1/tasks?{filter}")).collect::<Vec<_>>();
    let lists = futures_util::future::join_all(paths.iter().map(|path| list(&server, &planner, path)));
    let others = async {
        for _ in 0..10 {
            let ready = server.request(Method::GET, "/readyz").send().await.unwrap();
            assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
            assert!(server.application.service.holds_lease(), "the lease lapsed");
            server.task_token().await;
        }
    };
    let (lists, ()) = tokio::join!(lists, others);
    for (status, body) in &lists {
        let is_admitted = *status == 200 && body["items"] == json!([]);
        assert!(is_admitted || *status == 429, "{status} {body}");
    }
    assert!(lists.iter().any(|(status, _)| *status == 200));
    server.stop().await;
}

async fn lists_of_a_client_are_limited(server: Server) {
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let other = server.api_token("audit", "errand:audit").await;
    // A lock on the table keeps lists waiting on PostgreSQL only, so the lists are made slow.
    make_list_endless(&server.store).await;
    let hold = async || {
        // The list that looks for the limit may come first.
        loop {
            let (status, body) = list(&server, &api, "/v1/admin/break-glass").await;
            if status != StatusCode::TOO_MANY_REQUESTS {
                break (status, body);
            }
        }
    };
    let held = futures_util::future::join_all([hold(), hold()]);
    let limited = async {
        wait_until("the limit is reached", || async { list(&server, &api, "/v1/admin/tasks").await.0 == 429 }).await;
        let response = server.request(Method::GET, "/v1/admin/tasks").bearer_auth(&api).send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"1".parse().unwrap()));
        let body = response.json::<Value>().await.unwrap();
        assert_eq!(body["type"], "urn:errand:problem:too_many_lists", "{body}");
        assert!(body["detail"].as_str().unwrap().contains("2 lists"), "{body}");
        assert_eq!(list(&server, &other, "/v1/admin/tasks").await.0, 200, "another client has lists of its own");
    };
    let (held, ()) = tokio::join!(held, limited);
    assert!(held.iter().all(|(_, body)| body["type"] == "urn:errand:problem:list_timed_out"), "{held:?}");
    wait_until("the limit is free again", || async { list(&server, &api, "/v1/admin/tasks").await.0 == 200 }).await;
    server.stop().await;
}
