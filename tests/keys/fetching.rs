//! Issuers that answer late, at length, from elsewhere, or not at all; and those that we may not ask.

use std::time::Duration;

use axum::body::Bytes;
use errand::{
    adapters::fetch::{FetchFault, FetchLimits, Fetcher},
    domain::jwk::JwsAlgorithm::ES256,
    ports::TrustedKeys,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Fault, Party, Provider, Reply, Verifying, issuer};

/// With little time, for answers that never come.
fn impatient() -> Verifying {
    Verifying::with(FetchLimits { time: Duration::from_millis(300), ..FetchLimits::default() })
}

fn key_and_token() -> (Value, String) {
    let party = Party::new(ES256);
    (party.public(json!({"kid": "a"})), party.token(ES256, json!({"kid": "a"})))
}

#[tokio::test]
async fn answers_that_are_none() {
    let (key, token) = key_and_token();
    let provider = Provider::start().await;
    provider.publishes(std::slice::from_ref(&key));
    let keys = json!({ "keys": [key] });
    let twice = format!(r#"{{"keys":[],"keys":{}}}"#, keys["keys"]);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let private = json!({"keys": [{"kty": "EC", "d": "AAAA"}]});
    for (reply, why) in [
        (Reply::Redirect("/jwks"), "302"),
        (Reply::Redirect("https://evil.example/"), "302"),
        (Reply::Status(500), "500"),
        (Reply::Status(404), "404"),
        (Reply::Status(204), "204"),
        (Reply::Status(203), "203"),
        (Reply::Raw("identity", Bytes::from(twice)), "not strict JSON"),
        (Reply::Raw("identity", Bytes::from(deep)), "not strict JSON"),
        (Reply::Raw("identity", Bytes::from_static(b"<html>")), "not strict JSON"),
        (Reply::Raw("identity", Bytes::new()), "not strict JSON"),
        // The header of a gzip stream: whatever it would become, we don't find out.
        (Reply::Raw("gzip", Bytes::from_static(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")), "not strict JSON"),
        (Reply::Json(json!({"keys": []})), "not a JWK set"),
        (Reply::Json(json!([])), "not a JWK set"),
        (Reply::Json(private), "private or symmetric key"),
        (Reply::Flood, "more than 524288 bytes"),
    ] {
        let shown = format!("{reply:?}");
        provider.answers("/odd", reply);
        let outage = Verifying::new().outage(&provider.entry_at("/odd"), &token).await;
        assert!(outage.contains(why), "{shown}: {outage}");
    }
    assert!(!provider.asked().contains(&"/jwks".into()), "no redirect is followed");
    assert_eq!(Verifying::new().verify(&provider.entry(), &token).await, None, "the same keys, served well");
}

#[tokio::test]
async fn nobody_is_waited_for() {
    let (_, token) = key_and_token();
    let provider = Provider::start().await;
    for reply in [Reply::Silence, Reply::Stall] {
        let shown = format!("{reply:?}");
        provider.answers("/odd", reply);
        let verifying = impatient();
        assert_eq!(verifying.verify(&provider.entry_at("/odd"), &token).await, Some(Fault::Outage), "{shown}");
        assert_eq!(verifying.keys.unreachable(), [provider.url.as_str()], "{shown}");
    }
    // One fetch by itself has its limit, too.
    let limits = FetchLimits { time: Duration::from_millis(300), ..FetchLimits::default() };
    let url = format!("{}/odd", provider.url).parse().unwrap();
    let fault = Fetcher::new(limits).json(&url, &["127.0.0.0/8".parse().unwrap()]).await.unwrap_err();
    assert!(matches!(fault, FetchFault::Transport(_)), "{fault}");
}

/// Each answer would do, all of them together take too long: a caller waits for the limit once.
#[tokio::test]
async fn the_time_is_one_for_all_fetches() {
    let (key, token) = key_and_token();
    let provider = Provider::start().await;
    let late = |document| Reply::Late(Duration::from_millis(600), document);
    provider.answers("/jwks", late(json!({ "keys": [key] })));
    let metadata = json!({"issuer": provider.url, "jwks_uri": format!("{}/jwks", provider.url)});
    provider.answers("/.well-known/openid-configuration", late(metadata));
    let entry = issuer(&provider.url, json!("discovery"), &["127.0.0.0/8"]);
    let limits = FetchLimits { time: Duration::from_secs(1), ..FetchLimits::default() };
    assert_eq!(Verifying::with(limits).verify(&entry, &token).await, Some(Fault::Outage));
    assert_eq!(Verifying::new().verify(&entry, &token).await, None, "with time enough");
}

#[tokio::test]
async fn a_document_may_be_so_long_and_no_byte_longer() {
    let (key, token) = key_and_token();
    let provider = Provider::start().await;
    provider.publishes(std::slice::from_ref(&key));
    let len = json!({ "keys": [key] }).to_string().len();
    for (bytes, want) in [(len, None), (len - 1, Some(Fault::Outage)), (0, Some(Fault::Outage))] {
        let verifying = Verifying::with(FetchLimits { bytes, ..FetchLimits::default() });
        assert_eq!(verifying.verify(&provider.entry(), &token).await, want, "{bytes} of {len} bytes");
    }
}

#[tokio::test]
async fn nobody_is_there() {
    let (_, token) = key_and_token();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let entry = issuer(&url, json!({"jwks_uri": format!("{url}/jwks")}), &["127.0.0.0/8"]);
    assert_eq!(Verifying::new().verify(&entry, &token).await, Some(Fault::Outage));
    let nowhere = issuer(&url, json!({"jwks_uri": "https://no-such-host.invalid/jwks"}), &[]);
    assert_eq!(Verifying::new().verify(&nowhere, &token).await, Some(Fault::Outage));
}

#[tokio::test]
async fn special_addresses_are_for_who_has_them_in_the_entry() {
    let (key, token) = key_and_token();
    let provider = Provider::start().await;
    provider.publishes(&[key]);
    let jwks = format!("{}/jwks", provider.url);
    for (networks, want) in [
        (&["127.0.0.0/8"][..], None),
        (&["127.0.0.1/32"], None),
        (&[], Some(Fault::Outage)),
        (&["127.0.0.2/32"], Some(Fault::Outage)),
        (&["10.0.0.0/8", "::/0"], Some(Fault::Outage)),
    ] {
        let entry = issuer(&provider.url, json!({ "jwks_uri": jwks }), networks);
        assert_eq!(Verifying::new().verify(&entry, &token).await, want, "{networks:?}");
    }
    assert_eq!(provider.hits(), 2, "who may not be asked hears nothing");
}

/// A name is judged by the addresses it means when we connect. `localhost` stands for a name that an attacker's name
/// server lets mean this machine.
#[tokio::test]
async fn a_name_is_what_it_means() {
    let (_, token) = key_and_token();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
    let entry = |networks| issuer("https://login.example.com", json!({ "jwks_uri": jwks }), networks);
    let outage = Verifying::new().outage(&entry(&["10.0.0.0/8"]), &token).await;
    assert!(outage.contains("`localhost` has the special address"), "{outage}");
    // With leave we do connect, and hang up when no TLS comes back.
    let (connected, outage) = tokio::join!(
        async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream);
            "connected"
        },
        async { Verifying::new().outage(&entry(&["127.0.0.0/8", "::1/128"]), &token).await }
    );
    assert!(!outage.contains("special address"), "{connected}: {outage}");
    let nothing = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nothing.is_err(), "the one connection was the one with leave");
}
