//! A store that comes back in an older state: a failover to a server that had not got the last commits.

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

fn task_target(token: &str) -> serde_json::Value {
    json!({"kind": "task", "id": decode_claims(token)["txn"], "reason": "in a test"})
}

/// Another replica, and a revocation that both have applied. Returns its place.
async fn replica_with_one_revocation(server: &Server, token: &str) -> (Server, u64) {
    let other = server.replica().await;
    let seq = server.revoke(task_target(token)).await["seq"].as_u64().unwrap();
    for at in [server, &other] {
        wait_until("its lease holds", || async { at.application.service.holds_lease() }).await;
        wait_until("it has it", || async { at.application.service.applied_seq().number() >= seq }).await;
        assert!(!at.is_active(token).await);
    }
    (other, seq)
}

async fn truncated_log_is_detected(server: Server) {
    let (one, two) = (server.task_token().await, server.task_token().await);
    let (other, seq) = replica_with_one_revocation(&server, &one).await;
    // What is told of it, and of the tokens in lists, is kept.
    let api = server.api_token("ops", "errand:admin").await;
    let told = async |at: &Server| {
        let request = at.request(reqwest::Method::GET, &format!("/revocations?after={}", seq - 1)).bearer_auth(&api);
        read_response(request.send().await.unwrap()).await.1["entries"][0]["key"].clone()
    };
    for at in [&server, &other] {
        assert_eq!(told(at).await, decode_claims(&one)["txn"]);
        wait_until("the lists say so", || async { at.status_of(&one).await == 1 && at.status_of(&two).await == 0 })
            .await;
    }
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    server.store.tamper(&format!("UPDATE log_head SET seq = {}", seq - 1)).await;
    // The place that was lost is given again.
    let answer = server.revoke(task_target(&two)).await;
    assert_eq!(answer["seq"], seq, "{answer}");
    for at in [&server, &other] {
        // In a store that really went back, the acknowledgement of what was lost is lost as well, and they are waited for.
        wait_until("it is known", || async { !at.is_active(&two).await }).await;
        assert!(at.is_active(&one).await, "what took it back was lost");
        wait_until("its lease holds again", || async { at.application.service.holds_lease() }).await;
        assert!(!at.is_active(&two).await && at.is_active(&one).await);
        assert_eq!(told(at).await, decode_claims(&two)["txn"], "its place has another entry now");
        wait_until("the lists say so too", || async { at.status_of(&two).await == 1 && at.status_of(&one).await == 0 })
            .await;
        assert_eq!(at.request(reqwest::Method::GET, "/readyz").send().await.unwrap().status(), StatusCode::OK);
    }
}

async fn regrown_log_is_detected(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await, server.task_token().await];
    let (other, seq) = replica_with_one_revocation(&server, &tokens[0]).await;
    // At its place there is another one now.
    let there = decode_claims(&tokens[1])["txn"].as_str().unwrap().to_owned();
    server.store.tamper(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    let answer = server.revoke(task_target(&tokens[2])).await;
    assert_eq!(answer["seq"], seq + 1, "{answer}");
    for at in [&server, &other] {
        assert!(!at.is_active(&tokens[2]).await, "{answer}");
        assert!(!at.is_active(&tokens[1]).await, "it is in the log, before one that was acknowledged");
        assert!(at.is_active(&tokens[0]).await);
    }
}

/// Who has no lease asks the store how far the log goes, and that is as far as before.
async fn same_length_log_is_detected(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await];
    let (mut other, seq) = replica_with_one_revocation(&server, &tokens[0]).await;
    other.isolate().await;
    wait_until("its lease is over", || async { !other.application.service.holds_lease() }).await;
    let there = decode_claims(&tokens[1])["txn"].as_str().unwrap().to_owned();
    server.store.tamper(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    assert!(!other.is_active(&tokens[1]).await, "at the place that it has applied there is another entry");
    assert!(other.is_active(&tokens[0]).await);
}

/// A renewal arrives when the log has gone back since it was sent: it acknowledges what was lost, and who commits something
/// else at that place will not wait. So it gives no lease, before there is another renewal that says less.
#[tokio::test(flavor = "multi_thread")]
async fn renewal_acknowledging_lost_entries_is_rejected() {
    let mut server = Server::start(TestStore::postgres().await).await;
    let token = server.task_token().await;
    let other = server.replica_with_long_lease().await;
    let seq = server.revoke(task_target(&token)).await["seq"].as_u64().unwrap();
    wait_until("it has it", || async { other.application.service.applied_seq().number() >= seq }).await;
    server.wait_until_leased().await;
    server.isolate().await;
    let mut held = lock_replicas_table(server.store.url()).await;
    wait_until("a renewal waits", || async { count_waiting(&server, RENEWAL_STATEMENT).await == 1 }).await;
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    server.store.tamper(&format!("UPDATE log_head SET seq = {}", seq - 1)).await;
    // One after the other: who waits gets the lock, and the next who wants it waits again. (To be prepared, a statement
    // wants it as well.)
    while other.application.service.applied_seq().number() == seq {
        let url = server.store.url().to_owned();
        let next = tokio::spawn(async move { lock_replicas_table(&url).await });
        wait_until("somebody waits behind it", || async { count_waiting(&server, LOCK_STATEMENT).await == 1 }).await;
        drop(held);
        held = next.await.unwrap();
        wait_until("it wants to renew again", || async { count_waiting(&server, RENEWAL_STATEMENT).await == 1 }).await;
    }
    assert_eq!(other.application.service.applied_seq().number(), seq - 1, "it has seen that");
    assert!(!other.application.service.holds_lease(), "it has acknowledged a place that it knows nothing of");
    drop(held);
    other.wait_until_leased().await;
}

/// Nobody renews as long as this lives.
async fn lock_replicas_table(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute("BEGIN; LOCK TABLE replicas IN EXCLUSIVE MODE").await.unwrap();
    connection
}

const LOCK_STATEMENT: &str = "%LOCK TABLE replicas%";
const RENEWAL_STATEMENT: &str = "%INSERT INTO replicas%";

/// How many statements like this one wait for a lock in this database.
async fn count_waiting(server: &Server, like: &str) -> i64 {
    let mut connection = PgConnection::connect(server.store.url()).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";
    sqlx::query_scalar(waiting).bind(like).fetch_one(&mut connection).await.unwrap()
}

/// Nobody sees its renewals, so nobody waits for it, and it must not answer from memory.
async fn missed_renewal_does_not_grant_lease(server: Server) {
    wait_until("its lease holds", || async { server.application.service.holds_lease() }).await;
    let store = server.store.open().await;
    let mut beat = store.list_replicas().await.unwrap().remove(0);
    beat.number += 1_000_000;
    store.record_heartbeat(&beat, false).await.unwrap();
    wait_until("its lease is over", || async { !server.application.service.holds_lease() }).await;
    let token = server.task_token().await;
    assert!(server.is_active(&token).await, "the store is asked");
    assert!(!server.application.service.holds_lease());
}
