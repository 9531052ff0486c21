//! A log that lost its last entries, as after a failover to a server that had not received the last
//! commits.

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    server::{Server, decode_claims, read_response, wait_until},
    support::TestStore,
};

on_both_stores!(
    truncated_log_is_detected,
    regrown_log_is_detected,
    same_length_log_is_detected,
    missed_renewal_does_not_grant_lease
);

fn token_target(token: &str) -> serde_json::Value {
    json!({"kind": "token", "id": decode_claims(token)["jti"], "reason": "in a test"})
}

/// Starts another replica and revokes a token; both replicas have applied the entry. Returns its
/// log position.
async fn replica_with_one_revocation(server: &Server, token: &str) -> (Server, u64) {
    let other = server.replica().await;
    let seq = server.revoke(token_target(token)).await["seq"].as_u64().unwrap();
    for at in [server, &other] {
        wait_until("the lease is valid", || async { at.application.service.holds_lease() }).await;
        wait_until("the entry is applied", || async { at.application.service.applied_seq().number() >= seq }).await;
        assert!(!at.is_active(token).await);
    }
    (other, seq)
}

async fn truncated_log_is_detected(server: Server) {
    let (one, two) = (server.task_token().await, server.task_token().await);
    let (other, seq) = replica_with_one_revocation(&server, &one).await;
    // Fill the caches of the feed and of the status lists.
    let api = server.api_token("ops", "errand:admin").await;
    let feed_key = async |at: &Server| {
        let request = at.request(reqwest::Method::GET, &format!("/revocations?after={}", seq - 1)).bearer_auth(&api);
        read_response(request.send().await.unwrap()).await.1["entries"][0]["key"].clone()
    };
    for at in [&server, &other] {
        assert_eq!(feed_key(at).await, decode_claims(&one)["jti"]);
        wait_until("the status lists follow", || async {
            at.status_of(&one).await == 1 && at.status_of(&two).await == 0
        })
        .await;
    }
    server.rewrite_log(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    // The lost position is assigned a second time.
    let answer = server.revoke(token_target(&two)).await;
    assert_eq!(answer["seq"], seq, "{answer}");
    for at in [&server, &other] {
        // A real rollback also loses the acknowledgements of the lost entry, and the revoker waits.
        // Here it does not.
        wait_until("the new entry is applied", || async { !at.is_active(&two).await }).await;
        assert!(at.is_active(&one).await, "its revocation was lost");
        wait_until("the lease is valid again", || async { at.application.service.holds_lease() }).await;
        assert!(!at.is_active(&two).await && at.is_active(&one).await);
        assert_eq!(feed_key(at).await, decode_claims(&two)["jti"], "the position has another entry");
        wait_until("the status lists follow again", || async {
            at.status_of(&two).await == 1 && at.status_of(&one).await == 0
        })
        .await;
        assert_eq!(at.request(reqwest::Method::GET, "/readyz").send().await.unwrap().status(), StatusCode::OK);
    }
}

async fn regrown_log_is_detected(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await, server.task_token().await];
    let (other, seq) = replica_with_one_revocation(&server, &tokens[0]).await;
    // The position now has another entry.
    let there = decode_claims(&tokens[1])["jti"].as_str().unwrap().to_owned();
    server.rewrite_log(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    let answer = server.revoke(token_target(&tokens[2])).await;
    assert_eq!(answer["seq"], seq + 1, "{answer}");
    for at in [&server, &other] {
        assert!(!at.is_active(&tokens[2]).await, "{answer}");
        assert!(!at.is_active(&tokens[1]).await, "its entry precedes an acknowledged one");
        assert!(at.is_active(&tokens[0]).await);
    }
}

/// A replica without a lease reads the head of the log, and the head has not moved.
async fn same_length_log_is_detected(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await];
    let (mut other, seq) = replica_with_one_revocation(&server, &tokens[0]).await;
    other.stop_following().await;
    wait_until("the lease has lapsed", || async { !other.application.service.holds_lease() }).await;
    let there = decode_claims(&tokens[1])["jti"].as_str().unwrap().to_owned();
    server.rewrite_log(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    assert!(!other.is_active(&tokens[1]).await, "the applied position has another entry");
    assert!(other.is_active(&tokens[0]).await);
}

/// The log loses entries while a renewal is in flight. The renewal acknowledges a lost entry, and a
/// revoker that commits another entry at that position will not wait. The renewal must not extend
/// the lease; a later one that acknowledges less does.
#[tokio::test(flavor = "multi_thread")]
async fn renewal_acknowledging_lost_entries_is_rejected() {
    let mut server = Server::start(TestStore::postgres().await).await;
    let token = server.task_token().await;
    let other = server.replica_with_long_lease().await;
    let seq = server.revoke(token_target(&token)).await["seq"].as_u64().unwrap();
    wait_until("the entry is applied", || async { other.application.service.applied_seq().number() >= seq }).await;
    server.wait_until_leased().await;
    server.isolate().await;
    let mut held = lock_replicas_table(server.store.url()).await;
    wait_until("a renewal waits for the lock", || async { count_waiting(&server, RENEWAL_STATEMENT).await == 1 }).await;
    server.rewrite_log(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    // Let the renewal proceed one statement at a time: the waiting statement gets the lock, and the
    // next one waits again. (Preparing a statement needs the lock as well.)
    while other.application.service.applied_seq().number() == seq {
        let url = server.store.url().to_owned();
        let next = tokio::spawn(async move { lock_replicas_table(&url).await });
        wait_until("the next lock request waits", || async { count_waiting(&server, LOCK_STATEMENT).await == 1 }).await;
        drop(held);
        held = next.await.unwrap();
        wait_until("another renewal waits for the lock", || async {
            count_waiting(&server, RENEWAL_STATEMENT).await == 1
        })
        .await;
    }
    assert_eq!(other.application.service.applied_seq().number(), seq - 1, "the loss is detected");
    assert!(!other.application.service.holds_lease(), "the renewal acknowledged a lost entry");
    drop(held);
    other.wait_until_leased().await;
}

/// Blocks all renewals until the connection is dropped.
async fn lock_replicas_table(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute("BEGIN; LOCK TABLE replicas IN EXCLUSIVE MODE").await.unwrap();
    connection
}

const LOCK_STATEMENT: &str = "%LOCK TABLE replicas%";
const RENEWAL_STATEMENT: &str = "%INSERT INTO replicas%";

/// Returns the number of statements like this one that wait for a lock in this database.
async fn count_waiting(server: &Server, like: &str) -> i64 {
    let mut connection = PgConnection::connect(server.store.url()).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";
    sqlx::query_scalar(waiting).bind(like).fetch_one(&mut connection).await.unwrap()
}

/// The store ignores the replica's renewals, so no revoker waits for it, and it must not answer
/// from memory.
async fn missed_renewal_does_not_grant_lease(server: Server) {
    wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
    let store = server.open_store().await;
    let mut heartbeat = store.list_replicas().await.unwrap().remove(0);
    heartbeat.number += 1_000_000;
    store.record_heartbeat(&heartbeat, false).await.unwrap();
    wait_until("the lease has lapsed", || async { !server.application.service.holds_lease() }).await;
    let token = server.task_token().await;
    assert!(server.is_active(&token).await, "the answer comes from the store");
    assert!(!server.application.service.holds_lease());
}
