//! Writes without a log entry: they don't wait for other replicas, and many of them don't fill the
//! write queue.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    grants::consent::{details, expiry_in},
    replication::replicas::{replica_counts, token_target},
    server::{IDP, Server, form_with_changes},
};

on_both_stores!(unlogged_writes_do_not_wait_for_replicas, expiry_sweep_does_not_fill_the_queue);

impl Server {
    /// Moves the deadline of every task into the past.
    async fn pass_all_deadlines(&self) {
        self.rewrite_tasks("UPDATE tasks SET deadline = 1").await;
    }

    async fn count_tasks_in_state(&self, state: &str) -> usize {
        let (status, page) = self.admin(Method::GET, &format!("/tasks?limit=1000&state={state}"), None).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().len()
    }
}

/// While a silent replica may answer from memory, grants are created and tasks expire without
/// waiting for it. A change that ends a token waits.
async fn unlogged_writes_do_not_wait_for_replicas(server: Server) {
    server.wait_until_leased().await;
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let token = server.task_token().await;
    let mut silent = server.replica_with_long_lease().await;
    assert!(silent.is_active(&token).await);
    silent.isolate().await;
    // The log has an entry that the silent replica has not applied.
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&token), Some("wait=0")).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)[2]), (202, 1), "{answer}");
    assert!(silent.is_active(&token).await);
    let holds = || assert!(silent.application.service.holds_lease(), "the request waited for the lease");
    let grant_body = |more: Value| {
        let mut body = json!({"issuer": IDP, "subject": "alice", "agent": "planner",
            "authorization_details": details(&["read_file"])});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    let (status, grant) =
        server.admin_with(&api, Method::POST, "/grants", grant_body(json!({"until": expiry_in(600)}))).await;
    assert_eq!(status, 201, "{grant}");
    holds();
    let (status, break_glass) = server
        .admin_with(&api, Method::POST, "/break-glass", grant_body(json!({"reason": "the server is on fire"})))
        .await;
    assert_eq!(status, 201, "{break_glass}");
    holds();
    server.pass_all_deadlines().await;
    server.application.service.collect_garbage(&server.application.system_context().unwrap()).await.unwrap();
    holds();
    assert_eq!((server.count_tasks_in_state("active").await, server.count_tasks_in_state("expired").await), (0, 1));
    let path = format!("/grants/{}", grant["id"].as_str().unwrap());
    assert_eq!(server.admin_with(&api, Method::DELETE, &path, None).await.0, 204);
    assert!(!silent.application.service.holds_lease());
    silent.stop().await;
    server.stop().await;
}

/// More tasks expire than the write queue has places, and none of them is rejected.
async fn expiry_sweep_does_not_fill_the_queue(server: Server) {
    const TASKS: usize = 24;
    let form = server.exchange_form(&server.user_token(json!({})));
    for n in 0..TASKS {
        server.issue_token("planner", &form_with_changes(&form, &[("purpose", &format!("errand {n}"))])).await;
    }
    server.pass_all_deadlines().await;
    let small = server.replica_with(|config| config.requests.write_queue = 4).await;
    small.application.service.collect_garbage(&small.application.system_context().unwrap()).await.unwrap();
    assert_eq!((server.count_tasks_in_state("active").await, server.count_tasks_in_state("expired").await), (0, TASKS));
    small.stop().await;
    server.stop().await;
}
