//! What has no entry in the log: nobody waits for it, and a sweep that does much of it stands in nobody's way.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    grants::consent::{details, expiry_in},
    replication::replicas::{replica_counts, token_target},
    server::{IDP, Server, form_with_changes},
};

on_both_stores!(unlogged_writes_do_not_wait_for_replicas, expiry_sweep_does_not_fill_the_queue);

impl Server {
    /// Makes the deadline of every task one that is long past.
    async fn advance_time(&self) {
        self.store.tamper("UPDATE tasks SET deadline = 1").await;
    }

    async fn count_tasks_in_state(&self, state: &str) -> usize {
        let (status, page) = self.admin(Method::GET, &format!("/tasks?limit=1000&state={state}"), None).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().len()
    }
}

/// While a replica answers from memory that nothing is heard of, grants are made and tasks end; what ends a token waits.
async fn unlogged_writes_do_not_wait_for_replicas(server: Server) {
    server.wait_until_leased().await;
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let token = server.task_token().await;
    let mut silent = server.replica_with_long_lease().await;
    assert!(silent.is_active(&token).await);
    silent.isolate().await;
    // Something is in the log that it does not know.
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&token), Some("wait=0")).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)[2]), (202, 1), "{answer}");
    assert!(silent.is_active(&token).await);
    let holds = || assert!(silent.application.service.holds_lease(), "its lease was waited for");
    let asked = |more: Value| {
        let mut asked = json!({"issuer": IDP, "subject": "alice", "agent": "planner",
            "authorization_details": details(&["read_file"])});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(asked)
    };
    let (status, grant) =
        server.admin_with(&api, Method::POST, "/grants", asked(json!({"until": expiry_in(600)}))).await;
    assert_eq!(status, 201, "{grant}");
    holds();
    let (status, glass) =
        server.admin_with(&api, Method::POST, "/break-glass", asked(json!({"reason": "the server is on fire"}))).await;
    assert_eq!(status, 201, "{glass}");
    holds();
    server.advance_time().await;
    server.application.service.collect_garbage(&server.application.system_context().unwrap()).await.unwrap();
    holds();
    assert_eq!((server.count_tasks_in_state("active").await, server.count_tasks_in_state("expired").await), (0, 1));
    let path = format!("/grants/{}", grant["id"].as_str().unwrap());
    assert_eq!(server.admin_with(&api, Method::DELETE, &path, None).await.0, 204);
    assert!(!silent.application.service.holds_lease());
    silent.stop().await;
    server.stop().await;
}

/// More tasks end than writes may wait, and none of them is shed.
async fn expiry_sweep_does_not_fill_the_queue(server: Server) {
    const TASKS: usize = 24;
    let form = server.exchange_form(&server.user_token(json!({})));
    for n in 0..TASKS {
        server.issue_token("planner", &form_with_changes(&form, &[("purpose", &format!("errand {n}"))])).await;
    }
    server.advance_time().await;
    let small = server.replica_with(|config| config.requests.queue = 4).await;
    small.application.service.collect_garbage(&small.application.system_context().unwrap()).await.unwrap();
    assert_eq!((server.count_tasks_in_state("active").await, server.count_tasks_in_state("expired").await), (0, TASKS));
    small.stop().await;
    server.stop().await;
}
