//! Secrecy: no token, assertion or secret appears in the log at its most verbose level, in the
//! audit trail, or in the store.

use std::{
    io::Write,
    sync::{Arc, LazyLock, Mutex},
};

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Row};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    server::{ACCESS_TOKEN, JWT, Server, form, form_with_changes, read_response, secret, with_assertion},
    support::TestStore,
    transport::injection::{bad_payloads, corrupted_tokens},
};

/// The log of this process at its most verbose level. Other tests of the process log here too,
/// which only makes the search longer.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

static LOG: LazyLock<LogBuffer> = LazyLock::new(|| {
    let log = LogBuffer::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
});

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogBuffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_leaks_on_sqlite() {
    assert_no_secret_is_stored(TestStore::sqlite().await).await;
}

#[tokio::test]
async fn no_secret_leaks_on_postgres() {
    assert_no_secret_is_stored(TestStore::postgres().await).await;
}

async fn assert_no_secret_is_stored(store: TestStore) {
    let log = LOG.clone();
    let server = Server::start(store).await;
    let secrets = exercise_api(&server).await;
    let store = server.stop().await;
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("request completed") && log.contains("request refused"), "the log is that of the server");
    let stored = dump_store(&store).await;
    assert!(stored.contains("token.issue") && stored.contains("planner"), "the dump has the contents of the store");
    for (name, secret) in secrets {
        // The whole token, and each part except the header, which tokens have in common.
        let parts = secret.split('.').filter(|part| part.len() >= 40).map(str::to_owned).collect::<Vec<_>>();
        let headers = parts.first().cloned().filter(|_| parts.len() == 3);
        for part in parts.into_iter().chain([secret]).filter(|part| Some(part) != headers.as_ref()) {
            let prefix = part.chars().take(24).collect::<String>();
            assert!(!log.contains(&part), "{name} `{prefix}…` is in the log");
            assert!(!stored.contains(&part), "{name} `{prefix}…` is in the store");
        }
    }
}

/// Uses every kind of secret in every kind of request, valid and invalid, and returns the secrets.
async fn exercise_api(server: &Server) -> Vec<(&'static str, String)> {
    let mut secrets = vec![
        ("key-encryption key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned()),
        (
            "the planner's key",
            serde_json::from_str::<serde_json::Value>(&server.planner.private()).unwrap()["d"].to_string(),
        ),
    ];
    for client in ["reader", "writer", "stranger", "files", "notes", "ops", "audit"] {
        use base64::{Engine, engine::general_purpose::STANDARD};
        secrets.push(("client secret", secret(client)));
        secrets.push(("Basic credentials", STANDARD.encode(format!("{client}:{}", secret(client)))));
    }
    let mut send = async |name: &'static str, path: &str, form: crate::server::Form, as_client: &str| {
        let request = server.post(path);
        let request = match as_client {
            "planner" => {
                let assertion = server.assertion(json!({}));
                secrets.push(("client assertion", assertion.clone()));
                request.form(&with_assertion(&form, &assertion))
            }
            client => request.basic_auth(client, Some(secret(client))).form(&form),
        };
        for (parameter, value) in &form {
            if parameter.ends_with("token") {
                secrets.push((name, value.clone()));
            }
        }
        let (_, body) = read_response(request.send().await.unwrap()).await;
        let issued = body["access_token"].as_str().unwrap_or_default().to_owned();
        if !issued.is_empty() {
            secrets.push(("issued", issued.clone()));
        }
        issued
    };
    let user = server.user_token(json!({}));
    let access = send("user token", "/oauth2/token", server.exchange_form(&user), "planner").await;
    let actor = [("actor_token", &server.assertion(json!({}))[..]), ("actor_token_type", JWT)];
    send("with an actor", "/oauth2/token", form_with_changes(&server.exchange_form(&user), &actor), "planner").await;
    let hand_over = send("access token", "/oauth2/token", server.delegation_form(&access, "reader"), "planner").await;
    let part = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]);
    send("hand-over", "/oauth2/token", part, "reader").await;
    let txn = form_with_changes(&server.txn_form(&access, ACCESS_TOKEN), &[("purpose", "")]);
    send("access token", "/oauth2/token", txn, "files").await;
    send("nothing", "/oauth2/token", form(&[("grant_type", "client_credentials")]), "reader").await;
    for (name, token) in
        corrupted_tokens(&user).into_iter().chain(bad_payloads(&server.idp, "at+jwt", &server.user_claims()))
    {
        if token.len() > 60 && token.len() < 4000 {
            send(name, "/oauth2/token", server.exchange_form(&token), "planner").await;
        }
    }
    for (client, token) in [("files", &access), ("notes", &access), ("files", &user), ("reader", &access)] {
        send("introspected", "/oauth2/introspect", form(&[("token", token)]), client).await;
        send("revoked", "/oauth2/revoke", form(&[("token", token)]), client).await;
    }
    let wrong = "a-wrong-secret-from-an-attempted-authentication";
    server.post("/oauth2/token").basic_auth("reader", Some(wrong)).form(&form(&[])).send().await.unwrap();
    secrets.push(("wrong secret", wrong.to_owned()));
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    server.admin_with(&api, Method::PUT, "/agents/guest", Some(guest)).await;
    let (_, made) = server.admin_with(&api, Method::POST, "/clients/guest/secret", None).await;
    secrets.push(("new secret", made["client_secret"].as_str().unwrap().to_owned()));
    server.admin_with(&api, Method::POST, "/keys/rotate", None).await;
    server.admin_with(&access, Method::GET, "/keys", None).await;
    server.admin_with(&format!("{api}x"), Method::GET, "/keys", None).await;
    secrets.push(("API token", api));
    secrets.retain(|(_, secret)| secret.len() >= 20);
    secrets
}

/// Returns the contents of the store as text.
async fn dump_store(store: &TestStore) -> String {
    let mut text = String::new();
    if let Some(path) = store.url().strip_prefix("sqlite://") {
        for file in [path.to_owned(), format!("{path}-wal")] {
            text += &String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default());
        }
        return text;
    }
    let mut connection = sqlx::PgConnection::connect(store.url()).await.unwrap();
    let tables = sqlx::query("SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'");
    let tables = tables.fetch_all(&mut connection).await.unwrap();
    assert!(tables.len() > 10);
    for table in tables {
        let name = table.get::<String, _>(0);
        let rows = sqlx::query(AssertSqlSafe(format!("SELECT t::text FROM \"{name}\" t")));
        for row in rows.fetch_all(&mut connection).await.unwrap() {
            text += &row.get::<String, _>(0);
            text.push('\n');
        }
    }
    text
}
