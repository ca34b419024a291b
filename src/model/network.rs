//! Networks of addresses: whether one contains an address, and by which one a client is counted.

use std::net::{IpAddr, Ipv6Addr};

/// Whether a network, as an address and how many of its bits count, contains an address of its own kind.
pub fn contains((network, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    let bits = u32::from(bits);
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            (network.to_bits() ^ ip.to_bits()).leading_zeros() >= bits.min(32)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            (network.to_bits() ^ ip.to_bits()).leading_zeros() >= bits.min(128)
        }
        _ => false,
    }
}

/// What an address is counted as: of IPv6 its /64, for whoever has one address usually has all of it.
pub fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}
