//! What this machine is run in: on the metal, in a virtual machine, in a container (vm-and-gpu-host spec 5.3), and whether
//! its firmware and kernel isolate devices.

use serde::Serialize;

use crate::gpu::IOMMU_GROUPS;
use crate::host_fs::HostFs;

/// Vendors and products that firmware names in a virtual machine, in lower case.
const VIRTUAL_BOARDS: &[&str] = &[
    "qemu",
    "kvm",
    "vmware",
    "innotek",
    "virtualbox",
    "xen",
    "microsoft corporation virtual machine",
    "amazon ec2",
    "google compute engine",
    "openstack",
    "bochs",
    "parallels",
    "bhyve",
];

/// Where the machine runs, and what tells so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// Evidence of a virtual machine.
    pub virtual_machine: Vec<String>,
    /// Evidence of a container.
    pub container: Vec<String>,
}

impl Surroundings {
    /// Looks for every sign.
    #[must_use]
    pub fn read(host: &HostFs) -> Self {
        Self { virtual_machine: virtual_machine(host), container: container(host) }
    }

    /// Whether neither a virtual machine nor a container shows.
    #[must_use]
    pub fn is_bare_metal(&self) -> bool {
        self.virtual_machine.is_empty() && self.container.is_empty()
    }

    /// In a few words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.virtual_machine.is_empty(), self.container.is_empty()) {
            (true, true) => "bare metal",
            (false, true) => "a virtual machine",
            (true, false) => "a container",
            (false, false) => "a container in a virtual machine",
        }
    }
}

fn virtual_machine(host: &HostFs) -> Vec<String> {
    let mut signs = Vec::new();
    let cpuinfo = host.text("/proc/cpuinfo").unwrap_or_default();
    if cpu_flags(&cpuinfo).any(|flag| flag == "hypervisor") {
        signs.push("the processor reports a hypervisor (/proc/cpuinfo)".to_owned());
    }
    let board = board(host);
    let names = format!("{} {} {}", board.system, board.product, board.vendor).to_lowercase();
    let is_metal_instance = names.contains(".metal");
    if let Some(found) =
        VIRTUAL_BOARDS.iter().find(|virtual_board| names.contains(**virtual_board) && !is_metal_instance)
    {
        signs.push(format!("the firmware names {found} (/sys/class/dmi/id)"));
    }
    let is_first_domain = host.text("/proc/xen/capabilities").is_some_and(|text| text.contains("control_d"));
    if let Some(kind) = host.text("/sys/hypervisor/type").filter(|_| !is_first_domain) {
        signs.push(format!("the kernel runs under {kind} (/sys/hypervisor/type)"));
    }
    let acpi = host.list("/sys/bus/acpi/devices");
    if let Some(device) = acpi.iter().find(|name| name.starts_with("QEMU0002") || name.starts_with("VMBUS")) {
        signs.push(format!("ACPI has the device {device} (/sys/bus/acpi/devices)"));
    }
    let virtio = crate::pci::functions(host).into_iter().filter(|function| function.ids.vendor == VIRTIO).count();
    if virtio > 0 {
        signs.push(format!("{virtio} PCI devices are virtio (1af4)"));
    }
    signs
}

/// The vendor id of devices that only virtual machines have.
const VIRTIO: u16 = 0x1af4;

fn container(host: &HostFs) -> Vec<String> {
    let mut signs: Vec<String> = Vec::new();
    for path in ["/run/systemd/container", "/.dockerenv", "/run/.containerenv"] {
        if host.exists(path) {
            signs.push(format!("there is {path}"));
        }
    }
    let environment = host.text("/proc/1/environ").unwrap_or_default();
    if environment.split('\0').any(|variable| variable.starts_with("container=")) {
        signs.push("process 1 has the variable container".to_owned());
    }
    let cgroup = host.text("/proc/1/cgroup").unwrap_or_default();
    if let Some(word) = ["docker", "lxc", "kubepods", "libpod"].iter().find(|word| cgroup.contains(**word)) {
        signs.push(format!("process 1 belongs to a control group of {word}"));
    }
    signs
}

/// The flags of the first processor.
pub fn cpu_flags(cpuinfo: &str) -> impl Iterator<Item = &str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    line.split_once(':').map_or("", |(_, flags)| flags).split_whitespace()
}

/// What the firmware says of the machine; empty where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Board {
    /// Who made the board.
    pub vendor: String,
    /// Its name.
    pub name: String,
    /// Who made the machine.
    pub system: String,
    /// Its name.
    pub product: String,
}

/// Reads the names that firmware gives.
#[must_use]
pub fn board(host: &HostFs) -> Board {
    let text = |name: &str| host.text(format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    Board {
        vendor: text("board_vendor"),
        name: text("board_name"),
        system: text("sys_vendor"),
        product: text("product_name"),
    }
}

/// Whether devices are isolated from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Iommu {
    /// The kernel shows so many groups.
    On(usize),
    /// The firmware offers it, and the kernel does not use it.
    NotUsed,
    /// The firmware does not offer it.
    NotOffered,
}

impl Iommu {
    /// Reads ACPI's tables and the kernel's groups.
    #[must_use]
    pub fn read(host: &HostFs) -> Self {
        let groups = host.list(IOMMU_GROUPS).len();
        let is_offered = ["DMAR", "IVRS"].iter().any(|table| host.exists(format!("/sys/firmware/acpi/tables/{table}")));
        match (groups, is_offered) {
            (0, false) => Self::NotOffered,
            (0, true) => Self::NotUsed,
            (groups, _) => Self::On(groups),
        }
    }
}

/// Whether the processor is one of AMD's.
#[must_use]
pub fn is_amd(host: &HostFs) -> bool {
    host.text("/proc/cpuinfo").is_some_and(|text| text.contains("AuthenticAMD"))
}

/// Where boards of a maker have their switches: the maker's word, Intel's VT-x and VT-d, AMD's SVM and IOMMU.
const MENUS: &[(&str, [&str; 4])] = &[
    (
        "supermicro",
        [
            "Advanced > CPU Configuration > Intel Virtualization Technology",
            "Advanced > Chipset Configuration > North Bridge > IIO Configuration > Intel VT for Directed I/O (VT-d)",
            "Advanced > CPU Configuration > SVM Mode",
            "Advanced > NB Configuration > IOMMU",
        ],
    ),
    (
        "asus",
        [
            "Advanced > CPU Configuration > Intel (VMX) Virtualization Technology",
            "Advanced > System Agent (SA) Configuration > VT-d",
            "Advanced > CPU Configuration > SVM Mode",
            "Advanced > AMD CBS > NBIO Common Options > IOMMU",
        ],
    ),
    (
        "gigabyte",
        [
            "Tweaker > Advanced CPU Settings > Intel Virtualization Technology (VT-x)",
            "Settings > Miscellaneous > VT-d",
            "Tweaker > Advanced CPU Settings > SVM Mode",
            "Settings > Miscellaneous > IOMMU",
        ],
    ),
    (
        "micro-star",
        [
            "OC > CPU Features > Intel Virtualization Tech",
            "OC > CPU Features > Intel VT-D Tech",
            "OC > CPU Features > SVM Mode",
            "OC > Advanced CPU Configuration > AMD CBS > NBIO Common Options > IOMMU",
        ],
    ),
    (
        "asrock",
        [
            "Advanced > CPU Configuration > Intel Virtualization Technology",
            "Advanced > Chipset Configuration > VT-d",
            "Advanced > CPU Configuration > SVM Mode",
            "Advanced > AMD CBS > NBIO Common Options > IOMMU",
        ],
    ),
    (
        "dell",
        [
            "System BIOS > Processor Settings > Virtualization Technology",
            "System BIOS > Processor Settings > Virtualization Technology (it switches VT-d too)",
            "System BIOS > Processor Settings > Virtualization Technology",
            "System BIOS > Processor Settings > IOMMU Support",
        ],
    ),
    (
        "hpe",
        [
            "System Configuration > BIOS/Platform Configuration (RBSU) > Virtualization Options > Intel Virtualization Technology",
            "System Configuration > BIOS/Platform Configuration (RBSU) > Virtualization Options > Intel VT-d",
            "System Configuration > BIOS/Platform Configuration (RBSU) > Virtualization Options > AMD Virtualization Technology",
            "System Configuration > BIOS/Platform Configuration (RBSU) > Virtualization Options > AMD I/O Virtualization Technology",
        ],
    ),
    (
        "lenovo",
        [
            "UEFI Setup > System Settings > Processors > Intel Virtualization Technology",
            "UEFI Setup > System Settings > Devices and I/O Ports > Intel VT for Directed I/O (VT-d)",
            "UEFI Setup > System Settings > Processors > SVM Mode",
            "UEFI Setup > System Settings > Devices and I/O Ports > IOMMU",
        ],
    ),
];

/// The paths of the documents, for boards of other makers.
const TYPICAL: [&str; 4] = [
    "Advanced > CPU Configuration > Intel Virtualization Technology",
    "Advanced > Chipset Configuration > VT-d (or North Bridge / System Agent (SA) Configuration > VT-d)",
    "Advanced > CPU Configuration > SVM Mode",
    "Advanced > CPU Configuration / Chipset > IOMMU / AMD-Vi (or North Bridge / Miscellaneous > IOMMU)",
];

/// A switch in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// VT-x or SVM: the processor runs guests.
    Virtualization,
    /// VT-d or AMD-Vi: devices are isolated.
    Iommu,
}

/// How to reach a switch on this very board.
#[must_use]
pub fn firmware_advice(host: &HostFs, switch: Switch) -> String {
    if !virtual_machine(host).is_empty() {
        return "a virtual machine has it only from its host: run the worker on the host itself".to_owned();
    }
    let (board, is_amd) = (board(host), is_amd(host));
    let maker = format!("{} {}", board.vendor, board.system).to_lowercase();
    let known = MENUS.iter().find(|(word, _)| maker.contains(word)).map(|(_, menus)| menus);
    let place = usize::from(is_amd) * 2 + usize::from(switch == Switch::Iommu);
    let menu = known.unwrap_or(&TYPICAL)[place];
    let name = match (board.vendor.as_str(), board.name.as_str()) {
        ("", "") => "this board".to_owned(),
        (vendor, name) => format!("this board ({vendor} {name})"),
    };
    let names = if known.is_some() { "" } else { " (menus differ between makers)" };
    format!("in the firmware setup of {name} set {menu} to Enabled, save and restart{names}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, HostFs) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = HostFs::new(root.path());
        (root, host)
    }

    #[test]
    fn each_single_sign_decides() {
        let name = |files: &[(&str, &str)]| Surroundings::read(&machine(files).1).name();
        assert_eq!(name(&[]), "bare metal");
        assert_eq!(name(&[("proc/cpuinfo", "flags\t: fpu hypervisor svm\n")]), "a virtual machine");
        assert_eq!(name(&[("sys/class/dmi/id/sys_vendor", "QEMU\n")]), "a virtual machine");
        assert_eq!(
            name(&[("sys/class/dmi/id/sys_vendor", "Amazon EC2"), ("sys/class/dmi/id/product_name", "g5.metal")]),
            "bare metal"
        );
        assert_eq!(name(&[("sys/hypervisor/type", "xen"), ("proc/xen/capabilities", "control_d")]), "bare metal");
        assert_eq!(name(&[("sys/hypervisor/type", "xen")]), "a virtual machine");
        assert_eq!(name(&[(".dockerenv", "")]), "a container");
        assert_eq!(name(&[("proc/1/environ", "A=1\0container=lxc\0")]), "a container");
        assert_eq!(
            name(&[("proc/1/cgroup", "0::/docker/1"), ("proc/cpuinfo", "flags : hypervisor")]),
            "a container in a virtual machine"
        );
    }

    #[test]
    fn advice_names_the_very_board_and_its_menus() {
        let (_root, host) = machine(&[
            ("sys/class/dmi/id/board_vendor", "ASUSTeK COMPUTER INC.\n"),
            ("sys/class/dmi/id/board_name", "Pro WS WRX80E-SAGE SE WIFI\n"),
            ("proc/cpuinfo", "vendor_id : AuthenticAMD\n"),
        ]);
        let advice = firmware_advice(&host, Switch::Iommu);
        assert!(advice.contains("Pro WS WRX80E") && advice.contains("AMD CBS"), "{advice}");
        let (_root, host) = machine(&[]);
        let advice = firmware_advice(&host, Switch::Virtualization);
        assert!(advice.contains("this board set Advanced > CPU Configuration > Intel"), "{advice}");
    }
}
