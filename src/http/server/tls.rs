//! TLS with rustls, versions 1.2 and 1.3. The certificate is replaced while the server runs when
//! its files change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// The interval at which the files of the certificate are read.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);

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
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<ReloadableCertificate>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Loads a certificate chain and its key, both in PEM.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let files = CertificateFiles { chain: certificates.to_owned(), key: key.to_owned() };
        let loaded = files.load(&provider)?;
        let certificate = Arc::new(ReloadableCertificate { provider, state: Mutex::new(State { files, loaded }) });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&certificate.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError { file: certificates.display().to_string(), reason: e.to_string() })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Uses these files from now on, for new connections. On an error the previous certificate
    /// stays in use.
    pub fn replace_files(&self, certificates: &Path, key: &Path) -> Result<(), TlsError> {
        let files = CertificateFiles { chain: certificates.to_owned(), key: key.to_owned() };
        let loaded = files.load(&self.certificate.provider)?;
        *self.certificate.state.lock() = State { files, loaded };
        Ok(())
    }

    /// Reads the files again, and uses the certificate from now on if it has changed. Returns
    /// whether it has. On an error the previous certificate stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = self.certificate.state.lock().files.clone();
        if files.read()? == self.certificate.state.lock().loaded.contents {
            return Ok(false);
        }
        let loaded = files.load(&self.certificate.provider)?;
        let mut state = self.certificate.state.lock();
        if state.files == files {
            state.loaded = loaded;
        }
        Ok(true)
    }

    /// Reloads the certificate whenever its files change. A file may be replaced before the other,
    /// so that a pair that does not match is read again.
    pub async fn watch(self) {
        let mut last_error = None;
        loop {
            tokio::time::sleep(CERTIFICATE_POLL_INTERVAL).await;
            let tls = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || tls.reload()).await;
            match reloaded {
                Ok(Ok(is_changed)) => {
                    if is_changed {
                        tracing::info!("TLS certificate reloaded");
                    }
                    last_error = None;
                }
                Ok(Err(error)) => {
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "TLS certificate not reloaded, the previous one stays in use");
                    }
                    last_error = Some(text);
                }
                Err(error) => tracing::warn!(%error, "TLS certificate not reloaded, retrying later"),
            }
        }
    }
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
}

impl CertificateFiles {
    /// Reads the certificate chain and the key, without checking that they match.
    fn read(&self) -> Result<FileContents, TlsError> {
        let error = |file: &Path, reason: String| TlsError { file: file.display().to_string(), reason };
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| error(&self.chain, format!("not a PEM certificate chain: {e}")))?;
        if chain.is_empty() {
            let reason = "contains no PEM certificate; name a file that starts with the server's own certificate";
            return Err(error(&self.chain, reason.into()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|e| error(&self.key, format!("not a PEM private key: {e}")))?;
        Ok(FileContents { chain, key })
    }

    fn load(&self, provider: &CryptoProvider) -> Result<LoadedCertificate, TlsError> {
        let contents = self.read()?;
        let key = CertifiedKey::from_der(contents.chain.clone(), contents.key.clone_key(), provider).map_err(|e| {
            let reason = format!("not the key of the certificate, or not usable: {e}");
            TlsError { file: self.key.display().to_string(), reason }
        })?;
        Ok(LoadedCertificate { key: Arc::new(key), contents })
    }
}

/// A certificate that can be replaced while connections are accepted.
struct ReloadableCertificate {
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

struct State {
    files: CertificateFiles,
    loaded: LoadedCertificate,
}

struct LoadedCertificate {
    key: Arc<CertifiedKey>,
    contents: FileContents,
}

/// The contents of the files, to notice a change.
#[derive(PartialEq, Eq)]
struct FileContents {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ReloadableCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadableCertificate(..)")
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state.lock().loaded.key))
    }
}
