//! Wall clocks that are wrong: a revocation that was acknowledged holds whatever they say.

use errand::{
    app::{Cx, Revocation, Wanted, What},
    domain::{client::API_ADMIN, secret::Secret, time::Lifetime},
};
use serde_json::json;

use crate::server::{Server, claims};

on_both_stores!(a_revoker_that_is_slow, a_replica_that_was_ahead_for_a_moment);

impl Server {
    pub fn cx(&self) -> Cx {
        Cx { request_id: "clocks".parse().unwrap(), now: self.house.service.clock().now() }
    }
}

async fn a_revoker_that_is_slow(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    let bearer = Secret::new(server.api_token("ops", API_ADMIN).await);
    let admin = server
        .house
        .service
        .authorize(&bearer, &[API_ADMIN], "POST /v1/admin/revocations", &server.cx())
        .await
        .unwrap();
    let an_hour_ago = Cx { now: server.cx().now.before(Lifetime::hours(1)), ..server.cx() };
    for target in [
        Wanted::Agent("planner".parse().unwrap()),
        Wanted::Resource("files".parse().unwrap()),
        Wanted::Task(claims(&token)["txn"].as_str().unwrap().parse().unwrap()),
    ] {
        let reason = "the clock is slow".parse().unwrap();
        let revocation = Revocation { target, what: What::Revoke, reason, idempotency_key: None };
        server.house.service.revoke(&admin, revocation, &an_hour_ago).await.unwrap();
        // Nobody passes it over as long gone: neither who follows the log nor who starts now.
        let newcomer = server.replica().await;
        for one in [&server, &replica, &newcomer] {
            assert_eq!(one.introspect(&token).await, json!({"active": false}));
        }
    }
}

async fn a_replica_that_was_ahead_for_a_moment(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    server.revoke(json!({"kind": "token", "id": claims(&token)["jti"], "reason": "it leaked"})).await;
    let tomorrow = Cx { now: server.cx().now.after(Lifetime::hours(20)), ..server.cx() };
    replica.house.service.ready(&tomorrow).await.unwrap();
    replica.house.service.sweep(&tomorrow).await.unwrap();
    assert_eq!(replica.introspect(&token).await, json!({"active": false}));
}
