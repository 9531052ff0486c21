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

use crate::support::{KeyPair, VerifierFixture, issuer};

/// Serves this document for every request. Returns the URL and the certificate (PEM).
async fn serve(document: Value) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
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
