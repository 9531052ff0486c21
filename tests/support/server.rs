//! A whole Errand in this process, on a store of its own and a free port, spoken to over HTTP; with an identity provider
//! whose tokens it trusts.
//!
//! Agents: `planner` (private_key_jwt; may hand over to `reader`), `reader` (secret; may hand over to `writer`), `writer`
//! (secret), `stranger` (secret; nothing is known about it at the provider). Resources: `files`
//! (read_file, list_files: files:read; write_file: files:write; delete_file: files:delete), `notes` (read_notes:
//! notes:read). Admins: `ops` (operator), `audit` (auditor).

use std::{net::SocketAddr, time::Duration};

use errand::{
    config::Config,
    house::{House, Schema},
    http::{App, EdgeSettings, Listener, router, serve},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{idp::Key, support::TestStore};

pub const IDP: &str = "https://login.example.com";
pub const FILES: &str = "https://files.example.com/mcp";
pub const NOTES: &str = "https://notes.example.com/mcp";
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub const TXN_TOKEN: &str = "urn:ietf:params:oauth:token-type:txn_token";
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

/// One Errand.
pub struct Server {
    pub url: String,
    pub address: SocketAddr,
    pub house: House,
    pub idp: Key,
    pub planner: Key,
    pub http: Client,
    pub store: TestStore,
    pub folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one on this store.
    pub async fn start(store: TestStore) -> Self {
        Self::start_with(store, "").await
    }

    /// Starts one, with more TOML after the tables of the file below (new tables only).
    pub async fn start_with(store: TestStore, more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let (idp, planner) = (Key::new("idp-1"), Key::new("planner-1"));
        let config = write_config(&folder, address, store.url(), &idp, &planner, more);
        let house = House::open(&config, Schema::Migrate).await.unwrap();
        house.furnish(&config).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let app = router(App::new(house.service.clone()), EdgeSettings::default());
        let listener = Listener::bind(address, None).await.unwrap();
        let serving = tokio::spawn(serve(listener, app, async {
            let _ = stopped.await;
        }));
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        let url = format!("http://{address}");
        Self { url, address, house, idp, planner, http, store, folder, stop: Some(stop), serving: Some(serving) }
    }

    /// Stops it, and waits until everything is durable.
    pub async fn stop(mut self) -> TestStore {
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
        self.house.service.finish().await;
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
            "iss": IDP, "aud": self.url, "sub": "alice", "client_id": "planner-client", "iat": now, "exp": now + 600,
            "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60, "acr": "loa2", "amr": ["hwk"],
        })
    }

    /// A good user token, with these claims changed (null: left out).
    pub fn user_token(&self, changes: Value) -> String {
        self.idp.sign("at+jwt", &changed(self.user_claims(), changes))
    }

    /// A good assertion of the planner, with these claims changed (null: left out).
    pub fn assertion(&self, changes: Value) -> String {
        let now = Self::now();
        let claims = json!({
            "iss": "planner", "sub": "planner", "aud": self.url, "iat": now, "exp": now + 60, "jti": uuid::Uuid::new_v4(),
        });
        self.planner.sign("client-authentication+jwt", &changed(claims, changes))
    }

    /// A request to a path.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).timeout(Duration::from_secs(30))
    }

    /// Posts a form as a client with a secret.
    pub async fn post_as(&self, client: &str, path: &str, form: &Form) -> (StatusCode, Value) {
        read(self.post(path).basic_auth(client, Some(secret(client))).form(form).send().await.unwrap()).await
    }

    /// Posts a form as the planner, with a fresh assertion.
    pub async fn post_as_planner(&self, path: &str, form: &Form) -> (StatusCode, Value) {
        let mut form = form.clone();
        form.push(("client_assertion_type".into(), JWT_BEARER.into()));
        form.push(("client_assertion".into(), self.assertion(json!({}))));
        read(self.post(path).form(&form).send().await.unwrap()).await
    }

    /// The form of a good exchange of a user token, for `files`, to read.
    pub fn exchange_form(&self, subject_token: &str) -> Form {
        form(&[
            ("grant_type", EXCHANGE),
            ("subject_token", subject_token),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", FILES),
            ("scope", "files:read"),
            ("purpose", "quarterly report"),
        ])
    }

    /// A task token of the planner for `files`, to read, in alice's name.
    pub async fn task_token(&self) -> String {
        let (status, body) =
            self.post_as_planner("/oauth2/token", &self.exchange_form(&self.user_token(json!({})))).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// What `files` is told about a token.
    pub async fn introspect(&self, token: &str) -> Value {
        let (status, body) = self.post_as("files", "/oauth2/introspect", &form(&[("token", token)])).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// An API token of a client with these scopes.
    pub async fn api_token(&self, client: &str, scope: &str) -> String {
        let grant = form(&[("grant_type", "client_credentials"), ("scope", scope)]);
        let (status, body) = self.post_as(client, "/oauth2/token", &grant).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A call of the admin API by `ops`.
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let token = self.api_token("ops", "errand:admin errand:audit").await;
        let request = self.http.request(method, format!("{}/v1/admin{path}", self.url)).bearer_auth(token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        read(request.send().await.unwrap()).await
    }
}

/// Status and body; a body that is no JSON is a string.
pub async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The claims of a token of ours; not verified.
pub fn claims(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn changed(mut claims: Value, changes: Value) -> Value {
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

fn write_config(folder: &TempDir, address: SocketAddr, store: &str, idp: &Key, planner: &Key, more: &str) -> Config {
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
    let text = include_str!("server.toml").replace("ADDRESS", &address.to_string());
    let file = write("errand.toml", &format!("{text}\n{more}"));
    Config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}
