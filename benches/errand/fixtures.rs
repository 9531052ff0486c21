//! The parties (an identity provider with a key of each kind, the agent `planner`, the resource
//! `files`, the admin `ops`) and their requests, which are created in advance.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use errand::domain::encode_base64url;
use josekit::{
    jwk::{Jwk, alg::rsa::RsaKeyPair},
    jws::{ES256, JwsSigner, JwsVerifier, RS256, alg::rsassa::RsassaJwsSigner},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use crate::load::Requests;

const IDP: &str = "https://login.example.com";
const FILES: &str = "https://files.example.com/mcp";

/// Signature algorithm of user tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UserTokens {
    Es256,
    Rs256,
}

/// An ES256 key.
pub struct Es256Key {
    kid: &'static str,
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl Es256Key {
    pub fn new(kid: &'static str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        Self { kid, pair, rng }
    }

    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&self.rng, message).unwrap().as_ref().to_vec()
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.public()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "use": "sig", "x": encode_base64url(x), "y": encode_base64url(y)})
    }

    pub fn verifier(&self) -> impl JwsVerifier {
        ES256.verifier_from_jwk(&Jwk::from_map(self.jwk().as_object().unwrap().clone()).unwrap()).unwrap()
    }

    fn token(&self, typ: &str, claims: &Value) -> String {
        self.token_with_kid(self.kid, typ, claims)
    }

    fn token_with_kid(&self, kid: &str, typ: &str, claims: &Value) -> String {
        let input = signing_input("ES256", kid, typ, claims);
        let signature = self.sign(input.as_bytes());
        format!("{input}.{}", encode_base64url(&signature))
    }
}

/// An RS256 key of 2048 bits.
pub struct Rs256Key {
    jwk: Jwk,
    signer: RsassaJwsSigner,
}

impl Rs256Key {
    fn new(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(2048).unwrap();
        let signer = RS256.signer_from_der(pair.to_der_private_key()).unwrap();
        let mut jwk = pair.to_jwk_public_key();
        jwk.set_key_id(kid);
        jwk.set_algorithm("RS256");
        Self { jwk, signer }
    }

    pub fn verifier(&self) -> impl JwsVerifier {
        RS256.verifier_from_jwk(&self.jwk).unwrap()
    }

    fn token(&self, typ: &str, claims: &Value) -> String {
        let input = signing_input("RS256", "idp-rsa", typ, claims);
        let signature = self.signer.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", encode_base64url(&signature))
    }
}

fn signing_input(alg: &str, kid: &str, typ: &str, claims: &Value) -> String {
    let header = json!({"alg": alg, "kid": kid, "typ": typ}).to_string();
    format!("{}.{}", encode_base64url(header.as_bytes()), encode_base64url(claims.to_string().as_bytes()))
}

/// All parties of a server.
pub struct Fixtures {
    pub address: SocketAddr,
    pub idp: Es256Key,
    pub idp_rsa: Rs256Key,
    pub planner: Es256Key,
}

/// The clients of a measurement are few and fast: without these limits, the server would throttle
/// them.
const UNLIMITED: &str = "
[limits]
exchange = { per_second = 1000000, burst = 1000000, in_flight = 1000000 }
introspection = { per_second = 1000000, burst = 1000000, in_flight = 1000000 }
admin = { per_second = 1000000, burst = 1000000, in_flight = 1000000 }

[quotas]
open_tasks_per_agent = 10000000
open_tasks_per_requester = 10000000
live_tokens_per_task = 10000000
";

const HOSTILE_PARTIES: &str = r#"
[[agents]]
id = "mallory"
authentication = { method = "client_secret_basic", secret_file = "mallory.secret" }
known_as = { "https://login.example.com" = ["mallory-client"] }
access = [{ resource = "files", scopes = ["files:read"] }]

[[resources]]
id = "mallory-files"
uri = "https://mallory.example.com/mcp"
authentication = { method = "client_secret_basic", secret_file = "mallory-files.secret" }
"#;

impl Fixtures {
    pub fn new(address: SocketAddr) -> Self {
        let (idp, planner) = (Es256Key::new("idp-ec"), Es256Key::new("planner-1"));
        Self { address, idp, idp_rsa: Rs256Key::new("idp-rsa"), planner }
    }

    /// Writes the configuration of a server on this store into a folder.
    pub fn configure(&self, folder: &Path, store: &str) {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("kek", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
        write("store-url", store);
        let rsa = serde_json::to_value(&self.idp_rsa.jwk).unwrap();
        write("idp.json", &json!({"keys": [self.idp.jwk(), rsa]}).to_string());
        write("planner.json", &json!({"keys": [self.planner.jwk()]}).to_string());
        for client in ["files", "ops"] {
            write(&format!("{client}.secret"), &secret(client));
        }
        let text = include_str!("errand.toml").replace("ADDRESS", &self.address.to_string());
        write("errand.toml", &(text + &extra_registry() + UNLIMITED));
    }

    /// Removes the limits from the configuration, for a program from before there were any.
    pub fn configure_without_limits(&self, folder: &Path, store: &str) {
        self.configure(folder, store);
        let path = folder.join("errand.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(UNLIMITED, "")).unwrap();
    }

    /// Writes the configuration with the default limits and with two hostile parties: the agent
    /// `mallory` and the resource `mallory-files`.
    pub fn configure_siege(&self, folder: &Path, store: &str) {
        self.configure_without_limits(folder, store);
        for client in ["mallory", "mallory-files"] {
            let path = folder.join(format!("{client}.secret"));
            fs::write(&path, secret(client)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let path = folder.join("errand.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + HOSTILE_PARTIES).unwrap();
    }

    /// Creates exchanges of user tokens, authenticated by assertion. Each is valid once. User
    /// tokens repeat: a user signs in once for several tasks.
    pub fn exchanges(&self, user: UserTokens, count: usize) -> Requests {
        let users = (0..count.min(64)).map(|n| self.user_token(user, n)).collect::<Vec<_>>();
        let all = (0..count).map(|n| self.exchange(&users[n % users.len()], &self.assertion()));
        Requests { all: Arc::new(all.collect()), once: true, expected_prefix: r#"{"access_token":""# }
    }

    /// Creates introspections of these tokens by `files`.
    pub fn introspections(&self, tokens: &[String], once: bool) -> Requests {
        let all = tokens.iter().map(|token| self.post("/oauth2/introspect", Some("files"), &[("token", token)]));
        Requests { all: Arc::new(all.collect()), once, expected_prefix: r#"{"active":true"# }
    }

    /// Creates a request of `ops` for an API token.
    pub fn api_token(&self) -> Vec<u8> {
        let form = [("grant_type", "client_credentials"), ("scope", "errand:admin")];
        self.post("/oauth2/token", Some("ops"), &form)
    }

    /// Creates a revocation of each of these tokens.
    pub fn revocations(&self, tokens: &[String], api_token: &str) -> Requests {
        let one = |token: &String| {
            let body = json!({"kind": "token", "id": claims(token)["jti"], "reason": "benchmark"}).to_string();
            let head = format!(
                "POST /v1/admin/revocations HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {api_token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                self.address,
                body.len()
            );
            (head + &body).into_bytes()
        };
        Requests { all: Arc::new(tokens.iter().map(one).collect()), once: true, expected_prefix: "{" }
    }

    fn exchange(&self, user_token: &str, assertion: &str) -> Vec<u8> {
        let assertion = [
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        self.post("/oauth2/token", None, &[&exchange_form(user_token)[..], &assertion].concat())
    }

    /// Creates an exchange by a client with a secret.
    pub fn exchange_with_secret(&self, client: &str, user_token: &str) -> Vec<u8> {
        self.post("/oauth2/token", Some(client), &exchange_form(user_token))
    }

    /// Creates an exchange of `planner` whose assertion was captured: it succeeds once.
    pub fn captured_exchange(&self) -> Vec<u8> {
        self.exchange(&self.user_token(UserTokens::Es256, 0), &self.assertion())
    }

    /// Creates an exchange with an assertion of `planner` that another key signed.
    pub fn forged_exchange(&self) -> Vec<u8> {
        let claims = self.assertion_claims();
        let assertion = self.idp.token_with_kid(self.planner.kid, "client-authentication+jwt", &claims);
        self.exchange(&self.user_token(UserTokens::Es256, 0), &assertion)
    }

    /// Creates a request for an API token, by a client with a secret.
    pub fn api_token_of(&self, client: &str, scope: &str) -> Vec<u8> {
        self.post("/oauth2/token", Some(client), &[("grant_type", "client_credentials"), ("scope", scope)])
    }

    /// Creates an introspection by a client with a secret.
    pub fn introspection_of(&self, client: &str, token: &str) -> Vec<u8> {
        self.post("/oauth2/introspect", Some(client), &[("token", token)])
    }

    /// Creates a request with `GET`.
    pub fn get(&self, path: &str, api_token: Option<&str>) -> Vec<u8> {
        let bearer = api_token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{bearer}\r\n", self.address).into_bytes()
    }

    pub fn user_token(&self, algorithm: UserTokens, user: usize) -> String {
        self.user_token_for("planner-client", algorithm, user)
    }

    /// Creates a token that a user got through a client.
    pub fn user_token_for(&self, client: &str, algorithm: UserTokens, user: usize) -> String {
        let now = now();
        let claims = json!({
            "iss": IDP, "aud": self.own_url(), "sub": format!("user-{user}"), "client_id": client, "iat": now,
            "exp": now + 3600, "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60,
            "acr": "loa2", "amr": ["hwk"],
        });
        match algorithm {
            UserTokens::Es256 => self.idp.token("at+jwt", &claims),
            UserTokens::Rs256 => self.idp_rsa.token("at+jwt", &claims),
        }
    }

    pub fn assertion(&self) -> String {
        self.planner.token("client-authentication+jwt", &self.assertion_claims())
    }

    fn assertion_claims(&self) -> Value {
        let now = now();
        json!({
            "iss": "planner", "sub": "planner", "aud": self.own_url(), "iat": now, "exp": now + 290, "jti": uuid::Uuid::new_v4(),
        })
    }

    fn own_url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn post(&self, path: &str, client: Option<&str>, form: &[(&str, &str)]) -> Vec<u8> {
        let body = Serializer::new(String::new()).extend_pairs(form).finish();
        let basic = client.map(|client| format!("authorization: Basic {}\r\n", basic(client))).unwrap_or_default();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{basic}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        (head + &body).into_bytes()
    }
}

fn exchange_form(user_token: &str) -> [(&'static str, &str); 6] {
    [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", user_token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("resource", FILES),
        ("scope", "files:read"),
        ("purpose", "quarterly report"),
    ]
}

/// Number of other resources and agents.
pub const OTHER_AGENTS: usize = 50;
/// Number of tools of each other resource.
pub const TOOLS_PER_RESOURCE: usize = 20;

/// Other registered parties: a real server has more than one agent and one resource.
fn extra_registry() -> String {
    let authentication = r#"{ method = "private_key_jwt", jwks_file = "planner.json" }"#;
    let others = (0..OTHER_AGENTS).map(|n| {
        let tool = |t: usize| {
            let effect = if t.is_multiple_of(2) { "read" } else { "write" };
            format!(r#"{{ name = "tool_{t}", scope = "r{n}:{effect}", effect = "{effect}" }}"#)
        };
        let tools = (0..TOOLS_PER_RESOURCE).map(tool).collect::<Vec<_>>().join(", ");
        format!(
            r#"
[[resources]]
id = "r{n}"
uri = "https://r{n}.example.com/mcp"
authentication = {authentication}
tools = [{tools}]

[[agents]]
id = "agent{n}"
authentication = {authentication}
access = [{{ resource = "r{n}", scopes = ["r{n}:read"] }}]
"#
        )
    });
    others.collect()
}

/// Returns the claims of a token without verifying it.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&errand::domain::decode_base64url(payload).unwrap()).unwrap()
}

/// Returns the token in a response of the token endpoint.
pub fn access_token_of(body: &str) -> String {
    let answer = serde_json::from_str::<Value>(body).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn secret(client: &str) -> String {
    encode_base64url(format!("{client:-<32}").as_bytes())
}

fn basic(client: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(format!("{client}:{}", secret(client)))
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
