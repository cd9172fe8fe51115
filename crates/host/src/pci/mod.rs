//! The functions of the PCI bus as sysfs shows them (vm-and-gpu-host spec 4.4); `lspci` is not needed.

pub mod names;

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::host_fs::HostFs;

/// Where the kernel lists the functions.
pub const DEVICES: &str = "/sys/bus/pci/devices";

/// NVIDIA's vendor id.
pub const NVIDIA: u16 = 0x10de;

/// Where a function is: domain, bus, device and function, as `0000:c1:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

impl Address {
    /// Whether both are functions of one card.
    #[must_use]
    pub fn is_same_slot(self, other: Self) -> bool {
        Self { function: 0, ..self } == Self { function: 0, ..other }
    }

    /// The folder of this function in sysfs.
    #[must_use]
    pub fn folder(self) -> String {
        format!("{DEVICES}/{self}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Not the address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address: expected one like 0000:c1:00.0")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    /// Reads the kernel's form, and the short one without a domain that `lspci` prints.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = || {
            let (slot, function) = text.rsplit_once('.')?;
            let mut parts = slot.rsplit(':');
            let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
            let number = |text: &str, max: u32| hexadecimal(text).filter(|number| *number <= max);
            let address = Self {
                domain: number(domain, u32::MAX)?,
                bus: number(bus, 0xff)? as u8,
                device: number(device, 0x1f)? as u8,
                function: number(function, 7)? as u8,
            };
            parts.next().is_none().then_some(address)
        };
        parse().ok_or_else(|| AddressError(text.to_owned()))
    }
}

/// Digits alone, at most eight of them: no sign, no blank.
fn hexadecimal(text: &str) -> Option<u32> {
    let are_digits = text.len() <= 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Vendor and device of a function or of the card that it sits on, as `10de:2204`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ids {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
}

impl fmt::Display for Ids {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a function does, by its class code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Display controllers: VGA compatible, 3D, other (0300, 0302, 0380).
    Gpu,
    /// Sound of a display's link (0403).
    Audio,
    /// USB host (0c03).
    Usb,
    /// The Type-C connector's controller (0c80).
    Ucsi,
    /// NVIDIA's switch between GPUs (0680).
    NvSwitch,
    /// Bridges and root ports, which stay on their driver (06xx).
    Bridge,
    /// Anything else.
    Other,
}

impl Role {
    fn of(class: u32, vendor: u16) -> Self {
        match (class >> 8, class >> 16) {
            (0x0300 | 0x0302 | 0x0380, _) => Self::Gpu,
            (0x0403, _) => Self::Audio,
            (0x0c03, _) => Self::Usb,
            (0x0c80, _) => Self::Ucsi,
            (0x0680, _) if vendor == NVIDIA => Self::NvSwitch,
            (_, 0x06) => Self::Bridge,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Gpu => "gpu",
            Self::Audio => "audio",
            Self::Usb => "usb",
            Self::Ucsi => "ucsi",
            Self::NvSwitch => "nvswitch",
            Self::Bridge => "bridge",
            Self::Other => "device",
        })
    }
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub ids: Ids,
    /// What card it sits on; zeros where it does not tell.
    pub subsystem: Ids,
    /// Class code: class, subclass and programming interface in a byte each.
    pub class: u32,
    /// What it does.
    pub role: Role,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may take it.
    pub driver_override: Option<String>,
    /// The group that the IOMMU isolates it with.
    pub iommu_group: Option<u32>,
    /// The memory node that it is near to.
    pub numa_node: Option<u32>,
    /// Whether firmware shows the console on it.
    pub is_boot_vga: bool,
    /// Whether the kernel knows how to reset it, as it must between two tenants.
    pub can_reset: bool,
    /// Virtual functions that are switched on.
    pub virtual_functions: u32,
    /// Whether it is itself a virtual function.
    pub is_virtual: bool,
}

impl Function {
    /// Reads one; nothing where sysfs does not show a whole one.
    fn read(host: &HostFs, address: Address) -> Option<Self> {
        let folder = address.folder();
        let text = |name: &str| host.text(format!("{folder}/{name}"));
        let number = |name: &str| hexadecimal(text(name)?.trim_start_matches("0x"));
        let id = |name: &str| number(name).and_then(|number| u16::try_from(number).ok());
        let (ids, class) = (Ids { vendor: id("vendor")?, device: id("device")? }, number("class")?);
        let decimal = |name: &str| text(name).and_then(|text| text.parse::<u32>().ok());
        Some(Self {
            address,
            ids,
            subsystem: Ids {
                vendor: id("subsystem_vendor").unwrap_or_default(),
                device: id("subsystem_device").unwrap_or_default(),
            },
            class,
            role: Role::of(class, ids.vendor),
            driver: host.link_name(format!("{folder}/driver")),
            driver_override: text("driver_override").filter(|name| name != "(null)"),
            iommu_group: host.link_name(format!("{folder}/iommu_group")).and_then(|name| name.parse().ok()),
            numa_node: decimal("numa_node"),
            is_boot_vga: text("boot_vga").as_deref() == Some("1"),
            can_reset: match text("reset_method") {
                Some(_) => true,
                // Kernels before 5.15 show no methods, only whether there is one.
                None => host.exists(format!("{folder}/reset")),
            },
            virtual_functions: decimal("sriov_numvfs").unwrap_or_default(),
            is_virtual: host.link(format!("{folder}/physfn")).is_some(),
        })
    }

    /// Whether vfio-pci has it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_PCI)
    }

    /// The public name, as `NVIDIA GeForce RTX 3090`.
    #[must_use]
    pub fn name(&self) -> String {
        names::of(self.ids)
    }

    /// The driver as a person reads it.
    #[must_use]
    pub fn driver_text(&self) -> &str {
        self.driver.as_deref().unwrap_or("none")
    }
}

/// The driver that hands a function to virtual machines.
pub const VFIO_PCI: &str = "vfio-pci";

/// All functions, by address.
#[must_use]
pub fn functions(host: &HostFs) -> Vec<Function> {
    let addresses = host.list(DEVICES).into_iter().filter_map(|name| name.parse().ok());
    let mut functions: Vec<_> = addresses.filter_map(|address| Function::read(host, address)).collect();
    functions.sort_by_key(|function| function.address);
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_its_domain_and_printed_as_the_kernel_does() {
        for (text, printed) in [
            ("0000:c1:00.0", "0000:c1:00.0"),
            ("c1:1f.7", "0000:c1:1f.7"),
            ("10000:01:00.0", "10000:01:00.0"),
            ("0001:0A:00.1", "0001:0a:00.1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
        }
        for wrong in ["", "c1", "c1:00", "c1:20.0", "c1:00.8", "c1:+1.0", "0:0:c1:00.0", "c1:00.0 ", "100:00.0"] {
            assert_eq!(wrong.parse::<Address>(), Err(AddressError(wrong.to_owned())));
        }
    }

    #[test]
    fn functions_of_one_slot_are_companions() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert!(address("c1:00.0").is_same_slot(address("c1:00.3")));
        assert!(!address("c1:00.0").is_same_slot(address("c2:00.0")));
        assert!(!address("0001:c1:00.0").is_same_slot(address("c1:00.0")));
    }

    #[test]
    fn class_codes_tell_what_a_function_does() {
        let role = |class| Role::of(class, NVIDIA);
        assert_eq!([0x03_0000, 0x03_0200, 0x03_8000].map(role), [Role::Gpu; 3]);
        assert_eq!((role(0x04_0300), role(0x0c_0330), role(0x0c_8000)), (Role::Audio, Role::Usb, Role::Ucsi));
        assert_eq!((role(0x06_8000), Role::of(0x06_8000, 0x8086)), (Role::NvSwitch, Role::Bridge));
        assert_eq!((role(0x06_0400), role(0x01_0802)), (Role::Bridge, Role::Other));
    }
}
