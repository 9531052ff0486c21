//! An identity provider whose JWKS is unavailable: its tokens get 503, and no other request is
//! delayed or rejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{Response, StatusCode},
    routing::get,
};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    idp::Key,
    server::{Server, wait_until},
};

on_both_stores!(
    exchange_uses_state_after_key_fetch,
    unavailable_issuer_keys_return_503,
    new_issuer_key_is_fetched,
    forbidden_jwks_addresses_are_not_fetched
);

/// A provider on loopback whose path selects how it responds.
struct JwksServer {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl JwksServer {
    async fn start(keys: &Value) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::default());
        let shared = (keys.clone(), Arc::clone(&requests));
        let router = Router::new().route("/{how}", get(respond)).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, requests }
    }
}

async fn respond(State((keys, requests)): State<(Value, Arc<AtomicUsize>)>, Path(how): Path<String>) -> Response<Body> {
    let earlier_requests = requests.fetch_add(1, Ordering::SeqCst);
    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]));
    let (status, body) = match how.as_str() {
        // The first response lacks the key.
        "new" if earlier_requests == 0 => (200, Body::from(json!({"keys": [Key::new("idp-0").public()]}).to_string())),
        "good" | "new" => (200, Body::from(keys.to_string())),
        "slow" => (200, Body::from_stream(stream::iter([chunk()]).chain(stream::pending()))),
        "silent" => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            (200, Body::from(keys.to_string()))
        }
        "huge" => (200, Body::from_stream(stream::repeat_with(chunk))),
        // Responds when the test releases it.
        "held" => {
            let is_released = async || requests.load(Ordering::SeqCst) >= RELEASED_COUNT;
            wait_until("the response is released", is_released).await;
            (200, Body::from(keys.to_string()))
        }
        "redirect" => (302, Body::empty()),
        "error" => (500, Body::from("no")),
        "none" => (200, Body::from(json!({"keys": []}).to_string())),
        "words" => (200, Body::from("not a JWKS")),
        "html" => (200, Body::from("<html>Please sign in</html>")),
        "private" => (200, Body::from(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string())),
        _ => (404, Body::empty()),
    };
    Response::builder().status(StatusCode::from_u16(status).unwrap()).header("location", "/good").body(body).unwrap()
}

/// The request count that releases held responses.
const RELEASED_COUNT: usize = 1_000_000;

/// A name, the admin request (given an agent's entry with other access), and the result of the
/// exchange.
type Row = (&'static str, fn(&Server, Value) -> (Method, String, Value), u16, &'static str);

/// The state that decides an exchange changes while the exchange waits for the provider's keys.
async fn exchange_uses_state_after_key_fetch(server: Server) {
    let read_notes = json!([{"resource": "notes", "scopes": ["notes:read"]}]);
    let rows: [Row; 5] = [
        ("less", |_, agent| (Method::PUT, "/agents/agent-less".into(), agent), 400, "invalid_target"),
        (
            "other-keys",
            |server, agent| {
                let keys = json!({"method": "private_key_jwt", "jwks": server.idp.jwks()});
                let access = json!([{"resource": "files", "scopes": ["files:read"]}]);
                let agent = crate::server::with_changes(agent, json!({"authentication": keys, "access": access}));
                (Method::PUT, "/agents/agent-other-keys".into(), agent)
            },
            401,
            "invalid_client",
        ),
        (
            "disabled",
            |_, _| {
                let body = json!({"kind": "agent", "id": "agent-disabled", "verb": "block", "reason": "x"});
                (Method::POST, "/revocations".into(), body)
            },
            401,
            "invalid_client",
        ),
        (
            "requester",
            |_, _| {
                let (issuer, subject) = ("https://requester.example", "requester:alice");
                let body =
                    json!({"kind": "requester", "issuer": issuer, "subject": subject, "verb": "block", "reason": "x"});
                (Method::POST, "/revocations".into(), body)
            },
            400,
            "invalid_request",
        ),
        // Tokens that were issued before the revocation are revoked. This one is issued after it.
        (
            "revoked",
            |_, _| {
                (Method::POST, "/revocations".into(), json!({"kind": "agent", "id": "agent-revoked", "reason": "x"}))
            },
            200,
            "",
        ),
    ];
    for (name, change, status, error) in rows {
        let key = Key::new(&format!("{name}-1"));
        let provider = JwksServer::start(&key.jwks()).await;
        server.trust(name, &format!("{}/held", provider.url), &["127.0.0.0/8"]).await;
        let (_, agent) = server.admin(Method::GET, &format!("/agents/agent-{name}"), None).await;
        let agent = crate::server::with_changes(agent["body"].clone(), json!({"access": read_notes}));
        let exchange = server.try_issuer(name, &key);
        let meanwhile = async {
            wait_until("the exchange waits for the keys", async || provider.requests.load(Ordering::SeqCst) > 0).await;
            let (method, path, body) = change(&server, agent);
            let (change_status, answer) = server.admin(method, &path, Some(body)).await;
            assert!(change_status.is_success(), "{name}: {answer}");
            provider.requests.store(RELEASED_COUNT, Ordering::SeqCst);
        };
        let (answer, ()) = tokio::join!(exchange, meanwhile);
        assert_eq!((answer.0, &*answer.1), (status, error), "{name}");
    }
    server.stop().await;
}

impl Server {
    /// Registers a trusted issuer with this `jwks_uri`.
    async fn trust(&self, name: &str, jwks_uri: &str, networks: &[&str]) {
        let (status, body) = self.try_trust(name, jwks_uri, networks).await;
        assert!(status.is_success(), "{body}");
    }

    /// Tries to register an issuer with this `jwks_uri`, and an agent for it if that succeeds.
    async fn try_trust(&self, name: &str, jwks_uri: &str, networks: &[&str]) -> (reqwest::StatusCode, Value) {
        let issuer = format!("https://{name}.example");
        let body = json!({"issuer": issuer, "keys": {"jwks_uri": jwks_uri}, "audiences": [self.issuer],
            "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": format!("{name}:"),
            "allowed_networks": networks});
        let path = format!("/issuers/{}", issuer.replace(':', "%3A").replace('/', "%2F"));
        let (status, body) = self.admin(Method::PUT, &path, Some(body)).await;
        if !status.is_success() {
            return (status, body);
        }
        let agent = json!({"id": format!("agent-{name}"), "authentication": {"method": "private_key_jwt", "jwks": self.planner.jwks()},
            "known_as": {&issuer: ["planner-client"]}, "access": [{"resource": "files", "scopes": ["files:read"]}]});
        self.admin(Method::PUT, &format!("/agents/agent-{name}"), Some(agent)).await
    }

    /// Exchanges a token of that issuer. Returns status, error and `Retry-After`.
    async fn try_issuer(&self, name: &str, key: &Key) -> (u16, String, Option<String>) {
        let issuer = format!("https://{name}.example");
        let claims = crate::server::with_changes(self.user_claims(), json!({"iss": issuer}));
        let form = self.exchange_form(&key.sign("at+jwt", &claims));
        let id = format!("agent-{name}");
        let form = crate::server::with_assertion(&form, &self.assertion(json!({"iss": id, "sub": id})));
        let response = self.post("/oauth2/token").form(&form).send().await.unwrap();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.json::<Value>().await.unwrap();
        assert!(status == 200 || body["access_token"].is_null());
        (status, body["error"].as_str().unwrap_or_default().to_owned(), retry)
    }
}

const LOOPBACK: [&str; 1] = ["127.0.0.0/8"];

async fn unavailable_issuer_keys_return_503(server: Server) {
    let provider = JwksServer::start(&server.idp.jwks()).await;
    server.trust("good", &format!("{}/good", provider.url), &LOOPBACK).await;
    assert_eq!(server.try_issuer("good", &server.idp).await.0, 200);
    let server = Arc::new(server);
    let mut pending = Vec::new();
    for how in ["slow", "silent", "huge", "redirect", "error", "none", "words", "html", "private", "nothing"] {
        server.trust(how, &format!("{}/{how}", provider.url), &LOOPBACK).await;
        let server = Arc::clone(&server);
        pending.push((how, tokio::spawn(async move { server.try_issuer(how, &server.idp).await })));
    }
    // Meanwhile, other requests are served.
    assert_eq!(server.try_issuer("good", &server.idp).await.0, 200);
    let token = server.task_token().await;
    assert!(server.is_active(&token).await);
    for (how, answer) in pending {
        let expected = (503, "temporarily_unavailable".to_owned(), Some("1".to_owned()));
        assert_eq!(answer.await.unwrap(), expected, "{how}");
    }
    // Nothing listens on the port.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = format!("http://{}/good", listener.local_addr().unwrap());
    drop(listener);
    server.trust("unreachable", &unreachable, &LOOPBACK).await;
    assert_eq!(server.try_issuer("unreachable", &server.idp).await.0, 503);
    // A reachable issuer without the key is a definite rejection.
    let (status, error, _) = server.try_issuer("good", &Key::new("idp-1")).await;
    assert_eq!((status, &error[..]), (400, "invalid_request"));
}

async fn new_issuer_key_is_fetched(server: Server) {
    let provider = JwksServer::start(&server.idp.jwks()).await;
    server.trust("new", &format!("{}/new", provider.url), &LOOPBACK).await;
    assert_eq!(server.try_issuer("new", &server.idp).await.0, 200, "an unknown `kid` causes one more fetch");
    assert_eq!(provider.requests.load(Ordering::SeqCst), 2);
    let unknown = Key::new("never-seen");
    for _ in 0..5 {
        let (status, error, retry_after) = server.try_issuer("new", &unknown).await;
        assert_eq!((status, &error[..]), (503, "temporarily_unavailable"), "not known to be missing");
        let seconds = retry_after.unwrap().parse::<u64>().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
    }
    assert!(provider.requests.load(Ordering::SeqCst) <= 3, "forged tokens must not cause repeated fetches");
    wait_until("the issuer is still accepted", || async { server.try_issuer("new", &server.idp).await.0 == 200 }).await;
    server.stop().await;
}

async fn forbidden_jwks_addresses_are_not_fetched(server: Server) {
    let provider = JwksServer::start(&server.idp.jwks()).await;
    let port = provider.url.rsplit(':').next().unwrap();
    // A plainly wrong address is rejected on registration; the rest when the keys are fetched.
    for (name, uri, networks, on_registration) in [
        ("loopback", format!("http://127.0.0.1:{port}/good"), &[][..], true),
        ("localhost", format!("http://localhost:{port}/good"), &[], true),
        ("other-loopback", format!("https://127.1.2.3:{port}/good"), &[], true),
        ("six", format!("http://[::1]:{port}/good"), &[], true),
        ("mapped", format!("https://[::ffff:127.0.0.1]:{port}/good"), &[], false),
        ("zero", format!("https://0.0.0.0:{port}/good"), &[], false),
        ("decimal", format!("https://2130706433:{port}/good"), &[], true),
        ("metadata-service", "https://169.254.169.254/latest/meta-data".to_owned(), &[], false),
        ("private", "https://10.0.0.1/good".to_owned(), &[], false),
        ("other-network", format!("http://127.0.0.1:{port}/good"), &["10.0.0.0/8"], true),
        ("plain", "http://keys.example.com/good".to_owned(), &LOOPBACK[..], true),
        ("with-user", format!("https://user:pass@127.0.0.1:{port}/good"), &LOOPBACK[..], true),
        ("file", "file:///etc/passwd".to_owned(), &LOOPBACK[..], true),
    ] {
        let (status, body) = server.try_trust(name, &uri, networks).await;
        if on_registration {
            assert_eq!(status, 422, "{name}: {body}");
            continue;
        }
        assert!(status.is_success(), "{name}: {body}");
        let (status, error, retry) = server.try_issuer(name, &server.idp).await;
        assert_eq!((status, &error[..], retry.as_deref()), (503, "temporarily_unavailable", Some("1")), "{name}");
    }
    assert_eq!(provider.requests.load(Ordering::SeqCst), 0, "no request reached the provider");
    server.stop().await;
}
