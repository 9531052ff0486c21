//! `[fetch]`: how Errand fetches documents of other parties.

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

use crate::config::{
    node::{Node, Section},
    sections::secrets,
};
use crate::domain::secret::Secret;

/// `[fetch]`
#[derive(Debug, Default)]
pub struct Fetch {
    /// The private and special-purpose networks that objects registered over REST may name.
    pub networks: Vec<IpNet>,
    /// The proxy for fetches.
    pub proxy: Option<Proxy>,
    /// Certificate authorities (PEM) that are trusted besides those of the system.
    pub ca_pem: Option<String>,
}

/// The proxy of `[fetch]`.
#[derive(Debug)]
pub struct Proxy {
    /// Its URL.
    pub url: Url,
    /// The hosts that are reached without it.
    pub no_proxy: Vec<String>,
    /// `user:password`.
    pub credentials: Option<Secret>,
}

pub(in crate::config) fn read_fetch(root: &mut Section<'_>) -> Fetch {
    let mut section = root.section("fetch");
    let networks = section.optional("networks", |node| read_networks(&node)).unwrap_or_default();
    let url = section.optional("proxy", |node| read_proxy_url(&node));
    let no_proxy = section.get("no_proxy");
    let hosts = no_proxy.as_ref().and_then(|node| node.elements(|item| item.non_empty_string())).unwrap_or_default();
    let credentials = section.get("proxy_credentials_file");
    for node in [&no_proxy, &credentials].into_iter().flatten().filter(|_| url.is_none()) {
        node.error("has no effect without `proxy`", "set `proxy`, or remove this key");
    }
    let credentials = credentials.and_then(|node| read_credentials(&node));
    let ca_pem = section.optional("ca_file", |node| read_ca_file(&node));
    Fetch { networks, proxy: url.map(|url| Proxy { url, no_proxy: hosts, credentials }), ca_pem }
}

/// Reads a list of networks in CIDR notation.
pub(in crate::config) fn read_networks(node: &Node<'_>) -> Option<Vec<IpNet>> {
    node.elements(|item| item.parse("write a network in CIDR notation, such as `10.0.0.0/8`"))
}

fn read_proxy_url(node: &Node<'_>) -> Option<Url> {
    let remedy = "write the URL of an HTTP proxy, such as `http://proxy.example.com:3128`";
    // The text is not shown: it may contain a password.
    let url = Url::parse(node.string()?).map_err(|error| node.error(error, remedy)).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        node.error("secrets must not be in this file", "name a file with `user:password` in `proxy_credentials_file`");
        return None;
    }
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        node.error("is not the URL of an HTTP proxy", remedy);
        return None;
    }
    Some(url)
}

fn read_credentials(node: &Node<'_>) -> Option<Secret> {
    let text = secrets::read_secret(node)?;
    if !text.contains(':') {
        node.error("the file does not contain `user:password`", "write user name, colon and password on one line");
        return None;
    }
    Some(Secret::new(text.to_string()))
}

/// Reads a file with certificates in PEM.
pub(in crate::config) fn read_ca_file(node: &Node<'_>) -> Option<String> {
    let remedy = "name a file with the certificates of the authorities in PEM";
    let pem = secrets::read_file(node)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    if certificates.is_ok_and(|certificates| !certificates.is_empty())
        && let Ok(pem) = std::str::from_utf8(&pem)
    {
        return Some(pem.to_owned());
    }
    node.error("contains no PEM certificate", remedy);
    None
}
