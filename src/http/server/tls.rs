//! TLS with rustls, versions 1.2 and 1.3.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// A certificate or key that can't be used.
#[derive(Debug, Error)]
#[error("{file}: {reason}")]
pub struct TlsError {
    /// The file.
    pub file: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// The certificate chain and key of a listener.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Loads a certificate chain and its key, both in PEM.
    pub fn load(certificates: &PathBuf, key: &PathBuf) -> Result<Self, TlsError> {
        let error = |file: &PathBuf, reason: String| TlsError { file: file.display().to_string(), reason };
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| error(certificates, format!("not a PEM certificate chain: {e}")))?;
        if chain.is_empty() {
            let reason = "contains no PEM certificate; name a file that starts with the server's own certificate";
            return Err(error(certificates, reason.into()));
        }
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|e| error(key, format!("not a PEM private key: {e}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| error(certificates, e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| error(key, format!("not the key of the certificate, or not usable: {e}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
