//! `[tls]`: the certificate chain and private key of the public listener.

use std::path::PathBuf;

use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::config::{node::Section, sections::secrets};

/// `[tls]`: a certificate chain and its private key, verified to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain in PEM.
    pub certificate_file: PathBuf,
    /// Private key in PEM.
    pub key_file: PathBuf,
}

pub(in crate::config) fn read_tls(root: &mut Section<'_>) -> Option<TlsConfig> {
    let mut section = root.section("tls");
    if !section.is_present() {
        return None;
    }
    let certificate = section.required_node("certificate_file", "\"tls/chain.pem\"");
    let key = section.required_node("key_file", "\"tls/key.pem\"");
    let chain_pem = certificate.as_ref().and_then(secrets::read_file);
    let key_pem = key.as_ref().and_then(|key| {
        secrets::check_permissions(key);
        secrets::read_file(key)
    });
    let (certificate, key) = (certificate?, key?);
    let (chain_pem, key_pem) = (chain_pem?, key_pem?);
    let chain = CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    if chain.is_none() {
        certificate.error(
            "contains no PEM certificate",
            "name a file with the server's certificate first, followed by the certificates of its issuers",
        );
    }
    let private_key = PrivateKeyDer::from_pem_slice(&key_pem).ok();
    if private_key.is_none() {
        key.error(
            "contains no PEM private key",
            "name a file with the private key of the certificate, preferably in PKCS #8",
        );
    }
    if let Err(error) = CertifiedKey::from_der(chain?, private_key?, &default_provider()) {
        let reason = match error {
            rustls::Error::InconsistentKeys(_) => "does not match the certificate".to_owned(),
            error => format!("can't be used: {error}"),
        };
        key.error(reason, "name the private key that belongs to the certificate");
        return None;
    }
    Some(TlsConfig { certificate_file: certificate.path()?, key_file: key.path()? })
}
