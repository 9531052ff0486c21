//! A complete server in the test's process, with a store of its own, a free port and a trusted
//! identity provider. Tests use it over HTTP.
//!
//! Agents: `planner` (`private_key_jwt`; may delegate to `reader`), `reader` (secret; may delegate
//! to `writer`), `writer` (secret), `stranger` (secret; unknown at the provider). Resources:
//! `files` (`read_file`, `list_files`: files:read; `write_file`: files:write; `delete_file`:
//! files:delete), `notes` (`read_notes`: notes:read). Admins: `ops` (operator), `audit` (auditor).

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use errand::{
    adapters::store::Database,
    app::ApplyOptions,
    bootstrap::{Application, BackgroundTasks, MigrationPolicy},
    config::Config,
    domain::{
        configuration::FileOrder,
        settings::{AdmissionLimits, RateLimit},
    },
    http::{AppState, HttpSettings, Listener, router, serve},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{idp::Key, support::TestStore};

pub const IDP: &str = "https://login.example.com";
pub const FILES: &str = "https://files.example.com/mcp";
pub const NOTES: &str = "https://notes.example.com/mcp";
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub const TXN_TOKEN: &str = "urn:ietf:params:oauth:token-type:txn_token";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Returns the secret of a test client: 256 bits, and publicly known.
pub fn secret(client: &str) -> String {
    crate::idp::b64(format!("{client:-<32}"))
}

/// A form to send.
pub type Form = Vec<(String, String)>;

/// Creates a form from pairs.
pub fn form(pairs: &[(&str, &str)]) -> Form {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns the form with changed parameters. An empty value removes a parameter, and a new name is
/// appended.
pub fn form_with_changes(form: &Form, changes: &[(&str, &str)]) -> Form {
    let mut form = form.clone();
    for (name, value) in changes {
        let at = form.iter().position(|(other, _)| other == name);
        match (at, value.is_empty()) {
            (Some(at), true) => drop(form.remove(at)),
            (Some(at), false) => (*value).clone_into(&mut form[at].1),
            (None, _) => form.push(((*name).to_owned(), (*value).to_owned())),
        }
    }
    form
}

/// Allows as many requests as a fast machine sends. A test of a limit sets its own.
fn relax_limits(config: &mut Config) {
    let (limits, defaults) = (&mut config.admission, AdmissionLimits::default());
    for (limit, default) in [(&mut limits.exchange, defaults.exchange), (&mut limits.admin, defaults.admin)] {
        if *limit == default {
            *limit = RateLimit::new(10_000, 10_000, 64);
        }
    }
}

/// The columns that the tag of a task covers.
#[derive(serde::Serialize, sqlx::FromRow)]
struct StoredTask {
    id: String,
    requester_issuer: String,
    requester_subject: String,
    root_agent: String,
    purpose: String,
    authority: String,
    state: String,
    created: i64,
    deadline: i64,
    version: i64,
    last_transition: Option<String>,
    grant_id: Option<String>,
    rev: i64,
}

const TASKS: &str =
    "SELECT CAST(id AS text) AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state,
    created, deadline, version, last_transition, CAST(grant_id AS text) AS grant_id, rev FROM tasks";

/// One server: one process, as far as its store can tell.
pub struct Server {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Its URL: the issuer, or another port for another replica.
    pub url: String,
    pub address: SocketAddr,
    pub application: Application,
    pub config: Arc<Config>,
    pub idp: Key,
    pub planner: Key,
    pub http: Client,
    pub store: Arc<TestStore>,
    pub folder: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    /// Follows the log until it is dropped.
    pub background_tasks: BackgroundTasks,
}

impl Server {
    /// Starts a server on this store.
    pub async fn start(store: TestStore) -> Self {
        Self::start_with(store, "").await
    }

    /// Starts a server with more TOML after the tables of `server.toml` (new tables only).
    pub async fn start_with(store: TestStore, more: &str) -> Self {
        Self::start_edited(store, |text| format!("{text}\n{more}")).await
    }

    /// Starts a server with an edited configuration file.
    pub async fn start_edited(store: TestStore, edit: impl FnOnce(String) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let (idp, planner) = (Key::new("idp-1"), Key::new("planner-1"));
        let file = write_config(&folder, address, store.url(), &idp, &planner, edit);
        let mut config = Config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        relax_limits(&mut config);
        Self::start_server(address, Arc::new(config), idp, planner, Arc::new(store), Arc::new(folder)).await
    }

    /// Changes the revocation log as a program with the keys of this server could have written it.
    pub async fn rewrite_log(&self, sql: &str) {
        self.store.tamper(sql).await;
        self.store.reseal_log(&*self.application.store_sealer).await;
    }

    /// Changes tasks as a program with the keys of this server could have written them.
    pub async fn rewrite_tasks(&self, sql: &str) {
        self.store.tamper(sql).await;
        let tasks: Vec<StoredTask> = if self.store.url().starts_with("sqlite") {
            let mut connection = SqliteConnection::connect(self.store.url()).await.unwrap();
            sqlx::query_as(TASKS).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(self.store.url()).await.unwrap();
            sqlx::query_as(TASKS).fetch_all(&mut connection).await.unwrap()
        };
        for task in tasks {
            let row = format!("[\"tasks\",{}]", serde_json::to_string(&task).unwrap());
            let tag = self.application.store_sealer.tag_row(&row).unwrap();
            self.store.tamper(&format!("UPDATE tasks SET tag = '{tag}' WHERE id = '{}'", task.id)).await;
        }
    }

    /// Opens the store with the keys of this server.
    pub async fn open_store(&self) -> Arc<dyn Database> {
        self.store.open_with(Arc::clone(&self.application.store_sealer)).await
    }

    /// Starts another replica: the same configuration and store, another port.
    pub async fn replica(&self) -> Self {
        self.replica_with(|_| {}).await
    }

    /// Starts another replica whose configuration is changed after loading.
    pub async fn replica_with(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::load(&self.config_file(), &|_| None).unwrap();
        relax_limits(&mut config);
        change(&mut config);
        let (idp, planner) = (self.idp.clone(), self.planner.clone());
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_server(any_port, Arc::new(config), idp, planner, Arc::clone(&self.store), Arc::clone(&self.folder))
            .await
    }

    /// Starts another replica with an edited file, whatever the file undoes or ends.
    pub async fn restarted_anyway(&self, edit: impl FnOnce(String) -> String) -> Self {
        let text = std::fs::read_to_string(self.config_file()).unwrap();
        std::fs::write(self.config_file(), edit(text)).unwrap();
        let config = Config::load(&self.config_file(), &|_| None).unwrap();
        let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
        let options = ApplyOptions {
            order: FileOrder::AcceptOlder,
            max_ended_tasks: u64::MAX,
            ..ApplyOptions::for_replica("in a test")
        };
        application.apply_file(&config, &options).await.unwrap();
        application.service.shutdown().await;
        self.replica().await
    }

    async fn start_server(
        address: SocketAddr,
        config: Arc<Config>,
        idp: Key,
        planner: Key,
        store: Arc<TestStore>,
        folder: Arc<TempDir>,
    ) -> Self {
        let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
        application.initialize(&config).await.unwrap();
        Self::serve_application(application, address, config, idp, planner, store, folder).await
    }

    /// Starts another replica from an application that was built and initialized.
    pub async fn replica_of(&self, application: Application) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (idp, planner) = (self.idp.clone(), self.planner.clone());
        let (store, folder) = (Arc::clone(&self.store), Arc::clone(&self.folder));
        Self::serve_application(application, any_port, Arc::clone(&self.config), idp, planner, store, folder).await
    }

    async fn serve_application(
        application: Application,
        address: SocketAddr,
        config: Arc<Config>,
        idp: Key,
        planner: Key,
        store: Arc<TestStore>,
        folder: Arc<TempDir>,
    ) -> Self {
        let background_tasks = application.spawn_replication();
        let (stop, stopped) = oneshot::channel();
        let app = router(AppState::new(application.service.clone()), HttpSettings::default());
        let listener = Listener::bind(address, None).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, app, async {
            let _ = stopped.await;
        }));
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        // The server ends a connection whose first request does not begin in time. The client also
        // pools connections that it opened for a request which then took another one.
        let http = http.pool_idle_timeout(Duration::from_secs(2)).build().unwrap();
        let (issuer, url) = (config.issuer.to_string(), format!("http://{address}"));
        let (stop, task) = (Some(stop), Some(task));
        Self {
            issuer,
            url,
            address,
            application,
            config,
            idp,
            planner,
            http,
            store,
            folder,
            stop,
            task,
            background_tasks,
        }
    }

    /// Returns the path of the configuration file. The files that it names are in the same folder.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("errand.toml")
    }

    /// Signals the server to stop.
    pub fn signal_stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.application.service.end_streams();
    }

    /// Stops the server and waits until everything is durable.
    pub async fn stop(mut self) -> Arc<TestStore> {
        self.signal_stop();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
        self.application.service.shutdown().await;
        self.store
    }

    /// Returns the current time in seconds since 1970.
    pub fn now() -> i64 {
        time::OffsetDateTime::now_utc().unix_timestamp()
    }

    /// Returns the claims of a valid user token of alice, signed in at the planner's client.
    pub fn user_claims(&self) -> Value {
        let now = Self::now();
        json!({
            "iss": IDP, "aud": self.issuer, "sub": "alice", "client_id": "planner-client", "iat": now, "exp": now + 600,
            "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60, "acr": "loa2", "amr": ["hwk"],
        })
    }

    /// Returns a valid user token with changed claims (null removes one).
    pub fn user_token(&self, changes: Value) -> String {
        self.idp.sign("at+jwt", &with_changes(self.user_claims(), changes))
    }

    /// Returns the claims of a valid assertion of the planner.
    pub fn assertion_claims(&self) -> Value {
        let now = Self::now();
        json!({
            "iss": "planner", "sub": "planner", "aud": self.issuer, "iat": now, "exp": now + 60, "jti": uuid::Uuid::new_v4(),
        })
    }

    /// Returns a valid assertion of the planner with changed claims (null removes one).
    pub fn assertion(&self, changes: Value) -> String {
        self.planner.sign("client-authentication+jwt", &with_changes(self.assertion_claims(), changes))
    }

    /// Builds a POST request to a path.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Builds a request to a path.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).timeout(Duration::from_mins(1))
    }

    /// Posts a form as a client with a secret.
    pub async fn post_as(&self, client: &str, path: &str, form: &Form) -> (StatusCode, Value) {
        read_response(self.post(path).basic_auth(client, Some(secret(client))).form(form).send().await.unwrap()).await
    }

    /// Posts a form with an assertion.
    pub async fn post_with_assertion(&self, path: &str, form: &Form, assertion: &str) -> (StatusCode, Value) {
        read_response(self.post(path).form(&with_assertion(form, assertion)).send().await.unwrap()).await
    }

    /// Posts a form as the planner, with a fresh assertion.
    pub async fn post_as_planner(&self, path: &str, form: &Form) -> (StatusCode, Value) {
        self.post_with_assertion(path, form, &self.assertion(json!({}))).await
    }

    /// Posts a form to the token endpoint as any agent.
    pub async fn request_token_as(&self, agent: &str, form: &Form) -> (StatusCode, Value) {
        match agent {
            "planner" => self.post_as_planner("/oauth2/token", form).await,
            _ => self.post_as(agent, "/oauth2/token", form).await,
        }
    }

    /// Requests a token with a form that must succeed.
    pub async fn issue_token(&self, agent: &str, form: &Form) -> String {
        let (status, body) = self.request_token_as(agent, form).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// Returns the form of a valid exchange of a user token for reading from `files`.
    #[expect(clippy::unused_self, reason = "the form is for this server")]
    pub fn exchange_form(&self, subject_token: &str) -> Form {
        form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject_token),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", FILES),
            ("scope", "files:read"),
            ("purpose", "the quarterly report"),
        ])
    }

    /// Returns the form of a delegation to another agent.
    pub fn delegation_form(&self, subject_token: &str, to: &str) -> Form {
        let form = self.exchange_form(subject_token);
        form_with_changes(&form, &[("resource", ""), ("purpose", ""), ("requested_actor", to)])
    }

    /// Returns the form of an exchange for a transaction token.
    pub fn txn_form(&self, subject_token: &str, subject_token_type: &str) -> Form {
        let changes = [
            ("resource", ""),
            ("subject_token_type", subject_token_type),
            ("requested_token_type", TXN_TOKEN),
            ("audience", "example.com"),
        ];
        form_with_changes(&self.exchange_form(subject_token), &changes)
    }

    /// Issues a task token of the planner for reading from `files` on behalf of alice.
    pub async fn task_token(&self) -> String {
        self.issue_token("planner", &self.exchange_form(&self.user_token(json!({})))).await
    }

    /// Introspects a token as `files`.
    pub async fn introspect(&self, token: &str) -> Value {
        let (status, body) = self.post_as("files", "/oauth2/introspect", &form(&[("token", token)])).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Returns whether a token is active for the resource `files`.
    pub async fn is_active(&self, token: &str) -> bool {
        let response = self.introspect(token).await;
        let active = response["active"].as_bool().unwrap();
        assert!(active || response == json!({"active": false}), "{response}");
        active
    }

    /// Issues an API token of a client with these scopes.
    pub async fn api_token(&self, client: &str, scope: &str) -> String {
        self.issue_token(client, &form(&[("grant_type", "client_credentials"), ("scope", scope)])).await
    }

    /// Calls the admin API as `ops`.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let token = self.api_token("ops", "errand:admin errand:audit").await;
        self.admin_with(&token, method, path, body).await
    }

    /// Calls the admin API with this API token.
    pub async fn admin_with(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let request = self.request(method, &format!("/v1/admin{path}")).bearer_auth(token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        read_response(request.send().await.unwrap()).await
    }

    /// Revokes something as `ops` and returns the response.
    pub async fn revoke(&self, what: Value) -> Value {
        let (status, body) = self.admin(Method::POST, "/revocations", Some(what)).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// Returns the form with a client assertion.
pub fn with_assertion(form: &Form, assertion: &str) -> Form {
    form_with_changes(form, &[("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)])
}

/// Reads status and body. A body that is not JSON becomes a string.
pub async fn read_response(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Returns the response without the measurements of propagation, which differ each time.
pub fn without_propagation(mut response: Value) -> Value {
    if let Some(members) = response.as_object_mut() {
        assert!(members.get("replicas_pending").is_none_or(|pending| *pending == 0), "{members:?}");
        members.retain(|name, _| !name.starts_with("replicas_") && name != "propagated_ms");
    }
    response
}

/// Decodes the claims of a token without verification.
pub fn decode_claims(token: &str) -> Value {
    decode_part(token, 1)
}

/// Decodes the header of a token without verification.
pub fn decode_header(token: &str) -> Value {
    decode_part(token, 0)
}

fn decode_part(token: &str, n: usize) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(n).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Returns the claims with changes (null removes one).
#[expect(clippy::needless_pass_by_value, reason = "changes are written where they are passed")]
pub fn with_changes(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => {
                claims.as_object_mut().unwrap().remove(name);
            }
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn write_config(
    folder: &TempDir,
    address: SocketAddr,
    store: &str,
    idp: &Key,
    planner: &Key,
    edit: impl FnOnce(String) -> String,
) -> PathBuf {
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    write("kek", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    write("store-url", store);
    write("idp.json", &idp.jwks().to_string());
    write("planner.json", &planner.jwks().to_string());
    write("odd.secret", "a+b/c+d0123456789+abcdefghijklmnopqrstuvwxyzABCD==");
    for client in ["reader", "writer", "stranger", "assistant", "files", "notes", "ops", "audit"] {
        write(&format!("{client}.secret"), &secret(client));
    }
    let text = edit(include_str!("server.toml").to_owned()).replace("ADDRESS", &address.to_string());
    write("errand.toml", &text)
}

/// Waits until a condition holds, with a limit.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..4800 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("timed out: {what}");
}
