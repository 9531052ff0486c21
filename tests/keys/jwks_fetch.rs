//! Issuers with slow, large, redirected or missing responses, and issuers at forbidden addresses.

use std::time::Duration;

use axum::body::Bytes;
use errand::{
    adapters::fetch::{FetchError, FetchLimits, Fetcher},
    domain::jose::jwk::JwsAlgorithm::ES256,
    ports::TrustedKeys,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    port::ReservedPort,
    support::{CannedResponse, FailureKind, IssuerServer, KeyPair, VerifierFixture, issuer},
};

/// A verifier with a short timeout, for responses that never come.
fn short_timeout_verifier() -> VerifierFixture {
    VerifierFixture::with_limits(FetchLimits { timeout: Duration::from_millis(300), ..FetchLimits::default() })
}

fn key_and_token() -> (Value, String) {
    let party = KeyPair::new(ES256);
    (party.public(json!({"kid": "a"})), party.token(ES256, json!({"kid": "a"})))
}

#[tokio::test]
async fn invalid_responses_are_rejected() {
    let (key, token) = key_and_token();
    let provider = IssuerServer::start().await;
    provider.publish_keys(std::slice::from_ref(&key));
    let keys = json!({ "keys": [key] });
    let duplicate = format!(r#"{{"keys":[],"keys":{}}}"#, keys["keys"]);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let private = json!({"keys": [{"kty": "EC", "d": "AAAA"}]});
    for (reply, why) in [
        (CannedResponse::Redirect("/jwks"), "302"),
        (CannedResponse::Redirect("https://evil.example/"), "302"),
        (CannedResponse::Status(500), "500"),
        (CannedResponse::Status(404), "404"),
        (CannedResponse::Status(204), "204"),
        (CannedResponse::Status(203), "203"),
        (CannedResponse::Raw("identity", Bytes::from(duplicate)), "not strict JSON"),
        (CannedResponse::Raw("identity", Bytes::from(deep)), "not strict JSON"),
        (CannedResponse::Raw("identity", Bytes::from_static(b"<html>")), "not strict JSON"),
        (CannedResponse::Raw("identity", Bytes::new()), "not strict JSON"),
        // The header of a gzip stream, which is not decompressed.
        (CannedResponse::Raw("gzip", Bytes::from_static(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")), "not strict JSON"),
        (CannedResponse::Json(json!({"keys": []})), "not a JWK set"),
        (CannedResponse::Json(json!([])), "not a JWK set"),
        (CannedResponse::Json(private), "private or symmetric key"),
        (CannedResponse::Flood, "exceeds 524288 bytes"),
    ] {
        let shown = format!("{reply:?}");
        provider.set_response("/odd", reply);
        let outage = VerifierFixture::new().expect_unavailable(&provider.entry_at("/odd"), &token).await;
        assert!(outage.contains(why), "{shown}: {outage}");
    }
    assert!(!provider.requested_paths().contains(&"/jwks".into()), "redirects are not followed");
    assert_eq!(
        VerifierFixture::new().verify(&provider.entry(), &token).await,
        None,
        "the same keys in a valid response"
    );
}

#[tokio::test]
async fn slow_responses_time_out() {
    let (_, token) = key_and_token();
    let provider = IssuerServer::start().await;
    for reply in [CannedResponse::Silence, CannedResponse::Stall] {
        let shown = format!("{reply:?}");
        provider.set_response("/odd", reply);
        let verifier = short_timeout_verifier();
        assert_eq!(verifier.verify(&provider.entry_at("/odd"), &token).await, Some(FailureKind::Outage), "{shown}");
        assert_eq!(verifier.keys.unreachable_issuers(), [provider.url.as_str()], "{shown}");
    }
    // A single fetch has the limit too.
    let limits = FetchLimits { timeout: Duration::from_millis(300), ..FetchLimits::default() };
    let url = format!("{}/odd", provider.url).parse().unwrap();
    let error = Fetcher::new(limits).fetch_json(&url, &["127.0.0.0/8".parse().unwrap()]).await.unwrap_err();
    assert!(matches!(error, FetchError::Transport(_)), "{error}");
}

/// Each response is in time, but together they take too long: the limit applies once per caller.
#[tokio::test]
async fn fetches_share_one_deadline() {
    let (key, token) = key_and_token();
    let provider = IssuerServer::start().await;
    let late = |document| CannedResponse::Late(Duration::from_millis(600), document);
    provider.set_response("/jwks", late(json!({ "keys": [key] })));
    let metadata = json!({"issuer": provider.url, "jwks_uri": format!("{}/jwks", provider.url)});
    provider.set_response("/.well-known/openid-configuration", late(metadata));
    let entry = issuer(&provider.url, json!("discovery"), &["127.0.0.0/8"]);
    let limits = FetchLimits { timeout: Duration::from_secs(1), ..FetchLimits::default() };
    assert_eq!(VerifierFixture::with_limits(limits).verify(&entry, &token).await, Some(FailureKind::Outage));
    assert_eq!(VerifierFixture::new().verify(&entry, &token).await, None, "with enough time");
}

#[tokio::test]
async fn document_size_is_limited() {
    let (key, token) = key_and_token();
    let provider = IssuerServer::start().await;
    provider.publish_keys(std::slice::from_ref(&key));
    let len = json!({ "keys": [key] }).to_string().len();
    for (bytes, want) in [(len, None), (len - 1, Some(FailureKind::Outage)), (0, Some(FailureKind::Outage))] {
        let verifier = VerifierFixture::with_limits(FetchLimits { max_bytes: bytes, ..FetchLimits::default() });
        assert_eq!(verifier.verify(&provider.entry(), &token).await, want, "{bytes} of {len} bytes");
    }
}

#[tokio::test]
async fn unreachable_host_is_reported() {
    let (_, token) = key_and_token();
    let port = ReservedPort::new();
    let url = format!("http://{}", port.address());
    let entry = issuer(&url, json!({"jwks_uri": format!("{url}/jwks")}), &["127.0.0.0/8"]);
    assert_eq!(VerifierFixture::new().verify(&entry, &token).await, Some(FailureKind::Outage));
    let nowhere = issuer(&url, json!({"jwks_uri": "https://no-such-host.invalid/jwks"}), &[]);
    assert_eq!(VerifierFixture::new().verify(&nowhere, &token).await, Some(FailureKind::Outage));
}

#[tokio::test]
async fn special_addresses_require_allowed_networks() {
    let (key, token) = key_and_token();
    let provider = IssuerServer::start().await;
    provider.publish_keys(&[key]);
    let jwks = format!("{}/jwks", provider.url);
    for (networks, want) in [
        (&["127.0.0.0/8"][..], None),
        (&["127.0.0.1/32"], None),
        (&[], Some(FailureKind::Outage)),
        (&["127.0.0.2/32"], Some(FailureKind::Outage)),
        (&["10.0.0.0/8", "::/0"], Some(FailureKind::Outage)),
    ] {
        let entry = issuer(&provider.url, json!({ "jwks_uri": jwks }), networks);
        assert_eq!(VerifierFixture::new().verify(&entry, &token).await, want, "{networks:?}");
    }
    assert_eq!(provider.request_count(), 2, "a forbidden destination receives no request");
}

/// A name is checked by the addresses to which it resolves at connection time. `localhost`
/// represents a name that an attacker's name server resolves to this machine.
#[tokio::test]
async fn host_names_are_checked_by_resolved_address() {
    let (_, token) = key_and_token();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
    let entry = |networks| issuer("https://login.example.com", json!({ "jwks_uri": jwks }), networks);
    let outage = VerifierFixture::new().expect_unavailable(&entry(&["10.0.0.0/8"]), &token).await;
    assert!(outage.contains("`localhost` has the special address"), "{outage}");
    // In an allowed network the connection is made, and fails without TLS.
    let (connected, outage) = tokio::join!(
        async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream);
            "connected"
        },
        async { VerifierFixture::new().expect_unavailable(&entry(&["127.0.0.0/8", "::1/128"]), &token).await }
    );
    assert!(!outage.contains("special address"), "{connected}: {outage}");
    let second = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(second.is_err(), "the only connection was the allowed one");
}
