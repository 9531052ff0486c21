//! Fetches untrusted documents over HTTPS, with limits and protection against SSRF. Wraps reqwest.
//!
//! Redirects and cookies are not used, and a proxy only if one is configured. Addresses are checked
//! at the time of connecting, in the resolver itself, so that DNS rebinding can't give a name
//! another address between check and use. A proxy resolves names itself, so behind it only
//! addresses that are part of the URL are checked.

mod address_policy;

use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use reqwest::{
    Certificate, Client, NoProxy, Proxy, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
    retry,
};
use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

pub use address_policy::is_special;
pub use reqwest::{Method, header};

use crate::{
    adapters::telemetry::inject_trace_context,
    domain::{encoding::strict_json, secret::Secret, uri::is_loopback},
};

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

/// The settings of all fetches (`[fetch]`).
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The limits of a fetch.
    pub limits: FetchLimits,
    /// The proxy for destinations other than loopback.
    pub proxy: Option<FetchProxy>,
    /// Certificate authorities (PEM) that are trusted in addition to those of the system.
    pub ca_pem: Option<Arc<str>>,
}

impl From<FetchLimits> for FetchOptions {
    fn from(limits: FetchLimits) -> Self {
        Self { limits, ..Self::default() }
    }
}

/// An HTTP proxy for fetches.
#[derive(Clone)]
pub struct FetchProxy {
    /// Its URL.
    pub url: Url,
    /// The hosts that are reached without it: names, each with the names below it, and addresses or
    /// networks.
    pub bypass: Vec<String>,
    /// `user:password`.
    pub credentials: Option<Arc<Secret>>,
}

impl fmt::Debug for FetchProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchProxy")
            .field("url", &self.url.as_str())
            .field("bypass", &self.bypass)
            .finish_non_exhaustive()
    }
}

/// What may be fetched from a destination, and whom to trust there.
#[derive(Clone, Debug, Default)]
pub struct DestinationRules {
    /// The networks with special addresses that are allowed.
    pub networks: Vec<IpNet>,
    /// Whether http is allowed, to addresses in `networks` only.
    pub allow_http: bool,
    /// The certificate authorities (PEM) that alone are trusted, instead of the usual ones.
    pub ca_pem: Option<Arc<str>>,
}

impl From<&[IpNet]> for DestinationRules {
    fn from(networks: &[IpNet]) -> Self {
        Self { networks: networks.to_vec(), ..Self::default() }
    }
}

/// A reason why a document could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The URL is not allowed.
    #[error(
        "`{0}` is not allowed; use an https URL without user information (http only for loopback addresses in `allowed_networks`, or with `allow_http`)"
    )]
    UrlNotAllowed(Box<str>),
    /// The certificate authorities can't be parsed.
    #[error("the certificate authorities (`ca_pem`, `ca_file`) are not certificates in PEM")]
    InvalidCa,
    /// The URL leads to an address at which http is not allowed.
    #[error(
        "`{host}` has the address {ip}, where http is not allowed; add a network that contains it to `allowed_networks`, or use https"
    )]
    HttpNotAllowed {
        /// The host of the URL.
        host: Box<str>,
        /// The address of the host.
        ip: IpAddr,
    },
    /// The response redirects.
    #[error(
        "the response has status {status} and redirects to `{location}`; redirects are not followed, so configure the URL of the document itself"
    )]
    Redirected {
        /// The status.
        status: StatusCode,
        /// The destination, without user information and query.
        location: Box<str>,
    },
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
    #[error("the document is not strict JSON{}", .0.as_ref().map(|media| format!("; its type is `{media}`")).unwrap_or_default())]
    NotJson(Option<Box<str>>),
}

/// Fetches documents and sends requests.
#[derive(Debug)]
pub struct Fetcher {
    options: FetchOptions,
    clients: Mutex<HashMap<NetworkPolicy, Client>>,
}

impl Fetcher {
    /// Creates a fetcher; its HTTP clients are built when they are needed. Installs the TLS
    /// provider (ring).
    #[must_use]
    pub fn new(options: impl Into<FetchOptions>) -> Self {
        // An error means that a provider is installed already: the one of `main`, which is ring as
        // well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { options: options.into(), clients: Mutex::default() }
    }

    /// Fetches a JSON document over https. `networks` are the networks with special addresses that
    /// are allowed.
    pub async fn fetch_json(&self, url: &Url, networks: &[IpNet]) -> Result<Value, FetchError> {
        self.fetch_json_from(url, &networks.into()).await
    }

    /// Fetches a JSON document. A byte order mark before it is ignored.
    pub async fn fetch_json_from(&self, url: &Url, rules: &DestinationRules) -> Result<Value, FetchError> {
        let policy = self.policy_for(url, rules)?;
        let transport = |error: reqwest::Error| FetchError::Transport(error.without_url());
        let mut headers = header::HeaderMap::new();
        inject_trace_context(&mut headers);
        let request = self.client_for(policy)?.get(url.clone()).headers(headers).header("accept", "application/json");
        let mut response = request.send().await.map_err(transport)?;
        if response.status() != StatusCode::OK {
            return Err(unexpected_status(url, &response));
        }
        let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.map(|media| media.split(';').next().unwrap_or_default().chars().take(64).collect());
        let max_bytes = self.options.limits.max_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if chunk.len() > max_bytes - body.len() {
                return Err(FetchError::TooLarge(max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
        strict_json::parse(text, MAX_JSON_DEPTH).map_err(|_| FetchError::NotJson(media))
    }

    /// Sends a request and returns the response, whatever its status. The caller reads the body
    /// chunk by chunk and limits its size.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        rules: &DestinationRules,
        headers: impl IntoIterator<Item = (header::HeaderName, header::HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<FetchResponse, FetchError> {
        let policy = self.policy_for(url, rules)?;
        let mut headers = headers.into_iter().collect::<header::HeaderMap>();
        inject_trace_context(&mut headers);
        let request = self.client_for(policy)?.request(method, url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| FetchError::Transport(error.without_url()))?;
        Ok(FetchResponse(response))
    }

    fn policy_for(&self, url: &Url, rules: &DestinationRules) -> Result<NetworkPolicy, FetchError> {
        let is_proxied = self.options.proxy.as_ref().is_some_and(|proxy| !proxy.is_bypassed(url));
        NetworkPolicy::for_url(url, rules, is_proxied)
    }

    /// Returns the client for a network policy. The resolver of reqwest belongs to a client, so
    /// each policy has its own.
    fn client_for(&self, policy: NetworkPolicy) -> Result<Client, FetchError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&policy) {
            return Ok(client.clone());
        }
        let client = self.build_client(&policy)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(policy, client.clone());
        Ok(client)
    }

    fn build_client(&self, policy: &NetworkPolicy) -> Result<Client, FetchError> {
        let builder = Client::builder()
            .timeout(self.options.limits.timeout)
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("errand/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none());
        let builder = match (&self.options.proxy, policy.is_proxied) {
            // The resolver is asked for the host of the proxy alone, which the operator chose.
            (Some(proxy), true) => builder.proxy(proxy.to_reqwest().map_err(FetchError::ClientBuild)?),
            (_, _) => builder.dns_resolver(GuardedDns(policy.clone())),
        };
        let builder = match policy.scheme {
            Scheme::Https => builder.https_only(true),
            Scheme::Http | Scheme::LoopbackHttp => builder,
        };
        let builder = match (&policy.ca_pem, &self.options.ca_pem, policy.scheme) {
            (Some(pem), _, _) => builder.tls_certs_only(parse_certificates(pem)?),
            (None, Some(pem), Scheme::Https) => builder.tls_certs_merge(parse_certificates(pem)?),
            (None, None, Scheme::Https) => builder,
            // Http works on a machine without root certificates too.
            (None, _, Scheme::Http | Scheme::LoopbackHttp) => builder.tls_certs_only([]),
        };
        builder.build().map_err(FetchError::ClientBuild)
    }
}

/// The byte order mark in UTF-8, which some servers send before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn parse_certificates(pem: &str) -> Result<Vec<Certificate>, FetchError> {
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| FetchError::InvalidCa)?;
    if certificates.is_empty() { Err(FetchError::InvalidCa) } else { Ok(certificates) }
}

/// Describes a response other than 200. The destination of a redirect is named without the parts
/// that may contain a secret.
fn unexpected_status(url: &Url, response: &reqwest::Response) -> FetchError {
    let status = response.status();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(mut location) = location.and_then(|text| url.join(text).ok()).filter(|_| status.is_redirection()) else {
        return FetchError::UnexpectedStatus(status);
    };
    location.set_query(None);
    location.set_fragment(None);
    // They fail for URLs that can't have user information.
    let _ = location.set_username("");
    let _ = location.set_password(None);
    FetchError::Redirected { status, location: location.as_str().chars().take(256).collect::<String>().into() }
}

impl FetchProxy {
    /// Returns whether a URL is reached without the proxy.
    fn is_bypassed(&self, url: &Url) -> bool {
        if is_loopback(url) {
            return true;
        }
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        self.bypass.iter().any(|rule| match (url.host(), rule.parse::<IpNet>(), rule.parse::<IpAddr>()) {
            (Some(Host::Ipv4(ip)), Ok(network), _) => network.contains(&IpAddr::V4(ip)),
            (Some(Host::Ipv6(ip)), Ok(network), _) => network.contains(&IpAddr::V6(ip)),
            (Some(Host::Ipv4(ip)), _, Ok(address)) => address == ip,
            (Some(Host::Ipv6(ip)), _, Ok(address)) => address == ip,
            (_, _, _) => {
                let name = rule.trim_start_matches('.').to_ascii_lowercase();
                host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'))
            }
        })
    }

    fn to_reqwest(&self) -> Result<Proxy, reqwest::Error> {
        let proxy = Proxy::all(self.url.clone())?.no_proxy(None::<NoProxy>);
        Ok(match self.credentials.as_ref().and_then(|text| text.expose().split_once(':')) {
            Some((user, password)) => proxy.basic_auth(user, password),
            None => proxy,
        })
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
            Self::UrlNotAllowed(_) | Self::AddressNotAllowed { .. } | Self::HttpNotAllowed { .. } => {
                Some(self.to_string())
            }
            Self::Transport(error) => {
                // A refusal by the resolver is wrapped in a connection error.
                let mut cause = StdError::source(&error);
                while let Some(inner) = cause {
                    if let Some(Self::AddressNotAllowed { .. } | Self::HttpNotAllowed { .. }) =
                        inner.downcast_ref::<Self>()
                    {
                        return Some(inner.to_string());
                    }
                    cause = inner.source();
                }
                None
            }
            Self::ClientBuild(_)
            | Self::InvalidCa
            | Self::Redirected { .. }
            | Self::UnexpectedStatus(_)
            | Self::TooLarge(_)
            | Self::NotJson(_) => None,
        }
    }
}

/// The destinations that a client may reach, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NetworkPolicy {
    scheme: Scheme,
    networks: Vec<IpNet>,
    ca_pem: Option<Arc<str>>,
    is_proxied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    LoopbackHttp,
    /// Within the networks only.
    Http,
}

impl NetworkPolicy {
    /// Returns the policy for an allowed URL. Checks an address in the URL itself, which the
    /// resolver does not see.
    fn for_url(url: &Url, rules: &DestinationRules, is_proxied: bool) -> Result<Self, FetchError> {
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" if is_loopback(url) => Scheme::LoopbackHttp,
            // A proxy could send the request outside the networks.
            "http" if rules.allow_http && !is_proxied => Scheme::Http,
            _ => return Err(url_not_allowed(url)),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(url_not_allowed(url));
        }
        let (networks, ca_pem) = (rules.networks.clone(), rules.ca_pem.clone());
        let policy = Self { scheme, networks, ca_pem, is_proxied };
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
            Scheme::LoopbackHttp => ip.is_loopback(),
            Scheme::Http if self.networks.iter().any(|network| network.contains(&ip)) => true,
            Scheme::Http => return Err(FetchError::HttpNotAllowed { host: host.into(), ip }),
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
        NetworkPolicy::for_url(&url.parse().unwrap(), &networks[..].into(), false)
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
        let rules = DestinationRules { networks: vec!["10.0.0.0/24".parse().unwrap()], allow_http: true, ca_pem: None };
        let cluster = NetworkPolicy::for_url(&"http://keys.default.svc".parse().unwrap(), &rules, false).unwrap();
        for (addresses, ok) in [
            (&["10.0.0.7"][..], true),
            (&["10.0.1.7"], false),
            (&["8.8.8.8"], false),
            (&["10.0.0.7", "8.8.8.8"], false),
        ] {
            assert_eq!(cluster.check_addresses("keys.default.svc", answers(addresses)).is_ok(), ok, "{addresses:?}");
        }
        assert!(NetworkPolicy::for_url(&"http://10.0.0.7".parse().unwrap(), &rules, true).is_err(), "by a proxy");
        let http = policy("http://localhost", &["127.0.0.0/8", "10.0.0.0/8"]).unwrap();
        for (addresses, ok) in
            [(&["127.0.0.1"][..], true), (&["127.0.0.1", "::1"], false), (&["10.0.0.7"], false), (&["8.8.8.8"], false)]
        {
            assert_eq!(http.check_addresses("localhost", answers(addresses)).is_ok(), ok, "{addresses:?}");
        }
    }

    #[test]
    fn proxy_is_bypassed_for_named_hosts_and_loopback() {
        let proxy = FetchProxy {
            url: "http://proxy.example:3128".parse().unwrap(),
            bypass: ["internal.example", ".svc.cluster.local", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
                .map(str::to_owned)
                .to_vec(),
            credentials: None,
        };
        for (url, want) in [
            ("https://login.example.com", false),
            ("https://internal.example", true),
            ("https://login.INTERNAL.example.", true),
            ("https://notinternal.example", false),
            ("https://keys.svc.cluster.local", true),
            ("https://10.1.2.3", true),
            ("https://11.1.2.3", false),
            ("https://192.0.2.7", true),
            ("https://192.0.2.8", false),
            ("https://[2001:db8::1]", true),
            ("https://[2001:db9::1]", false),
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
        ] {
            assert_eq!(proxy.is_bypassed(&url.parse().unwrap()), want, "{url}");
        }
    }
}
