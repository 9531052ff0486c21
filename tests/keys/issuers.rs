//! Issuer keys: fetched once, cached and refreshed. Keys that can't be fetched are an outage and
//! not a rejection.

use errand::{
    domain::{
        jose::jwk::JwsAlgorithm::{ES256, EdDSA},
        registry::issuer::TrustedIssuer,
    },
    ports::{FetchCaller, TrustedKeys},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{CannedResponse, FailureKind, IssuerServer, KeyPair, VerifierFixture, issuer, wait_until};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

struct NamedKey {
    kid: &'static str,
    party: KeyPair,
}

impl NamedKey {
    fn new(kid: &'static str) -> Self {
        Self { kid, party: KeyPair::new(ES256) }
    }

    fn public(&self) -> Value {
        self.party.public(json!({"kid": self.kid}))
    }

    fn token(&self) -> String {
        self.party.token(ES256, json!({"kid": self.kid}))
    }
}

#[tokio::test]
async fn rotation_is_detected_and_unknown_kid_fetches_are_limited() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b, c]) = (provider.entry(), ["a", "b", "c"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.request_count(), 1, "cached");

    provider.publish_keys(&[a.public(), b.public()]);
    assert_eq!(verifier.verify(&entry, &b.token()).await, None, "an unknown `kid` causes a fetch");
    assert_eq!(provider.request_count(), 2);

    for _ in 0..20 {
        assert_eq!(verifier.verify(&entry, &c.token()).await, Some(FailureKind::Outage), "not known to be missing");
    }
    assert_eq!(provider.request_count(), 2, "at most once a minute");
    verifier.clock.advance(MINUTE - 1);
    assert_eq!(verifier.verify(&entry, &c.token()).await, Some(FailureKind::Outage));
    assert_eq!(provider.request_count(), 2);
    verifier.clock.advance(1);
    assert_eq!(verifier.verify(&entry, &c.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(provider.request_count(), 3);

    // An invalid token causes no fetch.
    verifier.clock.advance(MINUTE);
    let forged = KeyPair::new(ES256).token(ES256, json!({"kid": "a"}));
    assert_eq!(verifier.verify(&entry, &forged).await, Some(FailureKind::Signature));
    let other = KeyPair::new(EdDSA);
    let other = other.token(EdDSA, json!({"kid": "zzz"}));
    assert_eq!(verifier.verify(&entry, &other).await, Some(FailureKind::Algorithm));
    assert_eq!(provider.request_count(), 3);

    // A withdrawn key disappears with the next fetch.
    provider.publish_keys(&[b.public()]);
    verifier.clock.advance(10 * MINUTE);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::UnknownKey));
}

/// A forged token of an anonymous caller must not make the tokens of a rotated key be rejected:
/// neither as invalid, nor for longer than the minimum interval.
#[tokio::test]
async fn anonymous_tokens_do_not_use_up_fetches_of_clients() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b, c, d]) = (provider.entry(), ["a", "b", "c", "d"].map(NamedKey::new));
    let (planner, reader) = ("planner".parse().unwrap(), "reader".parse().unwrap());
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(verifier.verify(&entry, &d.token()).await, Some(FailureKind::UnknownKey), "fetched, and not there");
    assert_eq!(provider.request_count(), 2);

    provider.publish_keys(&[a.public(), b.public()]);
    let by = FetchCaller::Client;
    assert_eq!(verifier.verify_for(by(&planner), &entry, &b.token()).await, Some(FailureKind::Outage));
    assert_eq!(provider.request_count(), 2, "every caller waits for the minimum interval");
    let outage = verifier.expect_unavailable(&entry, &b.token()).await;
    assert!(outage.contains("the key is unknown") && outage.ends_with("retry after 60 s"), "{outage}");
    verifier.clock.advance(5);
    assert_eq!(verifier.verify(&entry, &b.token()).await, Some(FailureKind::Outage), "anonymous: once a minute");
    assert_eq!(verifier.verify_for(by(&planner), &entry, &b.token()).await, None);
    assert_eq!(verifier.verify(&entry, &b.token()).await, None, "fetched for another caller");
    assert_eq!(provider.request_count(), 3);

    // A client that used up its own limit does not stop another one.
    verifier.clock.advance(5);
    assert_eq!(verifier.verify_for(by(&planner), &entry, &c.token()).await, Some(FailureKind::Outage));
    assert_eq!(verifier.verify_for(by(&reader), &entry, &c.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(provider.request_count(), 4);
    verifier.clock.advance(55);
    assert_eq!(verifier.verify_for(by(&planner), &entry, &c.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(provider.request_count(), 5);
}

#[tokio::test]
async fn concurrent_fetches_are_coalesced() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifier.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.request_count(), 1);
    provider.publish_keys(&[a.public(), b.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifier.verify(&entry, &b.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.request_count(), 2);
}

/// A caller that disconnects during a fetch cancels neither the fetch nor the one attempt of that
/// minute.
#[tokio::test]
async fn cancelled_caller_does_not_stop_fetch() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    provider.publish_keys(&[a.public(), b.public()]);
    provider.set_held(true);
    tokio::select! {
        verdict = async { verifier.verify(&entry, &b.token()).await } => panic!("response despite the hold: {verdict:?}"),
        () = wait_until("the provider receives a request", || provider.request_count() == 2) => {}
    }
    provider.set_held(false);
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
    assert_eq!(provider.request_count(), 2);
}

#[tokio::test]
async fn stale_keys_are_used_for_a_day() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(provider.request_count(), 1, "fetched before the first use");
    verifier.clock.advance(10 * MINUTE - 1);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(provider.request_count(), 1, "not due yet");
    verifier.clock.advance(1);
    verifier.keys.refresh([&entry]).await;
    assert_eq!((provider.request_count(), verifier.keys.unreachable_issuers()), (2, vec![]));

    provider.set_response("/jwks", CannedResponse::Status(500));
    verifier.clock.advance(DAY - 1);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(verifier.keys.unreachable_issuers(), [provider.url.as_str()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None, "the cached keys still verify");
    assert_eq!(verifier.verify(&entry, &b.token()).await, Some(FailureKind::Outage), "the key may be a new one");
    verifier.clock.advance(1);
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::Outage), "too old");

    provider.publish_keys(&[b.public()]);
    verifier.clock.advance(5);
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
    assert!(verifier.keys.unreachable_issuers().is_empty());
}

#[tokio::test]
async fn failing_issuer_is_retried_after_delay() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, a) = (provider.entry(), NamedKey::new("a"));
    for _ in 0..5 {
        assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
        verifier.keys.refresh([&entry]).await;
    }
    let verdicts = join_all((0..50).map(|_| async { verifier.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Some(FailureKind::Outage)));
    assert_eq!(provider.request_count(), 1);
    let why = verifier.expect_unavailable(&entry, &a.token()).await;
    assert!(why.contains("not retried yet") && why.contains("404"), "{why}");
    verifier.clock.advance(4);
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
    assert_eq!(provider.request_count(), 1);
    verifier.clock.advance(1);
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.request_count(), 2);
}

/// After an unknown `kid` the issuer fails: cached keys still verify, and the unknown key stays an
/// outage.
#[tokio::test]
async fn unavailable_keys_are_not_a_rejection() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    provider.set_response("/jwks", CannedResponse::Status(503));
    for seconds in [0, 5, 30, 60] {
        verifier.clock.advance(seconds);
        assert_eq!(verifier.verify(&entry, &b.token()).await, Some(FailureKind::Outage));
        assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    }
    assert_eq!(provider.request_count(), 3);
}

#[tokio::test]
async fn changed_issuer_entry_discards_cached_keys() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let [a, b] = ["a", "b"].map(NamedKey::new);
    provider.publish_keys(&[a.public()]);
    provider.set_response("/other", CannedResponse::Json(json!({"keys": [b.public()]})));
    let entry = provider.entry();
    let moved = provider.entry_at("/other");
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(
        verifier.verify(&moved, &a.token()).await,
        Some(FailureKind::UnknownKey),
        "no key of the previous source is used"
    );
    assert_eq!(verifier.verify(&moved, &b.token()).await, None);
    let widened = TrustedIssuer { algorithms: vec![EdDSA, ES256], ..moved.clone() };
    let eddsa = KeyPair::new(EdDSA);
    provider
        .set_response("/other", CannedResponse::Json(json!({"keys": [b.public(), eddsa.public(json!({"kid": "e"}))]})));
    assert_eq!(verifier.verify(&widened, &eddsa.token(EdDSA, json!({"kid": "e"}))).await, None);
    assert_eq!(provider.request_count(), 4, "fetched because of the changed entry, not because of an unknown `kid`");
    let narrowed = TrustedIssuer { allowed_networks: Vec::new(), ..moved.clone() };
    assert_eq!(
        verifier.verify(&narrowed, &b.token()).await,
        Some(FailureKind::Outage),
        "no longer an allowed destination"
    );
    let renamed = TrustedIssuer { audiences: vec!["x".into()], ..moved.clone() };
    let before = provider.request_count();
    assert_eq!(verifier.verify(&moved, &b.token()).await, None);
    assert_eq!(verifier.verify(&renamed, &b.token()).await, None);
    assert_eq!(provider.request_count(), before + 1, "a change unrelated to keys keeps the cache");
}

#[tokio::test]
async fn removed_issuer_is_evicted() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, a) = (provider.entry(), NamedKey::new("a"));
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
    assert_eq!(verifier.keys.unreachable_issuers(), [provider.url.as_str()]);
    let disabled = TrustedIssuer { disabled: true, ..entry.clone() };
    verifier.keys.refresh([&disabled]).await;
    assert!(verifier.keys.unreachable_issuers().is_empty());
    assert_eq!(provider.request_count(), 1);
}

#[tokio::test]
async fn inline_keys_are_not_fetched() {
    let verifier = VerifierFixture::new();
    let [a, b] = ["a", "b"].map(NamedKey::new);
    let entry = issuer("https://login.example.com", json!({"inline": {"keys": [a.public()]}}), &[]);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    assert_eq!(verifier.verify(&entry, &b.token()).await, Some(FailureKind::UnknownKey));
    assert!(verifier.keys.unreachable_issuers().is_empty());
}

const OIDC: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn metadata_discovers_jwks_uri() {
    let a = NamedKey::new("a");
    for (path, metadata_at, requested) in [
        ("", OIDC.to_owned(), vec![OIDC.to_owned(), "/jwks".into()]),
        ("", OAUTH.to_owned(), vec![OIDC.to_owned(), OAUTH.into(), "/jwks".into()]),
        ("/t/1", format!("/t/1{OIDC}"), vec![format!("/t/1{OIDC}"), "/jwks".into()]),
        ("/t/1", format!("{OAUTH}/t/1"), vec![format!("/t/1{OIDC}"), format!("{OAUTH}/t/1"), "/jwks".into()]),
        ("/t/", format!("{OAUTH}/t"), vec![format!("/t{OIDC}"), format!("{OAUTH}/t"), "/jwks".into()]),
    ] {
        let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
        let url = format!("{}{path}", provider.url);
        provider.publish_keys(&[a.public()]);
        let jwks_uri = format!("{}/jwks", provider.url);
        provider.set_response(&metadata_at, CannedResponse::Json(json!({"issuer": url, "jwks_uri": jwks_uri})));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.1/32"]);
        assert_eq!(verifier.verify(&entry, &a.token()).await, None, "{metadata_at}");
        assert_eq!(provider.requested_paths(), requested);
    }
}

/// Some sites serve their front page at every path.
#[tokio::test]
async fn html_page_is_not_accepted_as_metadata() {
    let (a, provider) = (NamedKey::new("a"), IssuerServer::start().await);
    provider.publish_keys(&[a.public()]);
    provider.set_response(OIDC, CannedResponse::Raw("identity", "<!doctype html>".into()));
    let metadata = json!({"issuer": provider.url, "jwks_uri": format!("{}/jwks", provider.url)});
    provider.set_response(OAUTH, CannedResponse::Json(metadata));
    let entry = issuer(&provider.url, json!("discovery"), &["127.0.0.0/8"]);
    assert_eq!(VerifierFixture::new().verify(&entry, &a.token()).await, None);
}

#[tokio::test]
async fn misleading_metadata_is_rejected() {
    let a = NamedKey::new("a");
    let provider = IssuerServer::start().await;
    provider.publish_keys(&[a.public()]);
    let (url, jwks) = (provider.url.clone(), format!("{}/jwks", provider.url));
    for (metadata, why) in [
        (json!({"issuer": format!("{url}/"), "jwks_uri": jwks}), "another issuer"),
        (json!({"issuer": "https://login.example.com", "jwks_uri": jwks}), "another issuer"),
        (json!({"issuer": [url], "jwks_uri": jwks}), "another issuer"),
        (json!({"jwks_uri": jwks}), "another issuer"),
        (json!([]), "another issuer"),
        (json!({"issuer": url}), "does not contain a valid `jwks_uri`"),
        (json!({"issuer": url, "jwks_uri": "/jwks"}), "does not contain a valid `jwks_uri`"),
        (json!({"issuer": url, "jwks_uri": "http://10.0.0.7/jwks"}), "is not allowed"),
        (json!({"issuer": url, "jwks_uri": "http://login.example.com/jwks"}), "is not allowed"),
        (json!({"issuer": url, "jwks_uri": "file:///etc/passwd"}), "is not allowed"),
        (json!({"issuer": url, "jwks_uri": "https://169.254.169.254/latest/meta-data"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://0xa9fea9fe/"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://[::ffff:127.0.0.1]/"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://user:s3cret@login.example.com/"}), "is not allowed"),
    ] {
        provider.set_response(OIDC, CannedResponse::Json(metadata.clone()));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.0/8"]);
        let outage = VerifierFixture::new().expect_unavailable(&entry, &a.token()).await;
        assert!(outage.contains(why) && !outage.contains("s3cret"), "{metadata}: {outage}");
    }
    assert!(!provider.requested_paths().contains(&"/jwks".into()));
}
