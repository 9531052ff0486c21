//! The store is unreachable or does not respond: the response is 503 with `Retry-After`, never a
//! decision.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    server::{Server, decode_claims, form, secret, wait_until, with_assertion},
    support::TestStore,
    transport::injection::error_code,
};

on_both_stores!(unreachable_store_returns_503, store_hang_returns_503);

impl Server {
    /// Returns one request of every kind that needs the store.
    fn all_requests(&self, token: &str, api: &str) -> Vec<(&'static str, RequestBuilder)> {
        let signed = |path: &str, form| self.post(path).form(&with_assertion(form, &self.assertion(json!({}))));
        let by_secret =
            |path: &str, client: &str, form| self.post(path).basic_auth(client, Some(secret(client))).form(form);
        let admin = |method, path: &str| self.request(method, &format!("/v1/admin{path}")).bearer_auth(api);
        let token_form = form(&[("token", token)]);
        let end = json!({"kind": "task", "id": decode_claims(token)["txn"], "reason": "in an outage"});
        let again = crate::server::form_with_changes(&self.exchange_form(token), &[("purpose", "")]);
        vec![
            ("exchange", signed("/oauth2/token", &self.exchange_form(&self.user_token(json!({}))))),
            ("exchange of an own token", signed("/oauth2/token", &again)),
            ("a bad exchange", signed("/oauth2/token", &self.exchange_form("a.b.c"))),
            (
                "client_credentials",
                by_secret("/oauth2/token", "reader", &form(&[("grant_type", "client_credentials")])),
            ),
            ("introspection", by_secret("/oauth2/introspect", "files", &token_form)),
            ("introspection of nothing", by_secret("/oauth2/introspect", "files", &form(&[("token", "x")]))),
            ("introspection by bearer", self.post("/oauth2/introspect").bearer_auth(api).form(&token_form)),
            ("revocation", signed("/oauth2/revoke", &token_form)),
            ("a wrong secret", self.post("/oauth2/token").basic_auth("reader", Some("wrong")).form(&token_form)),
            ("an unknown client", self.post("/oauth2/token").basic_auth("unknown", Some("wrong")).form(&token_form)),
            ("admin: read", admin(Method::GET, "/agents")),
            ("admin: audit", admin(Method::GET, "/audit")),
            ("admin: revoke", admin(Method::POST, "/revocations").json(&end)),
            (
                "admin: put",
                admin(Method::PUT, "/agents/x")
                    .json(&json!({"id": "x", "authentication": {"method": "client_secret_basic"}})),
            ),
            ("admin: rotate", admin(Method::POST, "/keys/rotate")),
            ("keys", self.request(Method::GET, "/oauth2/jwks")),
            ("ready", self.request(Method::GET, "/readyz")),
        ]
    }

    async fn request_status(&self, path: &str) -> u16 {
        self.request(Method::GET, path).send().await.unwrap().status().as_u16()
    }
}

/// Makes the store unavailable.
pub async fn make_store_unavailable(store: &TestStore) {
    match postgres_of(store).await {
        // An open SQLite file stays open; without this table, every query of the log fails.
        None => drop(store.tamper("ALTER TABLE log_head RENAME TO log_head_away").await),
        Some((mut server, database)) => {
            for sql in [
                format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"),
            ] {
                server.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }
}

/// Makes the store available again.
pub async fn restore_store(store: &TestStore) {
    match postgres_of(store).await {
        None => drop(store.tamper("ALTER TABLE log_head_away RENAME TO log_head").await),
        Some((mut server, database)) => {
            let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true");
            server.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    }
}

/// Returns a connection to another database of the store's PostgreSQL server, and the name of the
/// store's database.
async fn postgres_of(store: &TestStore) -> Option<(PgConnection, String)> {
    let mut url = url::Url::parse(store.url()).ok().filter(|url| url.scheme().starts_with("postgres"))?;
    let database = url.path().trim_start_matches('/').to_owned();
    url.set_path("postgres");
    Some((PgConnection::connect(url.as_str()).await.unwrap(), database))
}

/// Sends all requests concurrently, and checks that each response is 503 and decides nothing.
async fn assert_all_unavailable(requests: Vec<(&'static str, RequestBuilder)>) {
    let sent = requests.into_iter().map(|(name, request)| (name, tokio::spawn(request.send()))).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    for (name, answer) in sent {
        let response = answer.await.unwrap().unwrap();
        let retry = response.headers().get("retry-after").is_some_and(|value| value == "1");
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        if (status, retry, error_code(&text).as_str()) != (503, true, "temporarily_unavailable")
            || text.contains("active")
        {
            wrong.push(format!("{name}: {status} {retry} {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn unreachable_store_returns_503(server: Server) {
    let token = server.task_token().await;
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    for _ in 0..2 {
        assert_eq!((server.request_status("/healthz").await, server.request_status("/readyz").await), (200, 200));
        wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
        make_store_unavailable(&server.store).await;
        // It answers from memory until the lease lapses; then the answer is unknown.
        wait_until("the lease has lapsed", || async {
            let token_form = form(&[("token", &token)]);
            let (status, body) = server.post_as("files", "/oauth2/introspect", &token_form).await;
            assert!(status == 503 || (status == 200 && body["active"] == true), "{status} {body}");
            status == 503
        })
        .await;
        assert_all_unavailable(server.all_requests(&token, &api)).await;
        let ready = server.request(Method::GET, "/readyz").send().await.unwrap().json::<Value>().await.unwrap();
        assert_eq!(ready["detail"], "failed check: store; retry later", "{ready}");
        assert_eq!(server.request_status("/healthz").await, 200, "the process runs");
        let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        assert!(metrics.contains("errand_store_up 0"), "{metrics}");
        assert!(metrics.contains("errand_lease_valid 0"), "{metrics}");
        restore_store(&server.store).await;
        wait_until("the replica is ready again", || async { server.request_status("/readyz").await == 200 }).await;
        assert!(server.is_active(&token).await, "no revocation was acknowledged");
        let fresh = server.task_token().await;
        assert!(server.is_active(&fresh).await);
        let metrics = async || server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        wait_until("the lease is valid again", || async { metrics().await.contains("errand_lease_valid 1\n") }).await;
        let metrics = metrics().await;
        for line in [
            "errand_store_up 1",
            "errand_issuer_up{issuer=\"https://login.example.com\"} 1",
            "# TYPE errand_audit_records_dropped_total counter",
        ] {
            assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
        }
        // Introspections from memory may have lost their audit record, which is counted.
        assert!(metrics.contains("errand_audit_records_dropped_total "), "{metrics}");
    }
    let cx = server.application.system_context().unwrap();
    let report = server.application.service.verify_audit(&[], &cx).await.unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    server.stop().await;
}

/// Reads are served, and writes are rejected with 503 in time.
async fn store_hang_returns_503(server: Server) {
    let token = server.task_token().await;
    assert!(server.is_active(&token).await, "the first introspection is recorded");
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let held = server.store.lock_writes().await;
    let writes = ["exchange", "client_credentials", "revocation", "admin: revoke", "admin: put", "a bad exchange"];
    let all = (0..3).flat_map(|_| server.all_requests(&token, &api));
    let sending = assert_all_unavailable(all.filter(|(name, _)| writes.contains(name)).collect());
    let introspecting = async {
        for _ in 0..5 {
            let answer = server.introspect(&token).await;
            assert_eq!(answer["active"], true, "{answer}");
        }
        assert_eq!(server.request_status("/readyz").await, 200);
    };
    tokio::join!(sending, introspecting);
    drop(held);
    let issued = || async {
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
        let known: &[Value] = &[Value::Null, json!("temporarily_unavailable")];
        assert!(known.contains(&body["error"]), "{body}");
        status == 200
    };
    wait_until("tokens are issued again", issued).await;
    let cx = server.application.system_context().unwrap();
    let report = server.application.service.verify_audit(&[], &cx).await.unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    server.stop().await;
}
