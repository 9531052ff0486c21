//! Issuer keys: fetched once, cached and refreshed. Keys that can't be fetched are an outage and
//! not a rejection.

use std::time::Duration;

use errand::{
    domain::{
        jose::jwk::JwsAlgorithm::{ES256, EdDSA},
        registry::issuer::{IssuerKeyId, TrustedIssuer},
        time::Lifetime,
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
        (json!({"issuer": [url], "jwks_uri": jwks}), "is not metadata"),
        (json!({"jwks_uri": jwks}), "is not metadata"),
        (json!([]), "is not metadata"),
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

/// The cause of a failed discovery is in the log, with both values.
#[tokio::test]
async fn failed_discovery_says_what_is_wrong() {
    let a = NamedKey::new("a");
    let provider = IssuerServer::start().await;
    let (url, jwks) = (provider.url.clone(), format!("{}/jwks", provider.url));
    let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
    for (reply, why) in [
        (CannedResponse::Redirect("/elsewhere?secret=s3cret"), vec![format!("redirects to `{url}/elsewhere`")]),
        (
            CannedResponse::Redirect("https://a:s3cret@login.example.com/"),
            vec!["redirects to `https://login.example.com/`".to_owned()],
        ),
        (CannedResponse::Status(404), vec![format!("`{url}{OIDC}`"), "404".to_owned()]),
        (CannedResponse::Status(500), vec![format!("`{url}{OIDC}`"), "500".to_owned()]),
        (CannedResponse::Raw("identity", "<html>".into()), vec!["not strict JSON".to_owned()]),
        (
            CannedResponse::Json(json!({"error": "not found"})),
            vec![format!("the document at `{url}{OIDC}` is not metadata")],
        ),
        (CannedResponse::Json(json!({"keys": []})), vec!["is not metadata".to_owned()]),
        (
            CannedResponse::Json(json!({"issuer": format!("{url}/"), "jwks_uri": jwks})),
            vec![format!("`issuer` is `{url}`"), format!("has `{url}/`"), "trailing slash".to_owned()],
        ),
        (
            CannedResponse::Json(json!({"issuer": template, "jwks_uri": jwks})),
            vec![format!("has `{template}`"), "template".to_owned()],
        ),
        (
            CannedResponse::Json(json!({"issuer": "https://login.example.com\u{202e}", "jwks_uri": jwks})),
            vec!["has `https://login.example.com\\u{202e}`".to_owned(), "`jwks_uri`".to_owned()],
        ),
    ] {
        let shown = format!("{reply:?}");
        provider.set_response(OIDC, reply);
        let entry = issuer(&url, json!("discovery"), &["127.0.0.0/8"]);
        let outage = VerifierFixture::new().expect_unavailable(&entry, &a.token()).await;
        assert!(why.iter().all(|part| outage.contains(part)) && !outage.contains("s3cret"), "{shown}: {outage}");
    }
}

/// The ages at which keys are fetched again and discarded are the issuer's.
#[tokio::test]
async fn key_ages_are_configurable() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let [a, b] = ["a", "b"].map(NamedKey::new);
    provider.publish_keys(&[a.public()]);
    let entry =
        TrustedIssuer { key_refresh: Lifetime::seconds(30), key_max_age: Lifetime::seconds(90), ..provider.entry() };
    verifier.keys.refresh([&entry]).await;
    assert_eq!(verifier.keys.issuer_key_ages(), [(provider.url.clone(), Duration::ZERO)]);
    verifier.clock.advance(29);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(provider.request_count(), 1);
    assert_eq!(verifier.keys.issuer_key_ages(), [(provider.url.clone(), Duration::from_secs(29))]);
    verifier.clock.advance(1);
    provider.publish_keys(&[b.public()]);
    verifier.keys.refresh([&entry]).await;
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::UnknownKey), "withdrawn by the provider");
    provider.set_response("/jwks", CannedResponse::Status(500));
    verifier.clock.advance(89);
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
    verifier.clock.advance(1);
    assert_eq!(verifier.verify(&entry, &b.token()).await, Some(FailureKind::Outage));
}

/// Discarded keys are not used again, although the document of a fetch that was under way would be.
#[tokio::test]
async fn discarded_keys_are_fetched_again() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    provider.publish_keys(&[a.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    provider.publish_keys(&[b.public()]);
    assert_eq!(verifier.verify(&entry, &a.token()).await, None, "from the cache");
    verifier.keys.discard_issuer_keys(&entry.issuer);
    assert!(verifier.keys.issuer_key_ages().is_empty());
    assert_eq!(verifier.verify(&entry, &a.token()).await, Some(FailureKind::UnknownKey));
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
    // The document is on its way while the keys are discarded.
    verifier.keys.discard_issuer_keys(&entry.issuer);
    provider.set_held(true);
    let (before, token) = (provider.request_count(), b.token());
    let verdict = verifier.verify(&entry, &token);
    tokio::pin!(verdict);
    tokio::select! {
        verdict = &mut verdict => panic!("response despite the hold: {verdict:?}"),
        () = wait_until("the provider receives a request", || provider.request_count() > before) => {}
    }
    verifier.keys.discard_issuer_keys(&entry.issuer);
    provider.set_held(false);
    assert_eq!(verdict.await, Some(FailureKind::Outage));
    assert_eq!(verifier.verify(&entry, &b.token()).await, None);
}

#[tokio::test]
async fn withdrawn_keys_are_not_used() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(NamedKey::new));
    let inline = issuer("https://login.example.com", json!({"inline": {"keys": [a.public(), b.public()]}}), &[]);
    provider.publish_keys(&[a.public(), b.public()]);
    let key = |issuer: &TrustedIssuer| IssuerKeyId { issuer: issuer.issuer.clone(), kid: "a".into() };
    verifier.keys.set_withdrawn_keys([key(&entry), key(&inline)].into());
    for entry in [&entry, &inline] {
        assert_eq!(verifier.verify(entry, &a.token()).await, Some(FailureKind::Withdrawn));
        assert_eq!(verifier.verify(entry, &b.token()).await, None);
        let nameless = |key: &NamedKey| key.party.token(ES256, json!({}));
        assert_eq!(verifier.verify(entry, &nameless(&a)).await, Some(FailureKind::Signature), "tried with the others");
        assert_eq!(verifier.verify(entry, &nameless(&b)).await, None);
    }
    let renamed = TrustedIssuer { issuer: "https://other.example.com".parse().unwrap(), ..inline };
    assert_eq!(verifier.verify(&renamed, &a.token()).await, None, "the key of another issuer");
    verifier.keys.set_withdrawn_keys([].into());
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
}

/// Plain http is used where the entry allows it, within its networks alone.
#[tokio::test]
async fn http_needs_consent_and_a_network() {
    let a = NamedKey::new("a");
    let entry = |url: &str, allow_http, networks: &[&str]| TrustedIssuer {
        allow_http,
        ..issuer("https://login.example.com", json!({ "jwks_uri": url }), networks)
    };
    for (url, allow_http, networks, why) in [
        ("http://10.255.255.1:1/jwks", false, &["10.0.0.0/8"][..], "is not allowed"),
        ("http://10.255.255.1:1/jwks", true, &["192.168.0.0/16"], "where http is not allowed"),
        ("http://10.255.255.1:1/jwks", true, &[], "where http is not allowed"),
        ("http://8.8.8.8:1/jwks", true, &["10.0.0.0/8"], "where http is not allowed"),
        ("http://169.254.169.254/latest/meta-data", true, &["10.0.0.0/8"], "where http is not allowed"),
    ] {
        let outage = VerifierFixture::new().expect_unavailable(&entry(url, allow_http, networks), &a.token()).await;
        assert!(outage.contains(why), "{url} {networks:?}: {outage}");
    }
}

/// The lines about keys that are not used name the key and the reason.
#[tokio::test]
async fn unusable_keys_are_left_out() {
    let (provider, verifier) = (IssuerServer::start().await, VerifierFixture::new());
    let (entry, a) = (provider.entry(), NamedKey::new("a"));
    let odd = [
        json!({"kty": "oct", "kid": "s", "k": "AAAA"}),
        json!({"kty": "EC", "crv": "P-256", "kid": "p", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "EC", "crv": "P-256", "kid": "n", "x": 7, "y": "AAAA"}),
        json!({"kty": "RSA", "kid": "e", "use": "enc"}),
        json!("no key"),
    ];
    provider.publish_keys(&[&odd[..], &[a.public()]].concat());
    assert_eq!(verifier.verify(&entry, &a.token()).await, None);
    let fresh = VerifierFixture::new();
    provider.publish_keys(&odd);
    let outage = fresh.expect_unavailable(&entry, &a.token()).await;
    assert!(outage.contains("no key in the set can be used") && outage.contains("not on the curve"), "{outage}");
}
