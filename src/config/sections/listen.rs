//! `listen`, `operations_listen`: the addresses of the listeners, and the proxies in front of them.

use std::net::{AddrParseError, Ipv4Addr, SocketAddr, SocketAddrV4};

use ipnet::IpNet;
use serde::Deserialize;

use crate::config::{
    DEV_LISTEN, LISTEN_VARIABLE, OPERATIONS_LISTEN_VARIABLE,
    node::{Node, Section, StringOrSection},
    sections::secrets::read_variable,
};

/// The default address of the operations listener.
const OPERATIONS_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));

/// The public listener, and what is in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address of the public listener.
    pub address: SocketAddr,
    /// Networks of reverse proxies, whose reports of source addresses are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which these proxies report their client.
    pub forwarded_header: ForwardedHeader,
}

/// The header in which a proxy reports the address of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// Reads `listen`: an address, or a table.
pub(in crate::config) fn read_listen(root: &mut Section<'_>) -> Listen {
    let at = |address| Listen { address, trusted_proxies: Vec::new(), forwarded_header: ForwardedHeader::default() };
    let listen = root.optional("listen", |node| {
        let mut section = match node.string_or_section()? {
            StringOrSection::String(_) => return read_address(&node).map(at),
            StringOrSection::Section(section) => section,
        };
        let address = section.optional("address", |node| read_address(&node)).unwrap_or(DEV_LISTEN);
        let networks = section.optional("trusted_proxies", |node| {
            node.elements(|item| item.parse("write a network in CIDR notation, such as `10.0.0.0/8` or `192.0.2.1/32`"))
        });
        let header = section.optional("forwarded_header", |node| node.parse_keyword());
        Some(Listen {
            address,
            trusted_proxies: networks.unwrap_or_default(),
            forwarded_header: header.unwrap_or_default(),
        })
    });
    let mut listen = listen.unwrap_or_else(|| at(DEV_LISTEN));
    if let Some(address) = read_address_variable(root, LISTEN_VARIABLE) {
        listen.address = address;
    }
    listen
}

/// Reads the address of the operations listener. Returns `None` if it is the address of the public
/// one.
pub(in crate::config) fn read_operations_listen(root: &mut Section<'_>, listen: SocketAddr) -> Option<SocketAddr> {
    let address = root.optional("operations_listen", |node| read_address(&node));
    let address = read_address_variable(root, OPERATIONS_LISTEN_VARIABLE).or(address);
    Some(address.unwrap_or(OPERATIONS_LISTEN)).filter(|address| *address != listen)
}

const ADDRESS_HINT: &str = "write an IP address and a port, such as `127.0.0.1:8080`";

fn read_address(node: &Node<'_>) -> Option<SocketAddr> {
    node.parse(ADDRESS_HINT)
}

/// Reads an address from the environment, which differs between replicas that share a file.
fn read_address_variable(root: &Section<'_>, variable: &str) -> Option<SocketAddr> {
    let document = root.location.document;
    let text = read_variable(document, variable)?;
    let report = |error: AddrParseError| {
        let reason = format!("`{}`: {error}", text.escape_debug());
        document.add_environment_error(variable, reason, ADDRESS_HINT.to_owned());
    };
    text.trim().parse().map_err(report).ok()
}
