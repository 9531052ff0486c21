//! Asking strangers for documents over HTTPS, with little patience and less trust. reqwest lives here.
//!
//! No redirect is followed, no proxy asked, no cookie kept. Addresses are judged at the moment of connecting, in the
//! resolver itself, so that a name can't mean one address when it is checked and another when it is used.

mod address_policy;

use std::{
    collections::HashMap,
    error::Error as StdError,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
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

/// How deep a fetched document may nest.
const MAX_JSON_DEPTH: usize = 16;
/// How many distinct lists of networks have a client that is kept.
const MAX_CLIENTS: usize = 64;

/// How much of others we put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// The longest that one fetch may take, from the name look-up to the last byte.
    pub timeout: Duration,
    /// The largest document.
    pub max_bytes: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), max_bytes: 512 * 1024 }
    }
}

/// Why a document could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A URL that we don't follow.
    #[error(
        "`{0}` is not fetched: https without user information is needed (http only to loopback in `allowed_networks`)"
    )]
    UrlNotAllowed(Box<str>),
    /// It leads to where strangers have no business.
    #[error("`{host}` has the special address {ip}, which is in none of the `allowed_networks`")]
    AddressNotAllowed {
        /// The host as the URL names it.
        host: Box<str>,
        /// Its address.
        ip: IpAddr,
    },
    /// The HTTP client could not be built, for want of root certificates for instance.
    #[error("no HTTP client could be made")]
    ClientBuild(#[source] reqwest::Error),
    /// No connection, no answer, not in time.
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
    /// An answer other than 200.
    #[error("the answer was {0}, and 200 is needed (redirects are not followed)")]
    UnexpectedStatus(StatusCode),
    /// More than we read.
    #[error("the document has more than {0} bytes")]
    TooLarge(usize),
    /// No JSON.
    #[error("the document is not strict JSON")]
    NotJson,
}

/// Fetches JSON.
#[derive(Debug)]
pub struct Fetcher {
    limits: FetchLimits,
    clients: Mutex<HashMap<NetworkPolicy, Client>>,
}

impl Fetcher {
    /// Makes one; its HTTP clients are made when they are needed. Sees to it that TLS has a provider (ring).
    #[must_use]
    pub fn new(limits: FetchLimits) -> Self {
        // An error means that there is a provider already: main's, which is ring as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { limits, clients: Mutex::default() }
    }

    /// Fetches a JSON document. `networks` are those with special addresses that may be reached all the same.
    pub async fn fetch_json(&self, url: &Url, networks: &[IpNet]) -> Result<Value, FetchError> {
        let reach = NetworkPolicy::for_url(url, networks)?;
        let transport = |fault: reqwest::Error| FetchError::Transport(fault.without_url());
        let request = self.client_for(reach)?.get(url.clone()).header("accept", "application/json");
        let mut answer = request.send().await.map_err(transport)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::UnexpectedStatus(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(transport)? {
            if chunk.len() > self.limits.max_bytes - body.len() {
                return Err(FetchError::TooLarge(self.limits.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        strict_json::parse(&body, MAX_JSON_DEPTH).map_err(|_| FetchError::NotJson)
    }

    /// Sends a request to a stranger and gives the answer, whatever its status, to be read part by part: how much of it is
    /// for the caller to say.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        networks: &[IpNet],
        headers: impl IntoIterator<Item = (header::HeaderName, header::HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<FetchResponse, FetchError> {
        let reach = NetworkPolicy::for_url(url, networks)?;
        let headers = headers.into_iter().collect::<header::HeaderMap>();
        let request = self.client_for(reach)?.request(method, url.clone()).headers(headers).body(body);
        let sent = request.send().await.map_err(|fault| FetchError::Transport(fault.without_url()))?;
        Ok(FetchResponse(sent))
    }

    /// reqwest's resolver belongs to a client, so each reach has a client of its own.
    fn client_for(&self, reach: NetworkPolicy) -> Result<Client, FetchError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&reach) {
            return Ok(client.clone());
        }
        let client = self.build_client(&reach).map_err(FetchError::ClientBuild)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(reach, client.clone());
        Ok(client)
    }

    fn build_client(&self, reach: &NetworkPolicy) -> Result<Client, reqwest::Error> {
        let builder = Client::builder()
            .timeout(self.limits.timeout)
            .redirect(Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("errand/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(GuardedDns(reach.clone()));
        match reach.scheme {
            Scheme::Https => builder.https_only(true),
            // A machine without root certificates can still ask itself.
            Scheme::Http => builder.tls_certs_only([]),
        }
        .build()
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct FetchResponse(reqwest::Response);

impl FetchResponse {
    /// The status. A redirect is one too: it is not followed.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// A header with visible ASCII in it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next part of the body; `None` at its end.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let chunk = self.0.chunk().await.map_err(|fault| FetchError::Transport(fault.without_url()))?;
        Ok(chunk.map(Into::into))
    }
}

impl FetchError {
    /// Where we did not go, and why; `None` when we went and nothing came of it.
    #[must_use]
    pub fn into_refusal(self) -> Option<String> {
        match self {
            Self::UrlNotAllowed(_) | Self::AddressNotAllowed { .. } => Some(self.to_string()),
            Self::Transport(fault) => {
                // What the resolver refuses comes back inside of what could not connect.
                let mut cause = StdError::source(&fault);
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

/// How far a client may reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NetworkPolicy {
    scheme: Scheme,
    networks: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    /// To this machine only.
    Http,
}

impl NetworkPolicy {
    /// The reach that the URL needs, if it may be followed. Judges the addresses that are written in it: those are not
    /// looked up.
    fn for_url(url: &Url, networks: &[IpNet]) -> Result<Self, FetchError> {
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" if is_loopback(url) => Scheme::Http,
            _ => return Err(url_not_allowed(url)),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(url_not_allowed(url));
        }
        let reach = Self { scheme, networks: networks.to_vec() };
        match url.host().ok_or_else(|| url_not_allowed(url))? {
            Host::Ipv4(ip) => reach.check_address(url.host_str().unwrap_or_default(), ip.into())?,
            Host::Ipv6(ip) => reach.check_address(url.host_str().unwrap_or_default(), ip.into())?,
            Host::Domain(_) => {}
        }
        Ok(reach)
    }

    fn check_address(&self, host: &str, ip: IpAddr) -> Result<(), FetchError> {
        let fits = match self.scheme {
            Scheme::Https => true,
            Scheme::Http => ip.is_loopback(),
        };
        if fits && address_policy::is_allowed(ip, &self.networks) {
            return Ok(());
        }
        Err(FetchError::AddressNotAllowed { host: host.into(), ip })
    }

    /// All of them or none: a name that means a public and a private address is up to no good.
    fn check_addresses(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, FetchError> {
        found.iter().try_for_each(|address| self.check_address(host, address.ip()))?;
        Ok(found)
    }
}

/// Without what could be a secret in it.
fn url_not_allowed(url: &Url) -> FetchError {
    FetchError::UrlNotAllowed(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()).into())
}

/// Looks names up and hands out checked addresses only. The connector connects to these and asks nobody else.
struct GuardedDns(NetworkPolicy);

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let checked = reach.check_addresses(name.as_str(), found)?;
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

    /// What a name server may answer. One bad address spoils all: the connector tries one after the other.
    #[test]
    fn resolved_addresses_are_filtered() {
        let answers = |list: &[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect::<Vec<_>>();
        let https = policy("https://login.example.com", &["10.0.0.0/24"]).unwrap();
        for (found, ok) in [
            (&["8.8.8.8"][..], true),
            (&["8.8.8.8", "10.0.0.7"], true),
            (&["8.8.8.8", "127.0.0.1"], false),
            (&["169.254.169.254"], false),
            (&["2606:4700::1", "::1"], false),
            (&["::ffff:10.0.0.7"], false),
        ] {
            assert_eq!(https.check_addresses("login.example.com", answers(found)).is_ok(), ok, "{found:?}");
        }
        let http = policy("http://localhost", &["127.0.0.0/8", "10.0.0.0/8"]).unwrap();
        for (found, ok) in
            [(&["127.0.0.1"][..], true), (&["127.0.0.1", "::1"], false), (&["10.0.0.7"], false), (&["8.8.8.8"], false)]
        {
            assert_eq!(http.check_addresses("localhost", answers(found)).is_ok(), ok, "{found:?}");
        }
    }
}
