//! The keys of issuers: asked for once, kept, refreshed, and never mistaken for a "no" when they can't be had.

use errand::{
    domain::{
        issuer::TrustedIssuer,
        jwk::JwsAlgorithm::{ES256, EdDSA},
    },
    ports::TrustedKeys,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Fault, Party, Provider, Reply, Verifying, issuer, until};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

struct Named {
    kid: &'static str,
    party: Party,
}

impl Named {
    fn new(kid: &'static str) -> Self {
        Self { kid, party: Party::new(ES256) }
    }

    fn public(&self) -> Value {
        self.party.public(json!({"kid": self.kid}))
    }

    fn token(&self) -> String {
        self.party.token(ES256, json!({"kid": self.kid}))
    }
}

#[tokio::test]
async fn a_rotation_is_noticed_and_strangers_can_not_make_us_ask() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, [a, b, c]) = (provider.entry(), ["a", "b", "c"].map(Named::new));
    provider.publishes(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.hits(), 1, "kept");

    provider.publishes(&[a.public(), b.public()]);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None, "an unknown name makes us ask");
    assert_eq!(provider.hits(), 2);

    for _ in 0..20 {
        assert_eq!(verifying.verify(&entry, &c.token()).await, Some(Fault::UnknownKey));
    }
    assert_eq!(provider.hits(), 2, "at most once a minute");
    verifying.clock.advance(MINUTE - 1);
    assert_eq!(verifying.verify(&entry, &c.token()).await, Some(Fault::UnknownKey));
    assert_eq!(provider.hits(), 2);
    verifying.clock.advance(1);
    assert_eq!(verifying.verify(&entry, &c.token()).await, Some(Fault::UnknownKey));
    assert_eq!(provider.hits(), 3);

    // What is wrong with the token itself is no reason to ask.
    verifying.clock.advance(MINUTE);
    let forged = Party::new(ES256).token(ES256, json!({"kid": "a"}));
    assert_eq!(verifying.verify(&entry, &forged).await, Some(Fault::Signature));
    let other = Party::new(EdDSA);
    let other = other.token(EdDSA, json!({"kid": "zzz"}));
    assert_eq!(verifying.verify(&entry, &other).await, Some(Fault::Algorithm));
    assert_eq!(provider.hits(), 3);

    // A key that is taken back is gone with the next answer.
    provider.publishes(&[b.public()]);
    verifying.clock.advance(10 * MINUTE);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(Fault::UnknownKey));
}

#[tokio::test]
async fn many_ask_once() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(Named::new));
    provider.publishes(&[a.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.hits(), 1);
    provider.publishes(&[a.public(), b.public()]);
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &b.token()).await })).await;
    assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    assert_eq!(provider.hits(), 2);
}

/// Who hangs up while we ask does not take the answer with them, nor the one chance of that minute.
#[tokio::test]
async fn who_hangs_up_harms_nobody() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(Named::new));
    provider.publishes(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    provider.publishes(&[a.public(), b.public()]);
    provider.hold(true);
    tokio::select! {
        verdict = async { verifying.verify(&entry, &b.token()).await } => panic!("answered though held back: {verdict:?}"),
        () = until("the provider is asked", || provider.hits() == 2) => {}
    }
    provider.hold(false);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert_eq!(provider.hits(), 2);
}

#[tokio::test]
async fn old_keys_serve_a_day() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(Named::new));
    provider.publishes(&[a.public()]);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(provider.hits(), 1, "asked before anybody needs them");
    verifying.clock.advance(10 * MINUTE - 1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(provider.hits(), 1, "not due yet");
    verifying.clock.advance(1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!((provider.hits(), verifying.keys.unreachable()), (2, vec![]));

    provider.answers("/jwks", Reply::Status(500));
    verifying.clock.advance(DAY - 1);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.keys.unreachable(), [provider.url.as_str()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None, "the old keys do");
    assert_eq!(
        verifying.verify(&entry, &b.token()).await,
        Some(Fault::Outage),
        "perhaps it is a new key: we don't know"
    );
    verifying.clock.advance(1);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(Fault::Outage), "too old");

    provider.publishes(&[b.public()]);
    verifying.clock.advance(5);
    assert_eq!(verifying.verify(&entry, &b.token()).await, None);
    assert!(verifying.keys.unreachable().is_empty());
}

#[tokio::test]
async fn an_issuer_in_trouble_is_left_alone() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, a) = (provider.entry(), Named::new("a"));
    for _ in 0..5 {
        assert_eq!(verifying.verify(&entry, &a.token()).await, Some(Fault::Outage));
        verifying.keys.refresh([&entry]).await;
    }
    let verdicts = join_all((0..50).map(|_| async { verifying.verify(&entry, &a.token()).await })).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Some(Fault::Outage)));
    assert_eq!(provider.hits(), 1);
    let why = verifying.outage(&entry, &a.token()).await;
    assert!(why.contains("not asked again yet") && why.contains("404"), "{why}");
    verifying.clock.advance(4);
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(Fault::Outage));
    assert_eq!(provider.hits(), 1);
    verifying.clock.advance(1);
    provider.publishes(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(provider.hits(), 2);
}

/// An unknown name, then the issuer fails: what we hold is kept, and the unknown stays unknown.
#[tokio::test]
async fn i_do_not_know_is_no_refusal() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, [a, b]) = (provider.entry(), ["a", "b"].map(Named::new));
    provider.publishes(&[a.public()]);
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    provider.answers("/jwks", Reply::Status(503));
    for seconds in [0, 5, 30, 60] {
        verifying.clock.advance(seconds);
        assert_eq!(verifying.verify(&entry, &b.token()).await, Some(Fault::Outage));
        assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    }
    assert_eq!(provider.hits(), 3);
}

#[tokio::test]
async fn a_changed_entry_starts_anew() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let [a, b] = ["a", "b"].map(Named::new);
    provider.publishes(&[a.public()]);
    provider.answers("/other", Reply::Json(json!({"keys": [b.public()]})));
    let entry = provider.entry();
    let moved = provider.entry_at("/other");
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(verifying.verify(&moved, &a.token()).await, Some(Fault::UnknownKey), "no key of the old place is left");
    assert_eq!(verifying.verify(&moved, &b.token()).await, None);
    let widened = TrustedIssuer { algorithms: vec![EdDSA, ES256], ..moved.clone() };
    let eddsa = Party::new(EdDSA);
    provider.answers("/other", Reply::Json(json!({"keys": [b.public(), eddsa.public(json!({"kid": "e"}))]})));
    assert_eq!(verifying.verify(&widened, &eddsa.token(EdDSA, json!({"kid": "e"}))).await, None);
    assert_eq!(provider.hits(), 4, "asked anew, not for the sake of an unknown name");
    let narrowed = TrustedIssuer { allowed_networks: Vec::new(), ..moved.clone() };
    assert_eq!(verifying.verify(&narrowed, &b.token()).await, Some(Fault::Outage), "may not be reached any more");
    let renamed = TrustedIssuer { audiences: vec!["x".into()], ..moved.clone() };
    let before = provider.hits();
    assert_eq!(verifying.verify(&moved, &b.token()).await, None);
    assert_eq!(verifying.verify(&renamed, &b.token()).await, None);
    assert_eq!(provider.hits(), before + 1, "what has nothing to do with keys changes nothing");
}

#[tokio::test]
async fn who_is_not_trusted_any_more_is_forgotten() {
    let (provider, verifying) = (Provider::start().await, Verifying::new());
    let (entry, a) = (provider.entry(), Named::new("a"));
    assert_eq!(verifying.verify(&entry, &a.token()).await, Some(Fault::Outage));
    assert_eq!(verifying.keys.unreachable(), [provider.url.as_str()]);
    let disabled = TrustedIssuer { disabled: true, ..entry.clone() };
    verifying.keys.refresh([&disabled]).await;
    assert!(verifying.keys.unreachable().is_empty());
    assert_eq!(provider.hits(), 1);
}

#[tokio::test]
async fn keys_in_the_entry_are_asked_for_nowhere() {
    let verifying = Verifying::new();
    let [a, b] = ["a", "b"].map(Named::new);
    let entry = issuer("https://login.example.com", json!({"inline": {"keys": [a.public()]}}), &[]);
    verifying.keys.refresh([&entry]).await;
    assert_eq!(verifying.verify(&entry, &a.token()).await, None);
    assert_eq!(verifying.verify(&entry, &b.token()).await, Some(Fault::UnknownKey));
    assert!(verifying.keys.unreachable().is_empty());
}

const OIDC: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn metadata_leads_to_the_keys() {
    let a = Named::new("a");
    for (path, metadata_at, asked) in [
        ("", OIDC.to_owned(), vec![OIDC.to_owned(), "/jwks".into()]),
        ("", OAUTH.to_owned(), vec![OIDC.to_owned(), OAUTH.into(), "/jwks".into()]),
        ("/t/1", format!("/t/1{OIDC}"), vec![format!("/t/1{OIDC}"), "/jwks".into()]),
        ("/t/1", format!("{OAUTH}/t/1"), vec![format!("/t/1{OIDC}"), format!("{OAUTH}/t/1"), "/jwks".into()]),
        ("/t/", format!("{OAUTH}/t"), vec![format!("/t{OIDC}"), format!("{OAUTH}/t"), "/jwks".into()]),
    ] {
        let (provider, verifying) = (Provider::start().await, Verifying::new());
        let url = format!("{}{path}", provider.url);
        provider.publishes(&[a.public()]);
        let jwks_uri = format!("{}/jwks", provider.url);
        provider.answers(&metadata_at, Reply::Json(json!({"issuer": url, "jwks_uri": jwks_uri})));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.1/32"]);
        assert_eq!(verifying.verify(&entry, &a.token()).await, None, "{metadata_at}");
        assert_eq!(provider.asked(), asked);
    }
}

/// Some sites answer every path with their front page.
#[tokio::test]
async fn a_page_is_no_metadata() {
    let (a, provider) = (Named::new("a"), Provider::start().await);
    provider.publishes(&[a.public()]);
    provider.answers(OIDC, Reply::Raw("identity", "<!doctype html>".into()));
    let metadata = json!({"issuer": provider.url, "jwks_uri": format!("{}/jwks", provider.url)});
    provider.answers(OAUTH, Reply::Json(metadata));
    let entry = issuer(&provider.url, json!("discovery"), &["127.0.0.0/8"]);
    assert_eq!(Verifying::new().verify(&entry, &a.token()).await, None);
}

#[tokio::test]
async fn metadata_that_leads_astray() {
    let a = Named::new("a");
    let provider = Provider::start().await;
    provider.publishes(&[a.public()]);
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
        provider.answers(OIDC, Reply::Json(metadata.clone()));
        let entry = issuer(&url, json!("discovery"), &["127.0.0.0/8"]);
        let outage = Verifying::new().outage(&entry, &a.token()).await;
        assert!(outage.contains(why) && !outage.contains("s3cret"), "{metadata}: {outage}");
    }
    assert!(!provider.asked().contains(&"/jwks".into()));
}
