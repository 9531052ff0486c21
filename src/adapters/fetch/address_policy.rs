//! The SSRF address policy. An external URL may lead to a public address or into a network that the
//! operator allows. Any other destination may be an attempt to reach services that only this server
//! can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Returns whether the address is not the public address of a single host: private, local, shared,
/// reserved, for documentation, multicast, or an embedded IPv4 address (IANA's special-purpose
/// registries, RFC 6890).
#[must_use]
pub fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().any(|(net, len)| (ip.to_bits() ^ net.to_bits()) >> (32 - len) == 0),
        IpAddr::V6(ip) => {
            let within = |(net, len): &(Ipv6Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (128 - len) == 0;
            !within(&PUBLIC_V6) || SPECIAL_V6.iter().any(within)
        }
    }
}

/// Returns whether the address may be connected to, given the allowed networks.
pub(super) fn is_allowed(ip: IpAddr, networks: &[IpNet]) -> bool {
    !is_special(ip) || networks.iter().any(|network| network.contains(&ip))
}

const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // shared address space of providers
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local; metadata services of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, and broadcast
];

/// Global unicast (RFC 4291 §2.4). Outside it are `::`, `::1`, IPv4-mapped and -compatible
/// addresses, NAT64 (`64:ff9b::/96`), unique local, link-local, site-local and multicast addresses,
/// and unassigned space.
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF protocols, Teredo, benchmarks
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: holds an IPv4 address
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

#[cfg(test)]
mod tests {
    use url::{Host, Url};

    use super::*;

    /// The first and the last address of each special range, and their neighbors outside.
    #[test]
    fn range_boundaries_are_exact() {
        let special = [
            "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255",
            "169.254.0.0 169.254.169.254 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.255 192.0.2.1",
            "192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.255 224.0.0.1",
            "239.255.255.255 240.0.0.0 255.255.255.255",
            ":: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::808:808",
            "64:ff9b:1::1 100::1 fc00::1 fdff::1 fe80::1 febf::1 fec0::1 ff02::1 2001::1 2001:2::1 2001:1ff::1",
            "2001:db8::1 2001:db8:ffff::1 2002:7f00:1::1 2002:808:808::1 3fff::1 3fff:fff::1 5f00::1 4000::1 1fff::1",
        ];
        let public = [
            "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255",
            "169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.88.98.1 192.167.255.255 192.169.0.0",
            "198.17.255.255 198.20.0.0 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 8.8.8.8",
            "2001:200::1 2001:db7::1 2001:db9::1 2003::1 2000::1 2606:4700:4700::1111 2a00:1450::1 3ffe::1 3fff:1000::1",
        ];
        for (list, want) in [(&special[..], true), (&public[..], false)] {
            for ip in list.iter().flat_map(|line| line.split(' ')) {
                assert_eq!(is_special(ip.parse().unwrap()), want, "{ip}");
            }
        }
    }

    /// Every spelling of an IPv4 address in a URL (decimal, octal, hex, short, full-width) is
    /// normalized before the check.
    #[test]
    fn address_spellings_are_normalized() {
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "127.0.1",
            "0",
            "0x0",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:0:0:1]",
            "[64:ff9b::169.254.169.254]",
            "[fe80::1]",
        ] {
            let url = Url::parse(&format!("https://{host}/jwks")).unwrap();
            let ip = match url.host().unwrap() {
                Host::Ipv4(ip) => IpAddr::V4(ip),
                Host::Ipv6(ip) => IpAddr::V6(ip),
                Host::Domain(name) => panic!("{host} is read as the name {name}"),
            };
            assert!(is_special(ip), "{host}");
        }
    }

    #[test]
    fn allowed_network_is_permitted() {
        let networks = ["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()];
        for (ip, want) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("::1", true), ("127.0.0.1", false), ("8.8.8.8", true)]
        {
            assert_eq!(is_allowed(ip.parse().unwrap(), &networks), want, "{ip}");
        }
        assert!(
            !is_allowed("::ffff:10.1.2.3".parse().unwrap(), &networks),
            "an embedded address is refused, even in an allowed network"
        );
    }
}
