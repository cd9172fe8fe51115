//! The network interfaces of this machine, in the order in which the identity visits them.

use std::fmt::Write;

/// What the system tells of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name, as `eth0`.
    pub name: String,
    /// Lower-case hexadecimal with colons, where it has a link address.
    pub mac: Option<String>,
    has_ipv4: bool,
    has_ipv6: bool,
}

impl Interface {
    /// An interface for which the system lists these kinds of addresses.
    pub fn new(name: &str, mac: Option<&str>, has_ipv4: bool, has_ipv6: bool) -> Self {
        Self { name: name.to_owned(), mac: mac.map(str::to_owned), has_ipv4, has_ipv6 }
    }
}

/// The interfaces with an IPv4 address in system order, then those with only IPv6, then those with a link address alone
/// (worker-miner spec 7). Empty where the system does not tell.
pub fn list() -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let index = interfaces.iter().position(|known| known.name == entry.interface_name).unwrap_or_else(|| {
            interfaces.push(Interface::new(&entry.interface_name, None, false, false));
            interfaces.len() - 1
        });
        let interface = &mut interfaces[index];
        let Some(address) = entry.address else { continue };
        if address.as_sockaddr_in().is_some() {
            interface.has_ipv4 = true;
        } else if address.as_sockaddr_in6().is_some() {
            interface.has_ipv6 = true;
        } else if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            interface.mac = Some(mac_text(mac));
        }
    }
    in_visiting_order(interfaces)
}

/// Sorts by address family and keeps system order within one.
fn in_visiting_order(mut interfaces: Vec<Interface>) -> Vec<Interface> {
    interfaces.sort_by_key(|interface| match (interface.has_ipv4, interface.has_ipv6) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    });
    interfaces
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.iter().enumerate().fold(String::new(), |mut text, (place, byte)| {
        let separator = if place == 0 { "" } else { ":" };
        let _ = write!(text, "{separator}{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_with_ipv4_come_first_in_system_order_then_ipv6_then_the_rest() {
        let bare = Interface::new("ens1", None, false, false);
        let six = Interface::new("ens2", None, false, true);
        let both = Interface::new("ens3", None, true, true);
        let four = Interface::new("ens4", None, true, false);
        let ordered = in_visiting_order(vec![bare.clone(), six.clone(), both.clone(), four.clone()]);
        assert_eq!(ordered, [both, four, six, bare]);
    }

    #[test]
    fn a_mac_is_lower_case_with_colons() {
        assert_eq!(mac_text([2, 0, 0x5e, 0x10, 0, 0xAB]), "02:00:5e:10:00:ab");
    }

    #[test]
    fn the_loopback_interface_is_listed() {
        assert!(list().iter().any(|interface| interface.name == "lo"));
    }
}
