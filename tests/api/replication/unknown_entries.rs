//! Entries of the revocation log that only a newer version knows, as an old replica meets them
//! during an upgrade.

use errand::{
    bootstrap::{Application, MigrationPolicy},
    config::Config,
};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::server::{Server, form, read_response, secret, wait_until};

on_both_stores!(
    unknown_kind_stops_the_replica,
    unknown_verb_stops_the_replica,
    newer_meaning_of_a_known_entry_stops_the_replica,
    start_behind_an_unknown_entry_names_the_version,
);

const NEEDED: &str = "999.1.0";

async fn unknown_kind_stops_the_replica(server: Server) {
    check_stop_and_recovery(server, "session", "revoke", NEEDED).await;
}

async fn unknown_verb_stops_the_replica(server: Server) {
    check_stop_and_recovery(server, "task", "quarantine", NEEDED).await;
}

async fn newer_meaning_of_a_known_entry_stops_the_replica(server: Server) {
    check_stop_and_recovery(server, "task", "revoke", NEEDED).await;
}

/// Appends an entry to the revocation log as another version of the program would write it.
async fn append_foreign_entry(server: &Server, kind: &str, verb: &str, min_version: &str) {
    let permit = if server.store.url().starts_with("sqlite") {
        "PRAGMA ignore_check_constraints = ON"
    } else {
        "ALTER TABLE revocation_log DROP CONSTRAINT revocation_log_kind_check, \
         DROP CONSTRAINT revocation_log_verb_check, DROP CONSTRAINT revocation_log_verb_by_kind_check"
    };
    let id = "018f0000-0000-7000-8000-000000000000";
    let insert = format!(
        "{permit}; INSERT INTO revocation_log \
         (seq, kind, key, verb, reason, actor, occurred_at, forget_after, min_version, previous, tag) \
         SELECT seq + 1, '{kind}', '{id}', '{verb}', 'of a newer version', 'admin:ops', 1, 4102444800, \
         '{min_version}', '', '' FROM log_head"
    );
    server.rewrite_log(&insert).await;
}

/// Returns a request to everything that says whether something is valid, or that changes something.
fn requests(at: &Server, token: &str, api_token: &str, status_list: &str) -> Vec<(&'static str, RequestBuilder)> {
    let exchange = at.exchange_form(&at.user_token(json!({"client_id": "reader-client"})));
    let introspection = at.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
    let revocation = at.post("/oauth2/revoke").basic_auth("reader", Some(secret("reader")));
    let admin_revocation = json!({"kind": "agent", "id": "reader", "reason": "in a test"});
    vec![
        ("introspection", introspection.form(&form(&[("token", token)]))),
        ("exchange", at.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&exchange)),
        ("revocation", revocation.form(&form(&[("token", token)]))),
        ("admin revocation", at.post("/v1/admin/revocations").bearer_auth(api_token).json(&admin_revocation)),
        ("feed", at.request(Method::GET, "/revocations?after=0").bearer_auth(api_token)),
        ("tasks", at.request(Method::GET, "/v1/admin/tasks").bearer_auth(api_token)),
        ("status list", at.request(Method::GET, status_list)),
        ("keys", at.request(Method::GET, "/oauth2/jwks")),
        ("readiness", at.request(Method::GET, "/readyz")),
    ]
}

async fn check_unavailable(at: &Server, token: &str, api_token: &str, status_list: &str) {
    for (name, request) in requests(at, token, api_token, status_list) {
        let response = request.send().await.unwrap();
        let retry_after = response.headers().get("retry-after").cloned();
        let (status, body) = read_response(response).await;
        assert_eq!(status, 503, "{name}: {body}");
        assert!(retry_after.is_some(), "{name}: {body}");
        let text = body["error_description"].as_str().or_else(|| body["detail"].as_str()).unwrap_or_default();
        assert!(text.contains(NEEDED) && text.contains(env!("CARGO_PKG_VERSION")), "{name}: {body}");
    }
    let response = at.request(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(response.status(), 200, "a liveness probe does not restart the process");
    assert!(!at.application.service.holds_lease());
}

async fn heartbeat_number(at: &Server, name: &str) -> u64 {
    let heartbeats = at.open_store().await.list_replicas().await.unwrap();
    heartbeats.iter().find(|heartbeat| heartbeat.replica.name == name).unwrap().number
}

async fn check_stop_and_recovery(server: Server, kind: &str, verb: &str, min_version: &str) {
    let other = server
        .replica_with(|config| {
            config.replicas.name = Some("old".into());
            (config.replicas.lease_ms, config.replicas.heartbeat_ms) = (900, 20);
        })
        .await;
    let (token, api_token) = (server.task_token().await, server.api_token("ops", "errand:admin").await);
    let (uri, _) = crate::revocation::status_lists::status_index(&token);
    let status_list = uri.strip_prefix(&server.issuer).unwrap();
    wait_until("the lease is valid", || async { other.application.service.holds_lease() }).await;
    assert!(other.is_active(&token).await);
    let (status, _) = read_response(other.request(Method::GET, status_list).send().await.unwrap()).await;
    assert_eq!(status, 200, "the list is in the cache");

    append_foreign_entry(&server, kind, verb, min_version).await;
    let introspects = || async {
        let (status, _) = other.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await;
        status.as_u16()
    };
    wait_until("the replica has met the entry", || async { introspects().await == 503 }).await;
    check_unavailable(&other, &token, &api_token, status_list).await;
    let before = heartbeat_number(&other, "old").await;
    for _ in 0..3 {
        check_unavailable(&other, &token, &api_token, status_list).await;
    }
    assert!(heartbeat_number(&other, "old").await <= before + 1, "revokers do not wait for this replica");

    // The entry is lost with the end of the log, as after a failover: the replica follows again.
    server.rewrite_log("DELETE FROM revocation_log WHERE reason = 'of a newer version'").await;
    wait_until("the replica answers again", || async { introspects().await == 200 }).await;
    wait_until("the lease is valid again", || async { other.application.service.holds_lease() }).await;
    assert!(other.is_active(&token).await);
    other.stop().await;
    server.stop().await;
}

async fn start_behind_an_unknown_entry_names_the_version(server: Server) {
    append_foreign_entry(&server, "session", "revoke", NEEDED).await;
    let config = Config::load(&server.config_file(), &|_| None).unwrap();
    let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
    let error = application.initialize(&config).await.unwrap_err().to_string();
    assert!(error.contains(NEEDED) && error.contains("upgrade this replica"), "{error}");
    application.service.shutdown().await;
    server.stop().await;
}
