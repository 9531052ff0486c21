//! The keys of issuers: asked for once, kept, refreshed, and never mistaken for a "no" when they can't be had.

use errand::{
    domain::{
        jose::jwk::JwsAlgorithm::{ES256, EdDSA},
        registry::issuer::TrustedIssuer,
    },
    ports::TrustedKeys,
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
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b, c]) = (provider.entry(), ["a", "b", "c"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.request_count(), 1, "kept");

    provider.publish_keys(&[a.public(), b.public()]);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None, "an unknown name makes us ask");
    assert_eq!(provider.request_count(), 2);

    for _ in 0..20 {
        assert_eq!(verifying.verify(&entry, &c.token()).await, Some(FailureKind::UnknownKey));
    }
    assert_eq!(provider.request_count(), 2, "at most once a minute");
    verifying.clock.advance(MINUTE - 1);
    assert_eq!(verifying.verify(&entry, &c.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(provider.request_count(), 2);
    verifying.clock.advance(1);
    assert_eq!(verifying.verify(&entry, &c.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(provider.request_count(), 3);

    // What is wrong with the token itself is no reason to ask.
    verifying.clock.advance(MINUTE);
    let forged = KeyPair::new(ES256).token(ES256, json!({"kid": "a"}));
    assert_eq!(verifying.verify(&entry, &forged).await, Some(FailureKind::Signature));
    let other = KeyPair::new(EdDSA);
    let other = other.token(EdDSA, json!({"kid": "zzz"}));
    assert_eq!(verifying.verify(&entry, &other).await, Some(FailureKind::Algorithm));
    assert_eq!(provider.request_count(), 3);

    // A key that is taken back is gone with the next answer.
    provider.publish_keys(&[b.public()]);
    verifying.clock.advance(10 * MINUTE);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(FailureKind::UnknownKey));
}

#[tokio::test]
async fn concurrent_fetches_are_coalesced() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.request_count(), 1);
    provider.publish_keys(&[a.public(), b.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &b.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.request_count(), 2);
}

/// Who hangs up while we ask does not take the answer with them, nor the one chance of that minute.
#[tokio::test]
async fn cancelled_caller_does_not_stop_fetch() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    provider.publish_keys(&[a.public(), b.public()]);
    provider.set_held(true);
    tokio::select! {
        verdict = async { verifying.verify(&entry, &b.token()).await } => panic!("answered though held back: {verdict:?}"),
        () = wait_until("the provider is asked", || provider.request_count() == 2) => {}
    }
    provider.set_held(false);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert_eq!(provider.request_count(), 2);
}

#[tokio::test]
async fn stale_keys_are_used_for_a_day() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(provider.request_count(), 1, "asked before anybody needs them");
    verifying.clock.advance(10 * MINUTE - 1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(provider.request_count(), 1, "not due yet");
    verifying.clock.advance(1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!((provider.request_count(), verifying.keys.unreachable_issuers()), (2, vec![]));

    provider.set_response("/jwks", CannedResponse::Status(500));
    verifying.clock.advance(DAY - 1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.keys.unreachable_issuers(), [provider.url.as_str()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None, "the old keys do");
    assert_eq!(
        verifying.verify(&entry, &b.token()).await,
        Some(FailureKind::Outage),
        "perhaps it is a new key: we don't know"
    );
    verifying.clock.advance(1);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(FailureKind::Outage), "too old");

    provider.publish_keys(&[b.public()]);
    verifying.clock.advance(5);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert!(verifying.keys.unreachable_issuers().is_empty());
}

#[tokio::test]
async fn failing_issuer_is_retried_after_delay() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, a) = (provider.entry(), NamedKey::new("a"));
    for _ in 0..5 {
        assert_eq!(verifying.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
        verifying.keys.refresh([&entry]).await;
    }
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Some(FailureKind::Outage)));
    assert_eq!(provider.request_count(), 1);
    let why = verifying.expect_unavailable(&entry, &a.token()).await;
    assert!(why.contains("not asked again yet") && why.contains("404"), "{why}");
    verifying.clock.advance(4);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
    assert_eq!(provider.request_count(), 1);
    verifying.clock.advance(1);
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.request_count(), 2);
}

/// An unknown name, then the issuer fails: what we hold is kept, and the unknown stays unknown.
#[tokio::test]
async fn unavailable_keys_are_not_a_rejection() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    provider.set_response("/jwks", CannedResponse::Status(503));
    for seconds in [0, 5, 30, 60] {
        verifying.clock.advance(seconds);
        assert_eq!(verifying.verify(&entry, &b.token()).await, Some(FailureKind::Outage));
        assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    }
    assert_eq!(provider.request_count(), 3);
}

#[tokio::test]
async fn changed_issuer_entry_discards_cached_keys() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let [a, b] = ["a", "b"].map(NamedKey::new);
    provider.publish_keys(&[a.public()]);
    provider.set_response("/other", CannedResponse::Json(json!({"keys": [b.public()]})));
    let entry = provider.entry();
    let moved = provider.entry_at("/other");
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(
        verifying.verify(&moved, &a.token()).await,
        Some(FailureKind::UnknownKey),
        "no key of the old place is left"
    );
    assert_eq!(verifying.verify(&moved, &b.token()).await, None);
    let widened = TrustedIssuer { algorithms: vec![EdDSA, ES256], ..moved.clone() };
    let eddsa = KeyPair::new(EdDSA);
    provider
        .set_response("/other", CannedResponse::Json(json!({"keys": [b.public(), eddsa.public(json!({"kid": "e"}))]})));
    assert_eq!(verifying.verify(&widened, &eddsa.token(EdDSA, json!({"kid": "e"}))).await, None);
    assert_eq!(provider.request_count(), 4, "asked anew, not for the sake of an unknown name");
    let narrowed = TrustedIssuer { allowed_networks: Vec::new(), ..moved.clone() };
    assert_eq!(verifying.verify(&narrowed, &b.token()).await, Some(FailureKind::Outage), "may not be reached any more");
    let renamed = TrustedIssuer { audiences: vec!["x".into()], ..moved.clone() };
    let before = provider.request_count();
    assert_eq!(verifying.verify(&moved, &b.token()).await, None);
    assert_eq!(verifying.verify(&renamed, &b.token()).await, None);
    assert_eq!(provider.request_count(), before + 1, "what has nothing to do with keys changes nothing");
}

#[tokio::test]
async fn removed_issuer_is_evicted() {
    let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, a) = (provider.entry(), NamedKey::new("a"));
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(FailureKind::Outage));
    assert_eq!(verifying.keys.unreachable_issuers(), [provider.url.as_str()]);
    let disabled = TrustedIssuer { disabled: true, ..entry.clone() };
    verifying.keys.refresh([&disabled]).await;
    assert!(verifying.keys.unreachable_issuers().is_empty());
    assert_eq!(provider.request_count(), 1);
}

#[tokio::test]
async fn inline_keys_are_not_fetched() {
    let verifying = VerifierFixture::new();
    let [a, b] = ["a", "b"].map(NamedKey::new);
    let entry = issuer("https://login.example.com", json!({"inline": {"keys": [a.public()]}}), &[]);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(verifying.verify(&entry, &b.token()).await, Some(FailureKind::UnknownKey));
    assert!(verifying.keys.unreachable_issuers().is_empty());
}

const OIDC: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn metadata_discovers_jwks_uri() {
    let a = NamedKey::new("a");
    for (path, metadata_at, asked) in [
        ("", OIDC.to_owned(), vec![OIDC.to_owned(), "/jwks".into()]),
        ("", OAUTH.to_owned(), vec![OIDC.to_owned(), OAUTH.into(), "/jwks".into()]),
        ("/t/1", format!("/t/1{OIDC}"), vec![format!("/t/1{OIDC}"), "/jwks".into()]),
        ("/t/1", format!("{OAUTH}/t/1"), vec![format!("/t/1{OIDC}"), format!("{OAUTH}/t/1"), "/jwks".into()]),
        ("/t/", format!("{OAUTH}/t"), vec![format!("/t{OIDC}"), format!("{OAUTH}/t"), "/jwks".into()]),
    ] {
        let (provider, verifying) = (IssuerServer::start().await, VerifierFixture::new());
        let url = format!("{}{path}", provider.url);
        provider.publish_keys(&[a.public()]);
        let jwks_uri = format!("{}/jwks", provider.url);
        provider.set_response(&metadata_at, CannedResponse::Json(json!({"issuer": url, "jwks_uri": jwks_uri})));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.1/32"]);
        assert_eq!(verifying.verify(&entry, &a.token()).await, None, "{metadata_at}");
        assert_eq!(provider.requested_paths(), asked);
    }
}

/// Some sites answer every path with their front page.
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
        (json!({"issuer": url}), "no `jwks_uri`"),
        (json!({"issuer": url, "jwks_uri": "/jwks"}), "no `jwks_uri`"),
        (json!({"issuer": url, "jwks_uri": "http://10.0.0.7/jwks"}), "is not fetched"),
        (json!({"issuer": url, "jwks_uri": "http://login.example.com/jwks"}), "is not fetched"),
        (json!({"issuer": url, "jwks_uri": "file:///etc/passwd"}), "is not fetched"),
        (json!({"issuer": url, "jwks_uri": "https://169.254.169.254/latest/meta-data"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://0xa9fea9fe/"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://[::ffff:127.0.0.1]/"}), "special address"),
        (json!({"issuer": url, "jwks_uri": "https://user:s3cret@login.example.com/"}), "is not fetched"),
    ] {
        provider.set_response(OIDC, CannedResponse::Json(metadata.clone()));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.0/8"]);
        let outage = VerifierFixture::new().expect_unavailable(&entry, &a.token()).await;
        assert!(outage.contains(why) && !outage.contains("s3cret"), "{metadata}: {outage}");
    }
    assert!(!provider.requested_paths().contains(&"/jwks".into()));
}
