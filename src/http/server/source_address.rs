//! The source address of a request: the peer of the connection, or what trusted proxies report
//! (`X-Forwarded-For`, or `Forwarded` of RFC 7239).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// Maximum proxies that are followed.
const MAX_HOPS: usize = 32;

/// The header in which proxies report the address of their client. Only one is read: a proxy that
/// sets one of them may forward the other as its client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// The reverse proxies whose reports are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Arc<[IpNet]>,
    /// The header that they set.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    /// Returns whether the address is one of a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns the source address of a request: the last address before the trusted proxies. If a
    /// proxy reports no valid address, the address of that proxy is the source.
    #[must_use]
    pub fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer.to_canonical();
        if !self.contains(source) {
            return source;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        // The last address is the one that the nearest proxy saw; a client can send the first ones.
        let mut values = headers.get_all(name).iter().collect::<Vec<_>>();
        values.reverse();
        let hops = values.into_iter().flat_map(|value| {
            let hops = value.to_str().ok().map_or_else(|| vec![None], |value| self.reported_addresses(value));
            hops.into_iter().rev()
        });
        for hop in hops.take(MAX_HOPS) {
            let Some(address) = hop else { break };
            source = address.to_canonical();
            if !self.contains(source) {
                break;
            }
        }
        source
    }

    /// Returns the addresses in a header value, in its order. `None` is one that is not valid.
    fn reported_addresses(&self, value: &str) -> Vec<Option<IpAddr>> {
        match self.header {
            ForwardedHeader::XForwardedFor => value.split(',').map(|part| parse_node(part.trim())).collect(),
            ForwardedHeader::Forwarded => split_unquoted(value, ',').into_iter().map(parse_forwarded).collect(),
        }
    }
}

/// Parses the `for` parameter of one element of `Forwarded` (RFC 7239 §4).
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let mut nodes = split_unquoted(element, ';').into_iter().filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let (value, duplicate) = (nodes.next()?, nodes.next());
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => value,
    };
    if duplicate.is_some() { None } else { parse_node(value) }
}

/// Parses an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_node(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
    address.or_else(with_port).or_else(in_brackets)
}

/// Splits at a separator outside of quoted strings (RFC 9110 §5.6.4).
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c: char| {
        let is_separator = c == separator && !is_quoted;
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        is_separator
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "2001:db8:f::/48"].map(|network| network.parse().unwrap());
        TrustedProxies { networks: networks.into(), header }
    }

    fn source(header: ForwardedHeader, name: &'static str, peer: &str, sent: &[&'static str]) -> String {
        let headers = sent.iter().map(|value| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        proxies(header).source(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn x_forwarded_for_is_believed_from_trusted_proxies_only() {
        for (peer, sent, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("2001:db8:f::1", &["2001:db8::7"], "2001:db8::7"),
            // A client may send the first addresses itself.
            ("10.0.0.1", &["203.0.113.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.1", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2, 10.0.0.3"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7,10.0.0.2:8080"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            // An address that is not valid ends the search at the proxy that reported it.
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7, "], "10.0.0.1"),
            ("10.0.0.1", &["[198.51.100.7]"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ] {
            let found = source(ForwardedHeader::XForwardedFor, "x-forwarded-for", peer, sent);
            assert_eq!(found, expected, "{peer} {sent:?}");
        }
        let other = source(ForwardedHeader::XForwardedFor, "forwarded", "10.0.0.1", &["for=198.51.100.7"]);
        assert_eq!(other, "10.0.0.1", "the other header is not read");
        let many = vec!["10.0.0.2"; 100];
        assert_eq!(source(ForwardedHeader::XForwardedFor, "x-forwarded-for", "10.0.0.1", &many), "10.0.0.2");
    }

    #[test]
    fn forwarded_header_is_parsed() {
        for (sent, expected) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"198.51.100.7:1234\";proto=https"], "198.51.100.7"),
            (&["proto=https;by=203.0.113.1;for=198.51.100.7"], "198.51.100.7"),
            (&["for=\"[2001:db8::7]:443\", for=10.0.0.2"], "2001:db8::7"),
            (&["for=203.0.113.1, for=198.51.100.7"], "198.51.100.7"),
            (&["for=203.0.113.1;host=\"a,for=9.9.9.9\", for=198.51.100.7;host=\"x\\\",for=9.9.9.9\""], "198.51.100.7"),
            (&["for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=unknown"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
            (&["for=198.51.100.7;for=198.51.100.8"], "10.0.0.1"),
            (&["for=\"198.51.100.7"], "10.0.0.1"),
        ] {
            assert_eq!(source(ForwardedHeader::Forwarded, "forwarded", "10.0.0.1", sent), expected, "{sent:?}");
        }
        let other = source(ForwardedHeader::Forwarded, "x-forwarded-for", "10.0.0.1", &["198.51.100.7"]);
        assert_eq!(other, "10.0.0.1", "the other header is not read");
    }
}
