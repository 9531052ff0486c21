//! Rights that the user of the database lacks.

use crate::{cluster::PostgresServer, create_schema, error_text, open};

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_name_the_grant() {
    let Some(server) = PostgresServer::start("missing_rights_name_the_grant").await else { return };
    server.execute("CREATE ROLE migrator LOGIN; CREATE ROLE service LOGIN").await;
    let migrator = open(&server.url_as("migrator", "errand")).await;
    let text = error_text(&migrator.migrate().await.unwrap_err());
    let grant = "GRANT USAGE, CREATE ON SCHEMA public TO \"migrator\"";
    assert!(text.contains("permission denied for schema public") && text.contains(grant), "{text}");
    // The remedy helps.
    server.execute(grant).await;
    create_schema(&*migrator).await;
    migrator.ping().await.unwrap();

    let service = open(&server.url_as("service", "errand")).await;
    service.verify_server().await.unwrap();
    let text = error_text(&service.ping().await.unwrap_err());
    let script = "deploy/postgres/service-role.sql for the role \"service\"";
    assert!(text.contains("permission denied for table") && text.contains(script), "{text}");
    let script = include_str!("../../deploy/postgres/service-role.sql");
    server.execute(&script.replace(":\"service\"", "service")).await;
    service.ping().await.unwrap();
    service.read_log_head().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_database_and_user_are_named() {
    let Some(server) = PostgresServer::start("missing_database_and_user_are_named").await else { return };
    for (url, want) in [
        (server.url_as("errand", "nowhere"), "create the database, or correct its name in the store's URL"),
        (server.url_as("stranger", "errand"), "correct the user and the password in the store's URL"),
    ] {
        let store = open(&url).await;
        for outage in [store.verify_server().await.unwrap_err(), store.ping().await.unwrap_err()] {
            let text = error_text(&outage);
            assert!(text.contains(want) && !text.contains("max_connections"), "{text}");
        }
    }
}
