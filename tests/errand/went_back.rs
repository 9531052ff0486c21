//! A store that comes back in an older state: a failover to a server that had not got the last commits.

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    server::{Server, claims, read, until},
    support::TestStore,
};

on_both_stores!(
    a_log_that_lost_its_end,
    a_log_that_has_grown_past_what_it_lost,
    a_log_that_is_as_long_as_before,
    a_renewal_that_was_passed_over
);

fn of_task(token: &str) -> serde_json::Value {
    json!({"kind": "task", "id": claims(token)["txn"], "reason": "in a test"})
}

/// Another replica, and a revocation that both have applied. Returns its place.
async fn with_one_revocation(server: &Server, token: &str) -> (Server, u64) {
    let other = server.replica().await;
    let seq = server.revoke(of_task(token)).await["seq"].as_u64().unwrap();
    for at in [server, &other] {
        until("its lease holds", || async { at.house.service.holds_lease() }).await;
        until("it has it", || async { at.house.service.log_applied().number() >= seq }).await;
        assert!(!at.is_live(token).await);
    }
    (other, seq)
}

async fn a_log_that_lost_its_end(server: Server) {
    let (one, two) = (server.task_token().await, server.task_token().await);
    let (other, seq) = with_one_revocation(&server, &one).await;
    // What is told of it, and of the tokens in lists, is kept.
    let api = server.api_token("ops", "errand:admin").await;
    let told = async |at: &Server| {
        let request = at.request(reqwest::Method::GET, &format!("/revocations?after={}", seq - 1)).bearer_auth(&api);
        read(request.send().await.unwrap()).await.1["entries"][0]["key"].clone()
    };
    for at in [&server, &other] {
        assert_eq!(told(at).await, claims(&one)["txn"]);
        until("the lists say so", || async { at.listed(&one).await == 1 && at.listed(&two).await == 0 }).await;
    }
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    server.store.tamper(&format!("UPDATE log_head SET seq = {}", seq - 1)).await;
    // The place that was lost is given again.
    let answer = server.revoke(of_task(&two)).await;
    assert_eq!(answer["seq"], seq, "{answer}");
    for at in [&server, &other] {
        // In a store that really went back, the acknowledgement of what was lost is lost as well, and they are waited for.
        until("it is known", || async { !at.is_live(&two).await }).await;
        assert!(at.is_live(&one).await, "what took it back was lost");
        until("its lease holds again", || async { at.house.service.holds_lease() }).await;
        assert!(!at.is_live(&two).await && at.is_live(&one).await);
        assert_eq!(told(at).await, claims(&two)["txn"], "its place has another entry now");
        until("the lists say so too", || async { at.listed(&two).await == 1 && at.listed(&one).await == 0 }).await;
        assert_eq!(at.request(reqwest::Method::GET, "/readyz").send().await.unwrap().status(), StatusCode::OK);
    }
}

async fn a_log_that_has_grown_past_what_it_lost(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await, server.task_token().await];
    let (other, seq) = with_one_revocation(&server, &tokens[0]).await;
    // At its place there is another one now.
    let there = claims(&tokens[1])["txn"].as_str().unwrap().to_owned();
    server.store.tamper(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    let answer = server.revoke(of_task(&tokens[2])).await;
    assert_eq!(answer["seq"], seq + 1, "{answer}");
    for at in [&server, &other] {
        assert!(!at.is_live(&tokens[2]).await, "{answer}");
        assert!(!at.is_live(&tokens[1]).await, "it is in the log, before one that was acknowledged");
        assert!(at.is_live(&tokens[0]).await);
    }
}

/// Who has no lease asks the store how far the log goes, and that is as far as before.
async fn a_log_that_is_as_long_as_before(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await];
    let (mut other, seq) = with_one_revocation(&server, &tokens[0]).await;
    other.silence().await;
    until("its lease is over", || async { !other.house.service.holds_lease() }).await;
    let there = claims(&tokens[1])["txn"].as_str().unwrap().to_owned();
    server.store.tamper(&format!("UPDATE revocation_log SET key = '{there}' WHERE seq = {seq}")).await;
    assert!(!other.is_live(&tokens[1]).await, "at the place that it has applied there is another entry");
    assert!(other.is_live(&tokens[0]).await);
}

/// A renewal arrives when the log has gone back since it was sent: it acknowledges what was lost, and who commits something
/// else at that place will not wait. So it gives no lease, before there is another renewal that says less.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_acknowledges_what_was_lost() {
    let mut server = Server::start(TestStore::postgres().await).await;
    let token = server.task_token().await;
    let other = server.with_long_lease().await;
    let seq = server.revoke(of_task(&token)).await["seq"].as_u64().unwrap();
    until("it has it", || async { other.house.service.log_applied().number() >= seq }).await;
    server.leased().await;
    server.silence().await;
    let mut held = locked(server.store.url()).await;
    until("a renewal waits", || async { waiting(&server, RENEWAL).await == 1 }).await;
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    server.store.tamper(&format!("UPDATE log_head SET seq = {}", seq - 1)).await;
    // One after the other: who waits gets the lock, and the next who wants it waits again. (To be prepared, a statement
    // wants it as well.)
    while other.house.service.log_applied().number() == seq {
        let url = server.store.url().to_owned();
        let next = tokio::spawn(async move { locked(&url).await });
        until("somebody waits behind it", || async { waiting(&server, LOCK).await == 1 }).await;
        drop(held);
        held = next.await.unwrap();
        until("it wants to renew again", || async { waiting(&server, RENEWAL).await == 1 }).await;
    }
    assert_eq!(other.house.service.log_applied().number(), seq - 1, "it has seen that");
    assert!(!other.house.service.holds_lease(), "it has acknowledged a place that it knows nothing of");
    drop(held);
    other.leased().await;
}

/// Nobody renews as long as this lives.
async fn locked(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute("BEGIN; LOCK TABLE replicas IN EXCLUSIVE MODE").await.unwrap();
    connection
}

const LOCK: &str = "%LOCK TABLE replicas%";
const RENEWAL: &str = "%INSERT INTO replicas%";

/// How many statements like this one wait for a lock in this database.
async fn waiting(server: &Server, like: &str) -> i64 {
    let mut connection = PgConnection::connect(server.store.url()).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";
    sqlx::query_scalar(waiting).bind(like).fetch_one(&mut connection).await.unwrap()
}

/// Nobody sees its renewals, so nobody waits for it, and it must not answer from memory.
async fn a_renewal_that_was_passed_over(server: Server) {
    until("its lease holds", || async { server.house.service.holds_lease() }).await;
    let store = server.store.open().await;
    let mut beat = store.replicas().await.unwrap().remove(0);
    beat.number += 1_000_000;
    store.renew(&beat, false).await.unwrap();
    until("its lease is over", || async { !server.house.service.holds_lease() }).await;
    let token = server.task_token().await;
    assert!(server.is_live(&token).await, "the store is asked");
    assert!(!server.house.service.holds_lease());
}
