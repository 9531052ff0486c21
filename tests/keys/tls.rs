//! Key fetches over TLS, with trusted and untrusted certificates.

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use errand::domain::jose::jwk::JwsAlgorithm::ES256;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use errand::adapters::fetch::{FetchOptions, FetchProxy};
use errand::domain::{registry::issuer::TrustedIssuer, secret::Secret};

use crate::support::{KeyPair, VerifierFixture, issuer};

/// Serves this document for every request. Returns the URL and the certificate (PEM).
async fn serve(document: Value) -> (String, String) {
    serve_as("localhost", document).await
}

/// Serves a document with a certificate for this name.
async fn serve_as(name: &str, document: Value) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private)
        .unwrap();
    let (acceptor, body) = (TlsAcceptor::from(Arc::new(config)), document.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = respond(&acceptor, stream, &body).await;
        }
    });
    (url, cert.pem())
}

async fn respond(acceptor: &TlsAcceptor, stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let _ = stream.read(&mut [0; 4096]).await?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

/// The trust store is read from the environment once, so the trusted half runs in a process of its
/// own.
#[tokio::test]
async fn untrusted_certificate_is_rejected() {
    let party = KeyPair::new(ES256);
    let (url, certificate) = serve(json!({"keys": [party.public(json!({"kid": "a"}))]})).await;
    let token = party.token(ES256, json!({"kid": "a"}));

    let outage = VerifierFixture::new().expect_unavailable(&entry(&url), &token).await;
    assert!(outage.contains("certificate"), "{outage}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::system_trust_store_is_used", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", file.path())
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &json!([url, token])).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}

/// Run by [`untrusted_certificate_is_rejected`], which passes the URL and the token.
#[tokio::test]
#[ignore = "the other half of a test"]
async fn system_trust_store_is_used() {
    let (url, token): (String, String) = serde_json::from_reader(std::io::stdin()).unwrap();
    assert_eq!(VerifierFixture::new().verify(&entry(&url), &token).await, None);
    let by_address = url.replace("localhost", "127.0.0.1");
    let outage = VerifierFixture::new().expect_unavailable(&entry(&by_address), &token).await;
    assert!(outage.contains("certificate"), "the certificate is for another name: {outage}");
}

fn entry(url: &str) -> errand::domain::registry::issuer::TrustedIssuer {
    issuer("https://login.example.com", json!({ "jwks_uri": url }), &["127.0.0.0/8", "::1/128"])
}

/// A private certificate authority is trusted for every fetch, or for one issuer, which then trusts
/// no other.
#[tokio::test]
async fn private_certificate_authorities_are_trusted_where_configured() {
    let party = KeyPair::new(ES256);
    let keys = json!({"keys": [party.public(json!({"kid": "a"}))]});
    let token = party.token(ES256, json!({"kid": "a"}));
    let (url, certificate) = serve(keys.clone()).await;
    let (_, other) = serve(keys).await;
    let with_ca = |pem: &str| TrustedIssuer { ca_pem: Some(pem.to_owned()), ..entry(&url) };
    let for_all =
        |pem: &str| VerifierFixture::with_options(FetchOptions { ca_pem: Some(pem.into()), ..FetchOptions::default() });
    assert_eq!(for_all(&certificate).verify(&entry(&url), &token).await, None);
    assert_eq!(for_all(&format!("{other}{certificate}")).verify(&entry(&url), &token).await, None);
    assert_eq!(VerifierFixture::new().verify(&with_ca(&certificate), &token).await, None);
    for (verifier, entry, why) in [
        (for_all(&other), entry(&url), "certificate"),
        (VerifierFixture::new(), with_ca(&other), "certificate"),
        (for_all(&certificate), with_ca(&other), "certificate"),
        (VerifierFixture::new(), with_ca("-----BEGIN CERTIFICATE-----\nnonsense"), "not certificates in PEM"),
    ] {
        let outage = verifier.expect_unavailable(&entry, &token).await;
        assert!(outage.contains(why), "{outage}");
    }
}

/// A proxy that tunnels to one address, whatever it is asked for. Returns its URL, and the heads of
/// the requests that it gets.
async fn start_proxy(to: String) -> (url::Url, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let heads = Arc::<std::sync::Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).await.is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            seen.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            if let Ok(mut server) = TcpStream::connect(&to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        }
    });
    (url, heads)
}

#[tokio::test]
async fn proxy_is_used_where_configured() {
    let party = KeyPair::new(ES256);
    let keys = json!({"keys": [party.public(json!({"kid": "a"}))]});
    let token = party.token(ES256, json!({"kid": "a"}));
    let (url, certificate) = serve_as("login.test", keys).await;
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let (proxy, heads) = start_proxy(format!("127.0.0.1:{port}")).await;
    let verifier = |bypass: &[&str]| {
        VerifierFixture::with_options(FetchOptions {
            proxy: Some(FetchProxy {
                url: proxy.clone(),
                bypass: bypass.iter().map(|host| (*host).to_owned()).collect(),
                credentials: Some(Arc::new(Secret::new("errand:s3cret".to_owned()))),
            }),
            ca_pem: Some(certificate.as_str().into()),
            ..FetchOptions::default()
        })
    };
    let entry = |url: &str| issuer("https://login.example.com", json!({ "jwks_uri": url }), &[]);
    assert_eq!(verifier(&[]).verify(&entry("https://login.test/jwks"), &token).await, None);
    {
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 1);
        assert!(heads[0].starts_with("connect login.test:443 ") && heads[0].contains("proxy-authorization: basic "));
    }
    // A private address in the URL is refused before the proxy gets it. Loopback and the hosts to
    // bypass are reached without it.
    let cluster = TrustedIssuer {
        allow_http: true,
        allowed_networks: vec!["10.0.0.0/8".parse().unwrap()],
        ..entry("http://keys.svc.test/jwks")
    };
    for (bypass, entry, why) in [
        (&[][..], entry("https://10.0.0.7/jwks"), "special address"),
        (&[], entry("https://127.0.0.1:1/jwks"), "special address"),
        (&[], cluster, "is not allowed"),
        (&["test"], entry("https://login.test/jwks"), "no response"),
    ] {
        let outage = verifier(bypass).expect_unavailable(&entry, &token).await;
        assert!(outage.contains(why) && !outage.contains("s3cret"), "{outage}");
    }
    assert_eq!(heads.lock().unwrap().len(), 1);
    assert!(!format!("{:?}", verifier(&[]).keys).contains("s3cret"));
}
