//! The two URLs that name parties: an issuer (compared as a string) and a resource (compared in its canonical form).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::{Host, Url};

const MAX_URL_LEN: usize = 2048;

/// Why a text is no URL of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidUrl {
    /// Relative, malformed or over 2048 bytes.
    #[error("not an absolute URL of at most 2048 bytes")]
    Malformed,
    /// Neither https nor http on this machine.
    #[error("https is needed (http is for loopback addresses only)")]
    NotHttps,
    /// It has a fragment (RFC 8707 §2) or, in an issuer, a query (RFC 8414 §2).
    #[error("a fragment (and, in an issuer, a query) is not allowed")]
    ExtraPart,
    /// It has a user name or a password.
    #[error("user information is not allowed")]
    UserInfo,
}

/// The issuer identifier of an authorization server (RFC 8414 §2): https, no query, no fragment. Compared as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IssuerUrl(Box<str>);

impl IssuerUrl {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a URL leads to this issuer: a slash at the end, which tells two names apart, leads nowhere else.
    #[must_use]
    pub fn is_place_of(&self, url: &str) -> bool {
        self.0.trim_end_matches('/') == url.trim_end_matches('/')
    }

    /// A URL below this issuer, such as its token endpoint.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }
}

impl FromStr for IssuerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let url = parse(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidUrl::ExtraPart);
        }
        Ok(Self(text.into()))
    }
}

/// The canonical URI of an MCP server (RFC 8707 §2): the one `aud` of a task token for it.
///
/// Scheme and host are lower-cased, a default port and the slash of an empty path are dropped; every other difference,
/// a trailing slash after a path included, makes another resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceUri(Box<str>);

impl ResourceUri {
    /// The canonical URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceUri {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let url = parse(text)?;
        if url.fragment().is_some() {
            return Err(InvalidUrl::ExtraPart);
        }
        let bare = url.path() == "/" && url.query().is_none();
        let canonical = if bare { url.as_str().trim_end_matches('/') } else { url.as_str() };
        // Escapes make it longer, and what is taken here must be taken again when it is read from the store.
        (canonical.len() <= MAX_URL_LEN).then(|| Self(canonical.into())).ok_or(InvalidUrl::Malformed)
    }
}

fn parse(text: &str) -> Result<Url, InvalidUrl> {
    // The URL standard forgives blanks and control characters; a name of a party may not have them.
    if text.len() > MAX_URL_LEN || text.bytes().any(|b| b <= 0x20 || b >= 0x7f || b == b'\\') {
        return Err(InvalidUrl::Malformed);
    }
    let url = Url::parse(text).map_err(|_| InvalidUrl::Malformed)?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        _ => return Err(InvalidUrl::NotHttps),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidUrl::UserInfo);
    }
    Ok(url)
}

/// Whether the URL's host is this machine, said as an address or as `localhost`.
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
        impl TryFrom<String> for $name {
            type Error = InvalidUrl;

            fn try_from(text: String) -> Result<Self, InvalidUrl> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(url: $name) -> Self {
                url.0.into()
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
    use super::*;

    #[test]
    fn a_resource_has_one_name() {
        for (text, want) in [
            ("https://Files.Example.com/mcp", Ok("https://files.example.com/mcp")),
            ("HTTPS://files.example.com:443/mcp", Ok("https://files.example.com/mcp")),
            ("https://files.example.com/", Ok("https://files.example.com")),
            ("https://files.example.com", Ok("https://files.example.com")),
            ("https://files.example.com/mcp/", Ok("https://files.example.com/mcp/")),
            ("http://127.0.0.1:9203/mcp", Ok("http://127.0.0.1:9203/mcp")),
            ("http://files.example.com/mcp", Err(InvalidUrl::NotHttps)),
            ("http://127.0.0.1.example.com/mcp", Err(InvalidUrl::NotHttps)),
            ("https://files.example.com/mcp#a", Err(InvalidUrl::ExtraPart)),
            ("https://files.example.com/mcp#", Err(InvalidUrl::ExtraPart)),
            ("https://a:b@files.example.com/mcp", Err(InvalidUrl::UserInfo)),
            ("https://files.example.com/\n", Err(InvalidUrl::Malformed)),
            ("https:\\\\files.example.com", Err(InvalidUrl::Malformed)),
            ("urn:example:files", Err(InvalidUrl::NotHttps)),
            ("/mcp", Err(InvalidUrl::Malformed)),
            ("", Err(InvalidUrl::Malformed)),
        ] {
            let got = text.parse::<ResourceUri>();
            assert_eq!(got.as_ref().map(ResourceUri::as_str), want.as_ref().map(|s| *s), "{text}");
        }
    }

    #[test]
    fn an_issuer_is_what_it_is_written_as() {
        let slash = "https://login.example.com/".parse::<IssuerUrl>().unwrap();
        let bare = "https://login.example.com".parse::<IssuerUrl>().unwrap();
        assert_ne!(slash, bare);
        assert_eq!(slash.join("/oauth2/token"), bare.join("/oauth2/token"));
        assert_eq!("https://login.example.com/?a=b".parse::<IssuerUrl>(), Err(InvalidUrl::ExtraPart));
    }
}
