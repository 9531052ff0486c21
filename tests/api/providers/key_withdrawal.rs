//! A key of an identity provider leaks: an admin withdraws it, or has the keys read anew, and every
//! replica stops using it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    providers::provider::{Provider, RsaKey},
    server::{ACCESS_TOKEN, FILES, Server, TOKEN_EXCHANGE, form, read_response, without_propagation},
    support::TestStore,
};

const ISSUER: &str = "https://keys.example";

fn settings(provider: &Provider, more: &str) -> String {
    format!(
        "[[agents]]\nid = \"assistant\"\nauthentication = {{ method = \"client_secret_basic\", secret_file = \"assistant.secret\" }}\n\
         access = [{{ resource = \"files\", scopes = [\"files:read\"] }}]\nknown_as = {{ \"{ISSUER}\" = [\"assistant-client\"] }}\n\
         [[issuers]]\nissuer = \"{ISSUER}\"\nkeys = {{ jwks_uri = \"{}/keys\" }}\nallowed_networks = [\"127.0.0.0/8\"]\n\
         algorithms = [\"RS256\"]\ntoken_types = [\"access_token\"]\naudiences = [\"https://sts.example.com\"]\nsubject_prefix = \"k:\"\n{more}\n",
        provider.url
    )
}

fn user_token(key: &RsaKey, header: Value) -> String {
    let mut all = json!({"typ": "at+jwt"});
    all.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
    let now = Server::now();
    let claims = json!({"iss": ISSUER, "sub": "alice", "aud": "https://sts.example.com", "client_id": "assistant-client",
        "iat": now, "exp": now + 600, "jti": "1", "scope": "files:read"});
    key.sign(&all, &claims)
}

impl Server {
    async fn try_user_token(&self, token: &str) -> (u16, String) {
        let request = form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", token),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", FILES),
            ("scope", "files:read"),
            ("purpose", "the quarterly report"),
        ]);
        let (status, body) = self.post_as("assistant", "/oauth2/token", &request).await;
        (status.as_u16(), body["error_description"].as_str().unwrap_or_default().to_owned())
    }

    async fn refresh_keys(&self, body: Value) -> (u16, Value) {
        let path = "/issuers/https%3A%2F%2Fkeys.example/keys/refresh";
        let (status, body) = self.admin(Method::POST, path, Some(body)).await;
        (status.as_u16(), body)
    }
}

async fn leaked_key_is_not_used_by_any_replica(store: TestStore) {
    let provider = Provider::start().await;
    let (old, new) = (RsaKey::shared(0, "old"), RsaKey::shared(1, "new"));
    let publish = |keys: &[&RsaKey]| {
        provider.publish("/keys", &keys.iter().map(|key| key.public(&json!({}))).collect::<Vec<_>>());
    };
    publish(&[&old, &new]);
    let first = Server::start_with(store, &settings(&provider, "")).await;
    let second = first.replica().await;
    let accepts = async |key: &RsaKey| {
        let token = user_token(key, json!({}));
        let answers = [first.try_user_token(&token).await, second.try_user_token(&token).await];
        assert_eq!(answers[0], answers[1], "the replicas agree");
        answers[0].clone()
    };
    assert_eq!((accepts(&old).await.0, accepts(&new).await.0), (200, 200));

    // The provider still publishes the key, and it is not used any more.
    let (status, body) = first.refresh_keys(json!({"reason": "leaked", "withdraw": ["old"]})).await;
    assert_eq!(status, 200, "{body}");
    let (mut body, seq) = (without_propagation(body.clone()), body["seq"].clone());
    assert!(seq.is_u64());
    body.as_object_mut().unwrap().remove("seq");
    assert_eq!(body, json!({"issuer": ISSUER, "withdrawn": ["old"]}));
    let (status, description) = accepts(&old).await;
    assert_eq!(status, 400);
    assert!(description.contains("withdrawn by an admin"), "{description}");
    assert_eq!(accepts(&new).await.0, 200);
    // A token without `kid` is tried with every key except that one.
    for (key, want) in [(&old, 400), (&new, 200)] {
        assert_eq!(first.try_user_token(&user_token(key, json!({"kid": null}))).await.0, want, "{}", key.kid);
    }
    // A replica that starts later knows it too.
    let third = first.replica().await;
    assert_eq!(third.try_user_token(&user_token(&old, json!({}))).await.0, 400);
    let (status, log) = first.admin(Method::GET, "/revocations", None).await;
    assert_eq!(status, 200);
    let kinds = log["items"].as_array().unwrap().iter().map(|entry| (entry["kind"].clone(), entry["verb"].clone()));
    let kinds = kinds.collect::<Vec<_>>();
    assert!(kinds.contains(&(json!("issuer_key"), json!("suspend"))), "{log}");
    assert!(kinds.contains(&(json!("issuer_keys"), json!("revoke"))), "{log}");

    let (status, body) = second.refresh_keys(json!({"reason": "it was another one", "restore": ["old"]})).await;
    assert_eq!((status, &body["withdrawn"]), (200, &json!([])));
    assert_eq!(accepts(&old).await.0, 200);

    // The provider withdraws the key. Without a refresh, the cached one would be used for ten
    // minutes.
    publish(&[&new]);
    assert_eq!(accepts(&old).await.0, 200);
    assert_eq!(first.refresh_keys(json!({"reason": "rotated"})).await.0, 200);
    let (status, description) = accepts(&old).await;
    assert_eq!((status, description.contains("has no key for")), (400, true), "{description}");
    assert_eq!(accepts(&new).await.0, 200);

    // While the provider can't be reached, keys from before a refresh are not used.
    provider.remove("/keys");
    assert_eq!(accepts(&new).await.0, 200, "from the cache");
    assert_eq!(first.refresh_keys(json!({"reason": "leaked"})).await.0, 200);
    assert_eq!(accepts(&new).await.0, 503);

    let (status, trail) = first.admin(Method::GET, "/audit?event=issuer_keys.refresh&outcome=done", None).await;
    assert_eq!((status.as_u16(), trail["items"].as_array().unwrap().len()), (200, 4), "{trail}");
    first.stop().await;
}

async fn refresh_of_keys_is_checked(store: TestStore) {
    let provider = Provider::start().await;
    let key = RsaKey::shared(0, "a");
    provider.publish("/keys", &[key.public(&json!({}))]);
    let server = Server::start_with(store, &settings(&provider, "")).await;
    for (body, want) in [
        (json!({}), 400),
        (json!({"reason": "x", "kid": "a"}), 400),
        (json!({"reason": "x", "withdraw": "a"}), 400),
        (json!({"reason": "x", "withdraw": [""]}), 400),
        (json!({"reason": "x", "withdraw": ["a\nb"]}), 400),
        (json!({"reason": "x", "withdraw": ["x".repeat(513)]}), 400),
        (json!({"reason": "x", "withdraw": ["a"], "restore": ["a"]}), 400),
    ] {
        let (status, answer) = server.refresh_keys(body.clone()).await;
        assert_eq!(status, want, "{body}: {answer}");
    }
    let unknown = "/issuers/https%3A%2F%2Felsewhere.example/keys/refresh";
    assert_eq!(server.admin(Method::POST, unknown, Some(json!({"reason": "x"}))).await.0, 404);
    let auditor = server.api_token("audit", "errand:audit").await;
    let path = "/issuers/https%3A%2F%2Fkeys.example/keys/refresh";
    assert_eq!(server.admin_with(&auditor, Method::POST, path, Some(json!({"reason": "x"}))).await.0, 403);
    // A `kid` may contain anything printable.
    let odd = RsaKey::shared(0, "a kid/with ä: everything");
    provider.publish("/keys", &[odd.public(&json!({}))]);
    assert_eq!(server.refresh_keys(json!({"reason": "x"})).await.0, 200);
    assert_eq!(server.try_user_token(&user_token(&odd, json!({}))).await.0, 200);
    assert_eq!(server.refresh_keys(json!({"reason": "x", "withdraw": [odd.kid]})).await.0, 200);
    assert_eq!(server.try_user_token(&user_token(&odd, json!({}))).await.0, 400);
    server.stop().await;
}

/// The good keys of a set work, whatever is beside them.
async fn unusable_keys_do_not_disable_others(store: TestStore) {
    let provider = Provider::start().await;
    let good = RsaKey::shared(0, "good");
    let public = |more: Value| good.public(&more);
    let server = Server::start_with(store, &settings(&provider, "")).await;
    let padded = format!("{}==", public(json!({}))["n"].as_str().unwrap());
    let many =
        |n: usize| (0..n).map(|n| public(json!({"kid": n.to_string()}))).chain([public(json!({}))]).collect::<Vec<_>>();
    let keys = |keys: Value| json!({ "keys": keys }).to_string();
    for (name, document, want) in [
        ("the key alone", keys(json!([public(json!({}))])), 200),
        ("a byte order mark", format!("\u{feff}{}", keys(json!([public(json!({}))]))), 200),
        ("padding", keys(json!([public(json!({"n": padded}))])), 200),
        ("an oct key", keys(json!([{"kty": "oct", "kid": "s", "k": "AAAA"}, public(json!({}))])), 200),
        ("a private key", keys(json!([public(json!({"kid": "p", "d": "AAAA"})), public(json!({}))])), 200),
        (
            "an encryption key",
            keys(json!([public(json!({"kid": "e", "use": "enc", "alg": "RSA-OAEP"})), public(json!({}))])),
            200,
        ),
        (
            "keys of other kinds",
            keys(json!([{"kty": "OKP", "crv": "X25519", "x": "AAAA"}, {"kty": "AKP"}, 7, null, public(json!({}))])),
            200,
        ),
        ("a weak key", keys(json!([public(json!({"kid": "w", "n": "AQAB"})), public(json!({}))])), 200),
        ("71 keys", json!({ "keys": many(70) }).to_string(), 200),
        ("256 keys", json!({ "keys": many(255) }).to_string(), 200),
        ("257 keys", json!({ "keys": many(256) }).to_string(), 503),
        ("only an oct key", keys(json!([{"kty": "oct", "kid": "s", "k": "AAAA"}])), 503),
        ("no key", keys(json!([])), 503),
    ] {
        provider.set("/keys", document);
        assert_eq!(server.refresh_keys(json!({"reason": "x"})).await.0, 200);
        let (status, description) = server.try_user_token(&user_token(&good, json!({}))).await;
        assert_eq!(status, want, "{name}: {description}");
    }
    server.stop().await;
}

async fn command_line_refreshes_keys(store: TestStore) {
    let provider = Provider::start().await;
    let (old, new) = (RsaKey::shared(0, "old"), RsaKey::shared(1, "new"));
    provider.publish("/keys", &[old.public(&json!({})), new.public(&json!({}))]);
    let server = Server::start_with(store, &settings(&provider, "key_refresh = 60\nkey_max_age = 120")).await;
    assert_eq!(server.try_user_token(&user_token(&old, json!({}))).await.0, 200);
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_errand"));
        command.args(["issuers", "refresh", ISSUER, "--config"]).arg(server.config_file()).args(arguments);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (is_done, text) = run(&["--withdraw", "old", "--reason", "leaked"]);
    assert!(is_done && text.contains("withdrawn: old"), "{text}");
    assert_eq!(server.try_user_token(&user_token(&old, json!({}))).await.0, 400);
    assert_eq!(server.try_user_token(&user_token(&new, json!({}))).await.0, 200);
    let (is_done, text) = run(&["--restore", "old", "--reason", "not leaked"]);
    assert!(is_done, "{text}");
    assert_eq!(server.try_user_token(&user_token(&old, json!({}))).await.0, 200);
    let (is_done, text) = run(&["--withdraw", "old"]);
    assert!(!is_done && text.contains("--reason"), "{text}");
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap();
    let (_, metrics) = read_response(metrics).await;
    let metrics = metrics.as_str().unwrap();
    let line = format!("errand_issuer_keys_age_seconds{{issuer=\"{ISSUER}\"}} ");
    assert!(metrics.lines().any(|found| found.starts_with(&line)), "{metrics}");
    server.stop().await;
}

macro_rules! with_store {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::support::TestStore::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::support::TestStore::postgres().await).await;
            })*
        }
    };
}

with_store!(
    leaked_key_is_not_used_by_any_replica,
    refresh_of_keys_is_checked,
    unusable_keys_do_not_disable_others,
    command_line_refreshes_keys,
);
