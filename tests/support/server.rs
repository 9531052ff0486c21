//! A whole Errand in this process, on a store of its own and a free port, spoken to over HTTP; with an identity provider
//! whose tokens it trusts.
//!
//! Agents: `planner` (`private_key_jwt`; may hand over to `reader`), `reader` (secret; may hand over to `writer`), `writer`
//! (secret), `stranger` (secret; nothing is known about it at the provider). Resources: `files`
//! (`read_file`, `list_files`: files:read; `write_file`: files:write; `delete_file`: files:delete), `notes` (`read_notes`:
//! notes:read). Admins: `ops` (operator), `audit` (auditor).

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use errand::{
    bootstrap::{Application, BackgroundTasks, MigrationPolicy},
    config::Config,
    http::{AppState, HttpSettings, Listener, router, serve},
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
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

/// The secret of a client here: 256 bits, and no secret at all.
pub fn secret(client: &str) -> String {
    crate::idp::b64(format!("{client:-<32}"))
}

/// A form, ready to be sent.
pub type Form = Vec<(String, String)>;

/// Makes a form of pairs.
pub fn form(pairs: &[(&str, &str)]) -> Form {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The same form with some parameters changed: an empty value takes one out, a new name is put at the end.
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

/// One Errand: one process, as far as its store can tell.
pub struct Server {
    /// `iss` of its tokens.
    pub issuer: String,
    /// Where it is reached: the issuer, or another port for another replica.
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
    server_task: Option<JoinHandle<()>>,
    /// Follows the log as long as it is there.
    pub background_tasks: BackgroundTasks,
}

impl Server {
    /// Starts one on this store.
    pub async fn start(store: TestStore) -> Self {
        Self::start_with(store, "").await
    }

    /// Starts one, with more TOML after the tables of the file below (new tables only).
    pub async fn start_with(store: TestStore, more: &str) -> Self {
        Self::start_edited(store, |text| format!("{text}\n{more}")).await
    }

    /// Starts one on a file that was edited.
    pub async fn start_edited(store: TestStore, edit: impl FnOnce(String) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let (idp, planner) = (Key::new("idp-1"), Key::new("planner-1"));
        let file = write_config(&folder, address, store.url(), &idp, &planner, edit);
        let config = Config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        Self::start_server(address, Arc::new(config), idp, planner, Arc::new(store), Arc::new(folder)).await
    }

    /// Another replica: the same configuration, the same store, another port.
    pub async fn replica(&self) -> Self {
        self.replica_with(|_| {}).await
    }

    /// Another replica, whose configuration is changed after it was read.
    pub async fn replica_with(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::load(&self.config_file(), &|_| None).unwrap();
        change(&mut config);
        let (idp, planner) = (self.idp.clone(), self.planner.clone());
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_server(here, Arc::new(config), idp, planner, Arc::clone(&self.store), Arc::clone(&self.folder))
            .await
    }

    async fn start_server(
        address: SocketAddr,
        config: Arc<Config>,
        idp: Key,
        planner: Key,
        store: Arc<TestStore>,
        folder: Arc<TempDir>,
    ) -> Self {
        let house = Application::build(&config, MigrationPolicy::Always).await.unwrap();
        house.initialize(&config).await.unwrap();
        let following = house.spawn_replication();
        let (stop, stopped) = oneshot::channel();
        let app = router(AppState::new(house.service.clone()), HttpSettings::default());
        let listener = Listener::bind(address, None).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app, async {
            let _ = stopped.await;
        }));
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        let (issuer, url) = (config.issuer.to_string(), format!("http://{address}"));
        let (stop, serving) = (Some(stop), Some(serving));
        Self {
            issuer,
            url,
            address,
            application: house,
            config,
            idp,
            planner,
            http,
            store,
            folder,
            stop,
            server_task: serving,
            background_tasks: following,
        }
    }

    /// The configuration file; what it names lies beside it.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("errand.toml")
    }

    /// Tells it to stop.
    pub fn signal_stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.application.service.end_streams();
    }

    /// Stops it, and waits until everything is durable.
    pub async fn stop(mut self) -> Arc<TestStore> {
        self.signal_stop();
        if let Some(serving) = self.server_task.take() {
            serving.await.unwrap();
        }
        self.application.service.shutdown().await;
        self.store
    }

    /// Seconds since 1970, now.
    pub fn now() -> i64 {
        time::OffsetDateTime::now_utc().unix_timestamp()
    }

    /// The claims of a good user token of alice, signed in at the planner's client.
    pub fn user_claims(&self) -> Value {
        let now = Self::now();
        json!({
            "iss": IDP, "aud": self.issuer, "sub": "alice", "client_id": "planner-client", "iat": now, "exp": now + 600,
            "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60, "acr": "loa2", "amr": ["hwk"],
        })
    }

    /// A good user token, with these claims changed (null: left out).
    pub fn user_token(&self, changes: Value) -> String {
        self.idp.sign("at+jwt", &with_changes(self.user_claims(), changes))
    }

    /// The claims of a good assertion of the planner.
    pub fn assertion_claims(&self) -> Value {
        let now = Self::now();
        json!({
            "iss": "planner", "sub": "planner", "aud": self.issuer, "iat": now, "exp": now + 60, "jti": uuid::Uuid::new_v4(),
        })
    }

    /// A good assertion of the planner, with these claims changed (null: left out).
    pub fn assertion(&self, changes: Value) -> String {
        self.planner.sign("client-authentication+jwt", &with_changes(self.assertion_claims(), changes))
    }

    /// A request to a path.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// A request to a path.
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

    /// A token that an agent gets by a form that is good.
    pub async fn issue_token(&self, agent: &str, form: &Form) -> String {
        let (status, body) = self.request_token_as(agent, form).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// The form of a good exchange of a user token, for `files`, to read.
    #[expect(clippy::unused_self, reason = "it is a form for this server")]
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

    /// The form of a hand-over to another agent.
    pub fn delegation_form(&self, subject_token: &str, to: &str) -> Form {
        let form = self.exchange_form(subject_token);
        form_with_changes(&form, &[("resource", ""), ("purpose", ""), ("requested_actor", to)])
    }

    /// The form of an exchange for a transaction token.
    pub fn txn_form(&self, subject_token: &str, subject_token_type: &str) -> Form {
        let changes = [
            ("resource", ""),
            ("subject_token_type", subject_token_type),
            ("requested_token_type", TXN_TOKEN),
            ("audience", "example.com"),
        ];
        form_with_changes(&self.exchange_form(subject_token), &changes)
    }

    /// A task token of the planner for `files`, to read, in alice's name.
    pub async fn task_token(&self) -> String {
        self.issue_token("planner", &self.exchange_form(&self.user_token(json!({})))).await
    }

    /// What `files` is told about a token.
    pub async fn introspect(&self, token: &str) -> Value {
        let (status, body) = self.post_as("files", "/oauth2/introspect", &form(&[("token", token)])).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Whether a token is live for the resource `files`.
    pub async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspect(token).await;
        let active = answer["active"].as_bool().unwrap();
        assert!(active || answer == json!({"active": false}), "{answer}");
        active
    }

    /// An API token of a client with these scopes.
    pub async fn api_token(&self, client: &str, scope: &str) -> String {
        self.issue_token(client, &form(&[("grant_type", "client_credentials"), ("scope", scope)])).await
    }

    /// A call of the admin API by `ops`.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let token = self.api_token("ops", "errand:admin errand:audit").await;
        self.admin_with(&token, method, path, body).await
    }

    /// A call of the admin API with this API token.
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

    /// Takes something back as `ops`, and says what was answered.
    pub async fn revoke(&self, what: Value) -> Value {
        let (status, body) = self.admin(Method::POST, "/revocations", Some(what)).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// The form with a client assertion.
pub fn with_assertion(form: &Form, assertion: &str) -> Form {
    form_with_changes(form, &[("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)])
}

/// Status and body; a body that is no JSON is a string.
pub async fn read_response(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An answer without what is measured anew each time: how far it got, and how long that took.
pub fn without_propagation(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        assert!(members.get("replicas_pending").is_none_or(|pending| *pending == 0), "{members:?}");
        members.retain(|name, _| !name.starts_with("replicas_") && name != "propagated_ms");
    }
    answer
}

/// The claims of a token of ours; not verified.
pub fn decode_claims(token: &str) -> Value {
    decode_part(token, 1)
}

/// The header of a token; not verified.
pub fn decode_header(token: &str) -> Value {
    decode_part(token, 0)
}

fn decode_part(token: &str, n: usize) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(n).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The claims with these changed (null: left out).
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
    for client in ["reader", "writer", "stranger", "files", "notes", "ops", "audit"] {
        write(&format!("{client}.secret"), &secret(client));
    }
    let text = edit(include_str!("server.toml").to_owned()).replace("ADDRESS", &address.to_string());
    write("errand.toml", &text)
}

/// Waits until something is so, with a limit.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    for _ in 0..1200 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never so: {what}");
}
