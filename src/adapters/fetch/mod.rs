//! Fetches untrusted documents over HTTPS, with limits and protection against SSRF. Wraps reqwest.
//!
//! Redirects, proxies and cookies are not used. Addresses are checked at the time of connecting, in
//! the resolver itself, so that DNS rebinding can't give a name another address between check and
//! use.

mod address_policy;

use std::{
    collections::HashMap,
    error::Error as StdError,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
    retry,
};
use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

pub use address_policy::is_special;
pub use reqwest::{Method, header};

use crate::domain::{encoding::strict_json, uri::is_loopback};

/// The maximum nesting depth of a fetched document.
const MAX_JSON_DEPTH: usize = 16;
/// The maximum number of HTTP clients that are kept, one for each network policy.
const MAX_CLIENTS: usize = 64;

/// The limits of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// The timeout of a fetch, from the name resolution to the last byte.
    pub timeout: Duration,
    /// The maximum size of a document in bytes.
    pub max_bytes: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), max_bytes: 512 * 1024 }
    }
}

/// A reason why a document could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The URL is not allowed.
    #[error(
        "`{0}` is not allowed; use an https URL without user information (http only for loopback addresses in `allowed_networks`)"
    )]
    UrlNotAllowed(Box<str>),
    /// The URL leads to a special address that is not allowed.
    #[error("`{host}` has the special address {ip}; add a network that contains it to `allowed_networks`")]
    AddressNotAllowed {
        /// The host of the URL.
        host: Box<str>,
        /// The address of the host.
        ip: IpAddr,
    },
    /// The HTTP client could not be built, for example without root certificates.
    #[error("the HTTP client could not be built")]
    ClientBuild(#[source] reqwest::Error),
    /// The connection failed, or no response arrived in time.
    #[error("no response")]
    Transport(#[source] reqwest::Error),
    /// The status is not 200.
    #[error("the response has status {0} instead of 200 (redirects are not followed)")]
    UnexpectedStatus(StatusCode),
    /// The document is too large.
    #[error("the document exceeds {0} bytes")]
    TooLarge(usize),
    /// The document is not JSON.
    #[error("the document is not strict JSON")]
    NotJson,
}

/// Fetches documents and sends requests.
#[derive(Debug)]
pub struct Fetcher {
    limits: FetchLimits,
    clients: Mutex<HashMap<NetworkPolicy, Client>>,
}

impl Fetcher {
    /// Creates a fetcher; its HTTP clients are built when they are needed. Installs the TLS
    /// provider (ring).
    #[must_use]
    pub fn new(limits: FetchLimits) -> Self {
        // An error means that a provider is installed already: the one of `main`, which is ring as
        // well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { limits, clients: Mutex::default() }
    }

    /// Fetches a JSON document. `networks` are the networks with special addresses that are
    /// allowed.
    pub async fn fetch_json(&self, url: &Url, networks: &[IpNet]) -> Result<Value, FetchError> {
        let policy = NetworkPolicy::for_url(url, networks)?;
        let transport = |error: reqwest::Error| FetchError::Transport(error.without_url());
        let request = self.client_for(policy)?.get(url.clone()).header("accept", "application/json");
        let mut response = request.send().await.map_err(transport)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::UnexpectedStatus(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if chunk.len() > self.limits.max_bytes - body.len() {
                return Err(FetchError::TooLarge(self.limits.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        strict_json::parse(&body, MAX_JSON_DEPTH).map_err(|_| FetchError::NotJson)
    }

    /// Sends a request and returns the response, whatever its status. The caller reads the body
    /// chunk by chunk and limits its size.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        networks: &[IpNet],
        headers: impl IntoIterator<Item = (header::HeaderName, header::HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<FetchResponse, FetchError> {
        let policy = NetworkPolicy::for_url(url, networks)?;
        let headers = headers.into_iter().collect::<header::HeaderMap>();
        let request = self.client_for(policy)?.request(method, url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| FetchError::Transport(error.without_url()))?;
        Ok(FetchResponse(response))
    }

    /// Returns the client for a network policy. The resolver of reqwest belongs to a client, so
    /// each policy has its own.
    fn client_for(&self, policy: NetworkPolicy) -> Result<Client, FetchError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&policy) {
            return Ok(client.clone());
        }
        let client = self.build_client(&policy).map_err(FetchError::ClientBuild)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(policy, client.clone());
        Ok(client)
    }

    fn build_client(&self, policy: &NetworkPolicy) -> Result<Client, reqwest::Error> {
        let builder = Client::builder()
            .timeout(self.limits.timeout)
            .redirect(Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("errand/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(GuardedDns(policy.clone()));
        match policy.scheme {
            Scheme::Https => builder.https_only(true),
            // Loopback works on a machine without root certificates too.
            Scheme::Http => builder.tls_certs_only([]),
        }
        .build()
    }
}

/// A response with an unread body.
#[derive(Debug)]
pub struct FetchResponse(reqwest::Response);

impl FetchResponse {
    /// Returns the status. Redirects are not followed, so their status is returned too.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Returns a header that consists of visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the next chunk of the body, or `None` at its end.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let chunk = self.0.chunk().await.map_err(|error| FetchError::Transport(error.without_url()))?;
        Ok(chunk.map(Into::into))
    }
}

impl FetchError {
    /// Returns the destination that was refused and why, or `None` if the error is of another kind.
    #[must_use]
    pub fn into_refusal(self) -> Option<String> {
        match self {
            Self::UrlNotAllowed(_) | Self::AddressNotAllowed { .. } => Some(self.to_string()),
            Self::Transport(error) => {
                // A refusal by the resolver is wrapped in a connection error.
                let mut cause = StdError::source(&error);
                while let Some(inner) = cause {
                    if let Some(Self::AddressNotAllowed { .. }) = inner.downcast_ref::<Self>() {
                        return Some(inner.to_string());
                    }
                    cause = inner.source();
                }
                None
            }
            Self::ClientBuild(_) | Self::UnexpectedStatus(_) | Self::TooLarge(_) | Self::NotJson => None,
        }
    }
}

/// The destinations that a client may policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NetworkPolicy {
    scheme: Scheme,
    networks: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    /// Loopback only.
    Http,
}

impl NetworkPolicy {
    /// Returns the policy for an allowed URL. Checks an address in the URL itself, which the
    /// resolver does not see.
    fn for_url(url: &Url, networks: &[IpNet]) -> Result<Self, FetchError> {
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" if is_loopback(url) => Scheme::Http,
            _ => return Err(url_not_allowed(url)),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(url_not_allowed(url));
        }
        let policy = Self { scheme, networks: networks.to_vec() };
        match url.host().ok_or_else(|| url_not_allowed(url))? {
            Host::Ipv4(ip) => policy.check_address(url.host_str().unwrap_or_default(), ip.into())?,
            Host::Ipv6(ip) => policy.check_address(url.host_str().unwrap_or_default(), ip.into())?,
            Host::Domain(_) => {}
        }
        Ok(policy)
    }

    fn check_address(&self, host: &str, ip: IpAddr) -> Result<(), FetchError> {
        let scheme_allows = match self.scheme {
            Scheme::Https => true,
            Scheme::Http => ip.is_loopback(),
        };
        if scheme_allows && address_policy::is_allowed(ip, &self.networks) {
            return Ok(());
        }
        Err(FetchError::AddressNotAllowed { host: host.into(), ip })
    }

    /// Checks all addresses. A name with both public and private addresses is refused as a whole.
    fn check_addresses(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, FetchError> {
        addresses.iter().try_for_each(|address| self.check_address(host, address.ip()))?;
        Ok(addresses)
    }
}

/// Names the URL without the parts that may contain a secret.
fn url_not_allowed(url: &Url) -> FetchError {
    FetchError::UrlNotAllowed(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()).into())
}

/// Resolves names to checked addresses only. The connector uses these and does not resolve again.
struct GuardedDns(NetworkPolicy);

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let checked = policy.check_addresses(name.as_str(), addresses)?;
            Ok(Box::new(checked.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(url: &str, networks: &[&str]) -> Result<NetworkPolicy, FetchError> {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        NetworkPolicy::for_url(&url.parse().unwrap(), &networks)
    }

    #[test]
    fn unsafe_urls_are_rejected() {
        for (url, networks, ok) in [
            ("https://login.example.com/jwks", &[][..], true),
            ("https://8.8.8.8/jwks", &[], true),
            ("https://127.0.0.1/jwks", &[], false),
            ("https://2130706433/jwks", &[], false),
            ("https://[::ffff:127.0.0.1]/jwks", &["127.0.0.0/8"], false),
            ("https://10.0.0.7/jwks", &["10.0.0.0/24"], true),
            ("http://127.0.0.1:8080/jwks", &["127.0.0.0/8"], true),
            ("http://127.0.0.1:8080/jwks", &[], false),
            ("http://localhost:8080/jwks", &["127.0.0.0/8"], true),
            ("http://10.0.0.7/jwks", &["10.0.0.0/24"], false),
            ("http://8.8.8.8/jwks", &["0.0.0.0/0"], false),
            ("http://login.example.com/jwks", &["0.0.0.0/0"], false),
            ("https://a:b@login.example.com/jwks", &[], false),
            ("https://a@login.example.com/jwks", &[], false),
            ("ftp://login.example.com/jwks", &[], false),
            ("file:///etc/passwd", &["0.0.0.0/0"], false),
            ("data:application/json,{}", &["0.0.0.0/0"], false),
        ] {
            assert_eq!(policy(url, networks).is_ok(), ok, "{url} {networks:?}");
        }
        assert!(!policy("https://u:s3cret@x.example/?s3cret", &[]).unwrap_err().to_string().contains("s3cret"));
    }

    /// One special address makes the whole answer unacceptable, because the connector tries one
    /// address after the other.
    #[test]
    fn resolved_addresses_are_filtered() {
        let answers = |list: &[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect::<Vec<_>>();
        let https = policy("https://login.example.com", &["10.0.0.0/24"]).unwrap();
        for (addresses, ok) in [
            (&["8.8.8.8"][..], true),
            (&["8.8.8.8", "10.0.0.7"], true),
            (&["8.8.8.8", "127.0.0.1"], false),
            (&["169.254.169.254"], false),
            (&["2606:4700::1", "::1"], false),
            (&["::ffff:10.0.0.7"], false),
        ] {
            assert_eq!(https.check_addresses("login.example.com", answers(addresses)).is_ok(), ok, "{addresses:?}");
        }
        let http = policy("http://localhost", &["127.0.0.0/8", "10.0.0.0/8"]).unwrap();
        for (addresses, ok) in
            [(&["127.0.0.1"][..], true), (&["127.0.0.1", "::1"], false), (&["10.0.0.7"], false), (&["8.8.8.8"], false)]
        {
            assert_eq!(http.check_addresses("localhost", answers(addresses)).is_ok(), ok, "{addresses:?}");
        }
    }
}
