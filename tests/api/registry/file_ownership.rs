//! Ownership by the configuration file: declared objects and secrets are managed there, and removed
//! ones stay removed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{IDP, Server, form, form_with_changes, read_response, secret, with_changes};

on_both_stores!(
    removed_api_object_does_not_return,
    removed_file_object_does_not_return,
    file_secret_is_managed_by_file,
);

const SECOND: &str = "https://second.example";
const SECOND_PATH: &str = "/issuers/https%3A%2F%2Fsecond.example";

impl Server {
    pub async fn put_object(&self, path: &str, body: Value) {
        let (status, answer) = self.admin(Method::PUT, path, Some(body)).await;
        assert!(status.is_success(), "{path} {answer}");
    }

    pub async fn remove_object(&self, path: &str) {
        let (status, answer) = self.admin(Method::DELETE, path, None).await;
        assert_eq!(status, 204, "{path} {answer}");
    }

    pub async fn create_secret(&self, client: &str) -> String {
        let (status, made) = self.admin(Method::POST, &format!("/clients/{client}/secret"), None).await;
        assert_eq!(status, 201, "{made}");
        made["client_secret"].as_str().unwrap().to_owned()
    }

    /// Starts another replica with an edited file.
    pub async fn restarted(&self, edit: impl FnOnce(String) -> String) -> Self {
        let text = std::fs::read_to_string(self.config_file()).unwrap();
        std::fs::write(self.config_file(), edit(text)).unwrap();
        self.replica().await
    }

    /// Requests a token by client credentials, with a secret.
    async fn request_api_token(&self, client: &str, secret: &str) -> Option<String> {
        let request = self.post("/oauth2/token").basic_auth(client, Some(secret));
        let (_, body) =
            read_response(request.form(&form(&[("grant_type", "client_credentials")])).send().await.unwrap()).await;
        body["access_token"].as_str().map(str::to_owned)
    }

    async fn secret_status(&self, client: &str) -> u16 {
        self.admin(Method::POST, &format!("/clients/{client}/secret"), None).await.0.as_u16()
    }

    async fn has_read_access(&self, token: &str) -> bool {
        self.admin_with(token, Method::GET, "/agents", None).await.0 == 200
    }
}

fn vault() -> Value {
    json!({"id": "vault", "uri": "https://vault.example.com", "authentication": {"method": "client_secret_basic"},
        "tools": [{"name": "open", "scope": "vault:read", "effect": "read", "risk": "low"}]})
}

fn guest(resource: &str, scope: &str, known_as: Value) -> Value {
    json!({"id": "guest", "authentication": {"method": "client_secret_basic"}, "known_as": known_as,
        "access": [{"resource": resource, "scopes": [scope]}]})
}

async fn removed_api_object_does_not_return(server: Server) {
    let other = server.replica().await;
    let second = json!({"issuer": SECOND, "keys": {"inline": server.idp.jwks()}, "audiences": [server.issuer],
        "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": "second:"});
    server.put_object("/resources/vault", vault()).await;
    server.put_object(SECOND_PATH, second.clone()).await;
    let known = json!({(IDP): ["guest-client"], (SECOND): ["guest-client"]});
    let (for_files, for_vault) = (guest("files", "files:read", known.clone()), guest("vault", "vault:read", known));
    let exchange = async |form: &_, secret: &str| {
        let request = server.post("/oauth2/token").basic_auth("guest", Some(secret));
        let (status, body) = read_response(request.form(form).send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    let alice = server.user_token(json!({"client_id": "guest-client"}));

    server.put_object("/agents/guest", for_files.clone()).await;
    let secret = server.create_secret("guest").await;
    let token = exchange(&server.exchange_form(&alice), &secret).await;
    assert!(other.is_active(&token).await);
    server.remove_object("/agents/guest").await;
    server.put_object("/agents/guest", for_files.clone()).await;
    assert!(!other.is_active(&token).await, "an agent with the same name is another agent");
    let secret = server.create_secret("guest").await;
    let token = exchange(&server.exchange_form(&alice), &secret).await;
    assert!(other.is_active(&token).await, "a new token of the new object is active");

    let bob = server.user_token(json!({"iss": SECOND, "sub": "second:bob", "client_id": "guest-client"}));
    let token = exchange(&server.exchange_form(&bob), &secret).await;
    assert!(other.is_active(&token).await);
    server.put_object("/agents/guest", guest("files", "files:read", json!({}))).await;
    server.remove_object(SECOND_PATH).await;
    server.put_object(SECOND_PATH, second).await;
    server.put_object("/agents/guest", for_files.clone()).await;
    assert!(!other.is_active(&token).await, "an issuer with the same name is another issuer");

    server.put_object("/agents/guest", for_vault.clone()).await;
    let asks_vault = async |token: &str, secret: &str| {
        let request = other.post("/oauth2/introspect").basic_auth("vault", Some(secret));
        let (status, body) = read_response(request.form(&form(&[("token", token)])).send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["active"].as_bool().unwrap()
    };
    let alice = server.user_token(json!({"client_id": "guest-client", "scope": "vault:read"}));
    let target = [("resource", "https://vault.example.com"), ("scope", "vault:read")];
    let token = exchange(&form_with_changes(&server.exchange_form(&alice), &target), &secret).await;
    let vaults = server.create_secret("vault").await;
    assert!(asks_vault(&token, &vaults).await);
    server.put_object("/agents/guest", for_files).await;
    server.remove_object("/resources/vault").await;
    server.put_object("/resources/vault", vault()).await;
    server.put_object("/agents/guest", for_vault).await;
    let vaults = server.create_secret("vault").await;
    assert!(!asks_vault(&token, &vaults).await, "a resource with the same name is another resource");

    let night = json!({"id": "night", "role": "auditor", "authentication": {"method": "client_secret_basic"}});
    server.put_object("/admins/night", night.clone()).await;
    let secret = server.create_secret("night").await;
    let token = server.request_api_token("night", &secret).await.unwrap();
    assert!(other.has_read_access(&token).await);
    server.remove_object("/admins/night").await;
    server.put_object("/admins/night", with_changes(night, json!({"role": "operator"}))).await;
    assert!(!other.has_read_access(&token).await, "an admin with the same name is another admin");
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!((&list["items"][0]["kind"], &list["items"][0]["key"]), (&json!("agent"), &json!("night")), "{list}");
    other.stop().await;
    server.stop().await;
}

async fn removed_file_object_does_not_return(server: Server) {
    let token = server.api_token("audit", "errand:audit").await;
    assert!(server.has_read_access(&token).await);
    let whole = std::fs::read_to_string(server.config_file()).unwrap();
    let without = server.restarted(|text| text.replace("id = \"audit\"", "id = \"audit-2\"")).await;
    assert!(!without.has_read_access(&token).await);
    let again = without.restarted_anyway(|_| whole).await;
    assert!(
        !again.has_read_access(&token).await && !server.has_read_access(&token).await,
        "an admin with the same name is another admin"
    );
    let token = again.api_token("audit", "errand:audit").await;
    assert!(again.has_read_access(&token).await, "a new token of the new object is active");
    again.stop().await;
    without.stop().await;
    server.stop().await;
}

async fn file_secret_is_managed_by_file(server: Server) {
    let (reader, given) = (secret("reader"), ", secret_file = \"reader.secret\"");
    let (status, answer) = server.admin(Method::POST, "/clients/reader/secret", None).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("configuration file"), "{answer}");
    assert!(server.request_api_token("reader", &reader).await.is_some());

    // The file no longer has the secret: the secret is removed, and the client stays writable.
    let whole = std::fs::read_to_string(server.config_file()).unwrap();
    assert!(whole.contains(given));
    let without = server.restarted(|text| text.replace(given, "")).await;
    assert!(
        without.request_api_token("reader", &reader).await.is_none()
            && server.request_api_token("reader", &reader).await.is_none()
    );
    assert!(without.request_api_token("writer", &secret("writer")).await.is_some());
    let made = without.create_secret("reader").await;
    assert!(without.request_api_token("reader", &made).await.is_some());
    let third = without.restarted(|text| text).await;
    assert!(third.request_api_token("reader", &made).await.is_some(), "the change survives a restart");
    assert_eq!(third.secret_status("reader").await, 201);

    // The file has a secret again and manages it.
    let again = third.restarted_anyway(|_| whole).await;
    assert!(
        again.request_api_token("reader", &made).await.is_none()
            && again.request_api_token("reader", &reader).await.is_some()
    );
    assert_eq!(again.secret_status("reader").await, 409);
    for one in [again, third, without, server] {
        one.stop().await;
    }
}
