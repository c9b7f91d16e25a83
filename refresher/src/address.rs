//! The places at which addresses are, and those at which the accounts of a platform may be: on the internet, or, where a
//! profile says so, in the operator's own network as well.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses at which accounts of a platform may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// Addresses of the internet.
    #[default]
    Public,
    /// Addresses of this machine and of private networks as well: models are hosted there.
    Own,
}

/// A kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the internet.
    Internet,
    /// This machine.
    ThisMachine,
    /// In a private network, or one between a provider and its customers.
    Private,
    /// A place at which no platform can be: link-local, a cloud's metadata among them, multicast, unspecified.
    Nowhere,
}

/// The metadata services of clouds whose addresses look like others'.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Place {
    /// Returns what `address` is. One of IPv6 that stands for one of IPv4 is that.
    pub fn of(address: IpAddr) -> Place {
        let address = inner(address);
        if METADATA.contains(&address) {
            return Place::Nowhere;
        }
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }
}

fn of_v4(v4: Ipv4Addr) -> Place {
    let [first, second, third, _] = v4.octets();
    let is_nowhere = v4.is_link_local()
        || v4.is_multicast()
        || first == 0
        || first >= 240
        || v4.is_documentation();
    let is_private = v4.is_private()
        || (first == 100 && second & 0xc0 == 64) // RFC 6598
        || (first == 198 && second & 0xfe == 18) // RFC 2544
        || (first == 192 && second == 0 && third == 0); // RFC 6890
    match () {
        () if is_nowhere => Place::Nowhere,
        () if v4.is_loopback() => Place::ThisMachine,
        () if is_private => Place::Private,
        () => Place::Internet,
    }
}

fn of_v6(v6: Ipv6Addr) -> Place {
    let is_site_local = v6.segments()[0] & 0xffc0 == 0xfec0; // RFC 3879
    match () {
        () if v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified() => {
            Place::Nowhere
        }
        () if v6.is_loopback() => Place::ThisMachine,
        () if v6.is_unique_local() || is_site_local => Place::Private,
        () => Place::Internet,
    }
}

/// The address of IPv4 that one of IPv6 carries: mapped, compatible, 6to4 (RFC 3056), NAT64 (RFC 6052).
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => embedded(high, low),
        [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        _ => IpAddr::V6(v6),
    }
}

/// An address to which no account of the platform may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Refused(Place);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.0 {
            Place::Nowhere | Place::Internet => {
                return formatter.write_str(
                    "expected the address of a platform, found one that is link-local, multicast, unspecified or a cloud's \
                     metadata",
                );
            }
            Place::ThisMachine => "this machine",
            Place::Private => "a private network",
        };
        write!(
            formatter,
            "expected the address of a platform, found one of {found}"
        )
    }
}

impl Refused {
    /// True where a platform of the operator's own could be.
    pub fn is_own_network(self) -> bool {
        matches!(self.0, Place::ThisMachine | Place::Private)
    }
}

impl Network {
    /// Refuses an address that does not belong to it.
    ///
    /// # Errors
    /// Saying what it is.
    pub fn check(self, address: IpAddr) -> Result<(), Refused> {
        match (Place::of(address), self) {
            (Place::Internet, _) | (Place::ThisMachine | Place::Private, Network::Own) => Ok(()),
            (place, _) => Err(Refused(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_write_an_address_is_that_address() {
        for (url, place) in [
            ("https://127.1", Place::ThisMachine),
            ("https://2130706433", Place::ThisMachine),
            ("https://0x7f.1", Place::ThisMachine),
            ("https://0177.0.0.1", Place::ThisMachine),
            ("https://[::1]", Place::ThisMachine),
            ("https://[::ffff:127.0.0.1]", Place::ThisMachine),
            ("https://[::127.0.0.1]", Place::ThisMachine),
            ("https://10.0.0.1", Place::Private),
            ("https://172.16.0.1", Place::Private),
            ("https://192.168.1.5", Place::Private),
            ("https://100.64.0.1", Place::Private),
            ("https://[fd12::1]", Place::Private),
            ("https://[64:ff9b::10.0.0.1]", Place::Private),
            ("https://[2002:a00:1::]", Place::Private),
            ("https://8.8.8.8", Place::Internet),
            ("https://[2606:4700::1111]", Place::Internet),
        ] {
            // As every reader of URLs takes it.
            let url = reqwest::Url::parse(url).unwrap();
            let host = url.host_str().unwrap();
            let address = host.trim_matches(['[', ']']).parse().unwrap();
            assert_eq!(Place::of(address), place, "{url}");
            let is_own = place != Place::Internet;
            assert_eq!(Network::Public.check(address).is_err(), is_own, "{url}");
            assert!(Network::Own.check(address).is_ok(), "{url}");
        }
        for nowhere in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "fe80::1",
            "ff02::1",
            "::",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            let address = nowhere.parse().unwrap();
            assert_eq!(Place::of(address), Place::Nowhere, "{nowhere}");
            assert!(Network::Own.check(address).is_err(), "{nowhere}");
        }
    }

    proptest! {
        /// An address of IPv6 is as far away as the address of IPv4 that it carries, whatever that is.
        #[test]
        fn an_address_in_another_is_as_far(v4: [u8; 4]) {
            let bare = Ipv4Addr::from(v4);
            let [a, b, c, d] = v4;
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let carriers = [
                bare.to_ipv6_mapped(),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            ];
            for carrier in carriers {
                prop_assert_eq!(Place::of(carrier.into()), Place::of(bare.into()));
            }
        }
    }
}
