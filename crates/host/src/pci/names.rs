//! What devices are called, from the public list of PCI ids, and which GPUs the network pays for.

use pci_ids::{Device, FromId, Vendor};

use super::{Ids, NVIDIA};

/// Vendors by the name that people use.
const SHORT: &[(u16, &str)] = &[(NVIDIA, "NVIDIA"), (0x1002, "AMD"), (0x8086, "Intel"), (0x1022, "AMD")];

/// Parts of the names of GPUs that the documents list.
const LISTED: &[&str] = &["RTX 3090", "RTX 4090", "RTX 5090", "A100", "H100", "H200", "B200"];

/// Parts of names that are like a listed one and mean another product.
const UNLISTED: &[&str] = &["Laptop", "Mobile", "Max-Q"];

/// The public name, as `NVIDIA GeForce RTX 3090`: the marketing name where the list has one in brackets, else the chip's.
#[must_use]
pub fn of(ids: Ids) -> String {
    let vendor = vendor(ids.vendor);
    match Device::from_vid_pid(ids.vendor, ids.device) {
        Some(device) => format!("{vendor} {}", marketing(device.name())),
        None => format!("{vendor} device {:04x}", ids.device),
    }
}

/// The short name of a vendor, as `NVIDIA`.
#[must_use]
pub fn vendor(id: u16) -> String {
    let short = SHORT.iter().find(|(vendor, _)| *vendor == id).map(|(_, name)| (*name).to_owned());
    short.unwrap_or_else(|| match Vendor::from_id(id) {
        Some(vendor) => vendor.name().to_owned(),
        None => format!("vendor {id:04x}"),
    })
}

/// Whether the documents list this GPU.
#[must_use]
pub fn is_listed(ids: Ids) -> bool {
    let name = of(ids);
    let contains = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    ids.vendor == NVIDIA && contains(LISTED) && !contains(UNLISTED)
}

/// What stands in the last brackets of `GA102 [GeForce RTX 3090]`.
fn marketing(name: &str) -> &str {
    let inner = name.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(name, |(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(vendor: u16, device: u16) -> String {
        of(Ids { vendor, device })
    }

    #[test]
    fn names_are_those_of_the_public_list_also_where_the_reference_was_wrong() {
        assert_eq!(name(NVIDIA, 0x2204), "NVIDIA GeForce RTX 3090");
        assert_eq!(name(NVIDIA, 0x2684), "NVIDIA GeForce RTX 4090");
        assert_eq!(name(NVIDIA, 0x2b85), "NVIDIA GeForce RTX 5090");
        assert_eq!(name(NVIDIA, 0x2330), "NVIDIA H100 SXM5 80GB");
        assert!(name(NVIDIA, 0x2335).contains("H200"), "{}", name(NVIDIA, 0x2335));
        assert!(name(NVIDIA, 0x2901).contains("B200"), "{}", name(NVIDIA, 0x2901));
        assert!(name(NVIDIA, 0x2207).contains("3070 Ti"), "{}", name(NVIDIA, 0x2207));
        assert_eq!(name(NVIDIA, 0x0001), "NVIDIA device 0001");
        assert_eq!(name(0x0000, 0x0001), "vendor 0000 device 0001");
    }

    #[test]
    fn the_documents_list_these_gpus_and_no_others() {
        let listed = |device| is_listed(Ids { vendor: NVIDIA, device });
        for device in [0x2204, 0x2684, 0x2b85, 0x20b2, 0x20b5, 0x2330, 0x2331, 0x2335, 0x233b, 0x2901] {
            assert!(listed(device), "{device:04x} {}", name(NVIDIA, device));
        }
        for device in [0x2207, 0x1e04, 0x2757, 0x1aef, 0x1eb8] {
            assert!(!listed(device), "{device:04x} {}", name(NVIDIA, device));
        }
    }
}
