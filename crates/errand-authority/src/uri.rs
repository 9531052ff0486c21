//! URLs that identify parties: issuers (compared as strings) and resources (compared in canonical
//! form).

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use url::{Host, Url};

use crate::encoding::serde_text;

const MAX_URL_LEN: usize = 2048;

/// The reason why a text is not a URL of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Relative, malformed or over 2048 bytes.
    #[error("not an absolute URL of at most 2048 bytes")]
    Malformed,
    /// Neither https nor http.
    #[error("https is required, or http where it is allowed")]
    NotHttps,
    /// A fragment (RFC 8707 §2) or, in an issuer, a query (RFC 8414 §2).
    #[error("a fragment (and, in an issuer, a query) is not allowed")]
    QueryOrFragment,
    /// A user name or a password.
    #[error("user information is not allowed")]
    UserInfo,
    /// A text that a lenient parser would correct, such as `https:example.com` or `/a/../b`.
    #[error(
        "not in normal form; write `https://`, the host, the port if there is one, and a path without dot segments"
    )]
    NotNormalized,
}

/// The issuer identifier of an authorization server (RFC 8414 §2): a URL without query or fragment.
/// Compared as a string. RFC 8414 asks for https, but some identity providers have a name with
/// http, which is only a name: nothing is fetched from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerUrl(Arc<str>);

impl IssuerUrl {
    /// Returns the identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a URL leads to this issuer, in any spelling that the URL standard accepts. A
    /// trailing slash makes another identifier, but leads to the same location.
    #[must_use]
    pub fn is_same_location(&self, url: &str) -> bool {
        let location = |text: &str| {
            let parsed = Url::parse(text).map_or_else(|_| text.to_owned(), String::from);
            parsed.trim_end_matches('/').to_owned()
        };
        *self.0 == *url || location(&self.0) == location(url)
    }

    /// Returns whether the URL is https, or http with a loopback address.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        is_secure(&self.0)
    }

    /// Returns a URL below this issuer, such as its token endpoint.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }
}

impl FromStr for IssuerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if plain_path(text).is_none() {
            let url = parse_url(text)?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err(UrlError::QueryOrFragment);
            }
        }
        Ok(Self(text.into()))
    }
}

/// The canonical URI of an MCP server (RFC 8707 §2): the only `aud` of a task token for it.
///
/// Scheme and host are lower-cased; a default port and the slash of an empty path are dropped.
/// Every other difference, such as a trailing slash after a path, makes another resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceUri(Arc<str>);

impl ResourceUri {
    /// Returns the canonical URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ResourceUri {
    /// Returns whether the URI is https, or http with a loopback address.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        is_secure(&self.0)
    }
}

impl FromStr for ResourceUri {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if plain_path(text).is_some_and(|path| path != "/") {
            return Ok(Self(text.into()));
        }
        let url = parse_url(text)?;
        if url.fragment().is_some() {
            return Err(UrlError::QueryOrFragment);
        }
        let bare = url.path() == "/" && url.query().is_none();
        let canonical = if bare { url.as_str().trim_end_matches('/') } else { url.as_str() };
        // Escaping lengthens the text, and an accepted URI must be accepted again from the store.
        (canonical.len() <= MAX_URL_LEN).then(|| Self(canonical.into())).ok_or(UrlError::Malformed)
    }
}

/// Returns the path of a URL that is evidently valid and already in the URL standard's normal form.
///
/// This fast path covers few of all URLs, but nearly all that identify parties, and every token
/// contains some. `None` says nothing about a text.
fn plain_path(text: &str) -> Option<&str> {
    let (is_https, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let (is_host, default_port) =
        if is_https { (is_plain_host(host), "443") } else { (matches!(host, "127.0.0.1" | "localhost"), "80") };
    let is_port = |port: &str| port != default_port && !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok();
    let is_plain = text.len() <= MAX_URL_LEN && is_host && port.is_none_or(is_port) && is_plain_path(path);
    is_plain.then_some(path)
}

/// Returns whether a host is a domain of lower-case labels with single hyphens inside. `xn--`
/// starts an internationalized label, which the standard decodes. The last label begins with a
/// letter, since it could be an IPv4 address otherwise.
fn is_plain_host(host: &str) -> bool {
    let (mut previous, mut length) = (b'.', 0);
    for b in host.bytes() {
        length = if b == b'.' { 0 } else { length + 1 };
        let is_inside = !matches!(previous, b'.' | b'-');
        if length > 63 || !(b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-') && is_inside) {
            return false;
        }
        previous = b;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && previous != b'-' && last.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Returns whether a path has plain characters and no segment that begins with a dot: some of these
/// mean another path.
fn is_plain_path(path: &str) -> bool {
    let mut previous = b'/';
    path.bytes().all(|b| {
        let is_hidden = b == b'.' && previous == b'/';
        previous = b;
        !is_hidden && (b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/'))
    })
}

fn parse_url(text: &str) -> Result<Url, UrlError> {
    // The URL standard ignores some white space and control characters; an identifier must have
    // none.
    if text.len() > MAX_URL_LEN || text.bytes().any(|b| b <= 0x20 || b >= 0x7f || b == b'\\') {
        return Err(UrlError::Malformed);
    }
    let url = Url::parse(text).map_err(|_| UrlError::Malformed)?;
    match url.scheme() {
        "https" | "http" => {}
        _ => return Err(UrlError::NotHttps),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::UserInfo);
    }
    if is_normalized(text, &url) { Ok(url) } else { Err(UrlError::NotNormalized) }
}

/// Returns whether a text has the form that the parser returned. The parser of the URL standard
/// reads `http:127.0.0.1`, `127.1`, `0x7f.0.0.1` and `/a/../b` as if they were written correctly,
/// so that an identifier would have spellings that another party reads otherwise.
///
/// The case of scheme and host, a default port and the slash of an empty path may differ (RFC 3986
/// §6.2.2.1, §6.2.3).
fn is_normalized(text: &str, url: &Url) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (authority, tail) = rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len())).unwrap_or_default();
    // The colons of an IPv6 address are inside its brackets.
    let port_at = authority.rfind(':').filter(|at| authority.rfind(']').is_none_or(|bracket| bracket < *at));
    let (host, port) = port_at.and_then(|at| authority.split_at_checked(at)).unwrap_or((authority, ""));
    let has_port = match port.strip_prefix(':') {
        None => url.port().is_none(),
        Some(port) => url.port_or_known_default().is_some_and(|number| number.to_string() == port),
    };
    let normalized = url.as_str();
    let normalized_tail = normalized.find("://").and_then(|at| normalized.get(at + "://".len()..)).and_then(|rest| {
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        rest.get(at..)
    });
    let has_tail = normalized_tail.is_some_and(|normalized| {
        normalized == tail || !tail.starts_with('/') && normalized.strip_prefix('/') == Some(tail)
    });
    scheme.eq_ignore_ascii_case(url.scheme())
        && url.host_str().is_some_and(|normalized| host.eq_ignore_ascii_case(normalized))
        && has_port
        && has_tail
        && has_only_uri_characters(tail)
}

/// Returns whether a path with query and fragment consists of the characters of RFC 3986 §3.3 to
/// §3.5, and its escapes are complete.
fn has_only_uri_characters(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?#%".contains(&b);
    let is_escape = |rest: &str| rest.as_bytes().iter().take(2).filter(|b| b.is_ascii_hexdigit()).count() == 2;
    text.bytes().all(is_allowed) && text.split('%').skip(1).all(is_escape)
}

fn is_secure(url: &str) -> bool {
    // Accepted texts keep the case of an issuer's scheme.
    Url::parse(url).is_ok_and(|url| url.scheme() == "https" || is_loopback(&url))
}

/// Returns whether the URL's host is a loopback address or `localhost`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

macro_rules! text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                serde_text::read(input)
            }
        }

        impl From<$name> for String {
            fn from(url: $name) -> Self {
                url.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(IssuerUrl);
text!(ResourceUri);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resource_uri_is_canonicalized() {
        for (text, want) in [
            ("https://Files.Example.com/mcp", Ok("https://files.example.com/mcp")),
            ("HTTPS://files.example.com:443/mcp", Ok("https://files.example.com/mcp")),
            ("https://files.example.com/", Ok("https://files.example.com")),
            ("https://files.example.com", Ok("https://files.example.com")),
            ("https://files.example.com/mcp/", Ok("https://files.example.com/mcp/")),
            ("http://127.0.0.1:9203/mcp", Ok("http://127.0.0.1:9203/mcp")),
            ("http://files.example.com/mcp", Ok("http://files.example.com/mcp")),
            ("HTTP://Files.default.svc.cluster.local:80/mcp", Ok("http://files.default.svc.cluster.local/mcp")),
            ("ws://files.example.com/mcp", Err(UrlError::NotHttps)),
            ("https://files.example.com/mcp#a", Err(UrlError::QueryOrFragment)),
            ("https://files.example.com/mcp#", Err(UrlError::QueryOrFragment)),
            ("https://a:b@files.example.com/mcp", Err(UrlError::UserInfo)),
            ("https://files.example.com/\n", Err(UrlError::Malformed)),
            ("https:\\\\files.example.com", Err(UrlError::Malformed)),
            ("urn:example:files", Err(UrlError::NotHttps)),
            ("/mcp", Err(UrlError::Malformed)),
            ("", Err(UrlError::Malformed)),
            ("http://LocalHost:80/mcp", Ok("http://localhost/mcp")),
            ("https://[2001:DB8::1]:8443/mcp?a=b", Ok("https://[2001:db8::1]:8443/mcp?a=b")),
            ("https://[2001:db8::1]", Ok("https://[2001:db8::1]")),
            ("https://files.example.com?a=b", Ok("https://files.example.com/?a=b")),
            ("https://files.example.com/%6Dcp/a%2Fb;c=d", Ok("https://files.example.com/%6Dcp/a%2Fb;c=d")),
            ("https://files.example.com./mcp", Ok("https://files.example.com./mcp")),
        ] {
            let got = text.parse::<ResourceUri>();
            assert_eq!(got.as_ref().map(ResourceUri::as_str), want.as_ref().map(|s| *s), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// The fast path accepts only what the URL parser returns unchanged.
        #[test]
        fn plain_path_agrees_with_url_parser(
            scheme in "(https|http|HTTPS|wss)",
            host in "((localhost|127\\.0\\.0\\.1|[a-z0-9.-]{1,8}|[a-z0-9]{1,3}(\\.(com|a|0x1|1|xn--a|-a|a-|A))?|\\[::1\\])\\.?|a{62,64}\\.com|(a{50}\\.){3,6}com)",
            port in "(:(0?[1-9][0-9]{0,5}|443|80|\\+1|0)?)?",
            path in "((/[a-zA-Z0-9._~-]{0,3}|/\\.|/\\.\\.|/%2e|/ |/\\\\|/a@b|//){0,4}|/{0,2}|/a{2040}|\\?a|#a)",
        ) {
            let text = format!("{scheme}://{host}{port}{path}");
            if let Some(path) = plain_path(&text) {
                let url = super::parse_url(&text);
                let want = if path.is_empty() { format!("{text}/") } else { text.clone() };
                prop_assert_eq!(url.as_ref().map(Url::as_str), Ok(want.as_str()));
                prop_assert!(url.is_ok_and(|url| url.query().is_none() && url.fragment().is_none()));
            }
        }
    }

    #[test]
    fn plain_path_recognizes_common_urls() {
        for (text, want) in [
            ("https://files.example.com/mcp", Some("/mcp")),
            ("https://files.example.com:8443/a/b-c/~d_e.f/", Some("/a/b-c/~d_e.f/")),
            ("https://login.example.com/", Some("/")),
            ("https://login.example.com", Some("")),
            ("http://127.0.0.1:9203/mcp", Some("/mcp")),
            ("http://localhost:80/mcp", None),
            ("http://files.example.com/mcp", None),
            ("https://files.example.com:443/mcp", None),
            ("https://files.example.com:65536/mcp", None),
            ("https://files.example.com/a/../b", None),
            ("https://files.example.com/%6dcp", None),
            ("https://Files.example.com/mcp", None),
            ("https://files.example.com./mcp", None),
            ("https://a@files.example.com/mcp", None),
            ("https://1.2.3.4/mcp", None),
            ("https://xn--mnchen-3ya.example/mcp", None),
        ] {
            assert_eq!(plain_path(text), want, "{text}");
        }
    }

    /// Each is another text for `https://127.0.0.1/x`, `https://a.example/b` or the like, to a
    /// lenient parser.
    #[test]
    fn url_that_is_not_in_normal_form_is_rejected() {
        for text in [
            "https:a.example/b",
            "https:/a.example/b",
            "https:///a.example/b",
            "http:127.0.0.1:9/x",
            "http://127.1/x",
            "http://127.0.1/x",
            "http://0x7f.0.0.1/x",
            "http://0177.0.0.1/x",
            "http://2130706433/x",
            "http://127.0.0.1./x",
            "http://[0:0:0:0:0:0:0:1]/x",
            "http://[::0.0.0.1]/x",
            "https://[2001:db8:0:0::1]/x",
            "https://%61.example/b",
            "https://a%2eexample/b",
            "https://a.example:/b",
            "https://a.example:0443/b",
            "https://a.example:08443/b",
            "https://@a.example/b",
            "https://:@a.example/b",
            "https://a.example/a/../b",
            "https://a.example/./b",
            "https://a.example/b/.",
            "https://a.example/b/..",
            "https://a.example/a/%2e%2e/b",
            "https://a.example/a/.%2E/b",
            "https://a.example/%2e/b",
            "https://a.example/<b>",
            "https://a.example/{b}",
            "https://a.example/b|c",
            "https://a.example/b`c",
            "https://a.example/b^c",
            "https://a.example/\"b\"",
            "https://a.example/b?\"c\"",
            "https://a.example/b?<c>",
            "https://a.example/b%",
            "https://a.example/b%2",
            "https://a.example/b%zz",
            "https://a.example/b?c=%",
        ] {
            let want = Err(UrlError::NotNormalized);
            assert_eq!(text.parse::<ResourceUri>().map(String::from), want, "{text}");
            let issuer = text.parse::<IssuerUrl>().map(String::from);
            assert!(
                issuer == want || text.contains('?') && issuer == Err(UrlError::QueryOrFragment),
                "{text} {issuer:?}"
            );
        }
    }

    proptest! {
        /// A resource has one canonical URI, and that is read as it is.
        #[test]
        fn canonical_uri_is_a_fixed_point(text in "(https|http|HTTPS)://(a|A\\.b|127\\.0\\.0\\.1|\\[::1\\]|xn--a)(:443|:80|:1)?(/[a-z%.]{0,4}){0,3}(\\?[a-z/%]{0,3})?") {
            if let Ok(uri) = text.parse::<ResourceUri>() {
                prop_assert_eq!(uri.as_str().parse::<ResourceUri>(), Ok(uri.clone()));
            }
        }
    }

    #[test]
    fn http_is_secure_on_loopback_addresses_only() {
        for (text, want) in [
            ("https://login.example.com", true),
            ("HTTPS://login.example.com", true),
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:8080", true),
            ("http://login.example.com/adfs/services/trust", false),
            ("HTTP://login.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://127.0.0.1@login.example.com", false),
        ] {
            let issuer = text.parse::<IssuerUrl>();
            assert_eq!(issuer.is_ok_and(|issuer| issuer.is_secure()), want, "{text}");
            let resource = text.parse::<ResourceUri>();
            assert_eq!(resource.is_ok_and(|resource| resource.is_secure()), want, "{text}");
        }
    }

    #[test]
    fn issuer_url_is_compared_verbatim() {
        let slash = "https://login.example.com/".parse::<IssuerUrl>().unwrap();
        let bare = "https://login.example.com".parse::<IssuerUrl>().unwrap();
        assert_ne!(slash, bare);
        assert_eq!(slash.join("/oauth2/token"), bare.join("/oauth2/token"));
        assert_eq!("https://login.example.com/?a=b".parse::<IssuerUrl>(), Err(UrlError::QueryOrFragment));
        for same in [
            "https://login.example.com",
            "https://login.example.com/",
            "https://login.example.com//",
            "HTTPS://Login.Example.com:443",
            "https:login.example.com",
            "https://login.example.com/a/..",
            " https://login.example.com\n",
        ] {
            assert!(bare.is_same_location(same) && slash.is_same_location(same), "{same}");
        }
        for other in
            ["https://login.example.com:444", "http://login.example.com", "https://login.example.com/a", "login", ""]
        {
            assert!(!bare.is_same_location(other) && !slash.is_same_location(other), "{other}");
        }
    }
}
