//! The stored registry is sealed: a row that was changed outside the program is an outage.

use errand::bootstrap::{Application, MigrationPolicy};
use reqwest::Method;
use serde_json::json;

use crate::server::Server;

on_both_stores!(changed_registry_never_becomes_a_yes, emptied_registry_is_not_new);

async fn changed_registry_never_becomes_a_yes(server: Server) {
    let block = json!({"verb": "block", "kind": "agent", "id": "reader", "reason": "lost laptop"});
    server.revoke(block).await;
    let evil = "INSERT INTO objects (kind, id, body, owner, registered_seq)
        SELECT kind, 'evil', replace(body, '\"ops\"', '\"evil\"'), owner, registered_seq FROM objects WHERE kind = 'admin' AND id = 'ops'";
    for (name, change, undo) in [
        (
            "a removed block",
            "CREATE TABLE saved AS SELECT * FROM blocks; DELETE FROM blocks",
            "INSERT INTO blocks SELECT * FROM saved",
        ),
        ("an added operator", evil, "DELETE FROM objects WHERE id = 'evil'"),
        (
            "a raised ceiling",
            "UPDATE objects SET body = replace(body, 'files:read', 'files:all') WHERE kind = 'agent'",
            "UPDATE objects SET body = replace(body, 'files:all', 'files:read') WHERE kind = 'agent'",
        ),
    ] {
        for statement in change.split("; ") {
            server.store.tamper(statement).await;
        }
        let application = Application::build(&server.config, MigrationPolicy::Always).await.unwrap();
        let refused = application.initialize(&server.config).await.unwrap_err().to_string();
        assert!(refused.contains("was changed, added or removed outside this program"), "{name}: {refused}");
        application.service.shutdown().await;
        // A running server neither reads the row nor changes the registry, so that it vouches for
        // nothing that it did not write.
        let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
        let (status, body) = server.admin(Method::PUT, "/agents/guest", Some(guest)).await;
        assert_eq!(status, 503, "{name}: {body}");
        assert!(server.store.tamper(undo).await > 0, "{name}");
    }
    let replica = server.replica().await;
    replica.task_token().await;
    replica.stop().await;
    server.stop().await;
}

/// Without this, a start would apply the file to a new registry, without the blocks.
async fn emptied_registry_is_not_new(server: Server) {
    let (store, config) = (std::sync::Arc::clone(&server.store), std::sync::Arc::clone(&server.config));
    server.stop().await;
    for table in ["objects", "secrets", "tools", "blocks"] {
        store.tamper(&format!("DELETE FROM {table}")).await;
    }
    store.tamper("UPDATE versions SET version = 0, seal = NULL WHERE name = 'registry'").await;
    let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
    let refused = application.initialize(&config).await.unwrap_err().to_string();
    assert!(refused.contains("was changed, added or removed outside this program"), "{refused}");
    application.service.shutdown().await;
}
