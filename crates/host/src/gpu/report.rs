//! The texts of `list` and `verify`. The summary is read by other tools, to the letter (vm-and-gpu-host spec 4.3).

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{Inventory, Isolation, Unit, holders};
use crate::host_fs::HostFs;
use crate::packages;
use crate::pci::{Address, NVIDIA, names};
use crate::surroundings::{Iommu, Switch, firmware_advice};
use crate::vfio::boot::{GRUB, GRUB_DROP_IN, KERNEL_COMMAND_LINE, Loader, parameters};
use crate::vfio::files::{self, BLACKLIST, MODPROBE, MODULES, UNITS};

/// Where the base image of virtual machines lies.
const BASE_IMAGE: &str = "/var/lib/vm/base_image_flat.qcow2";

/// How a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// vfio-pci has all of it.
    Bound,
    /// vfio-pci has all of it, and its group holds other devices.
    SharedGroup,
    /// vfio-pci has some of it.
    Partly,
    /// It is listed to be bound, and the next boot does it.
    RebootPending,
    /// It is not bound and shall not be.
    NotBound,
}

impl UnitState {
    fn of(unit: &Unit, listed: &[Address]) -> Self {
        let bound = unit.functions().filter(|function| function.is_bound()).count();
        match (bound, unit.strangers().is_empty()) {
            (0, _) if listed.contains(&unit.gpu.address) => Self::RebootPending,
            (0, _) => Self::NotBound,
            (bound, _) if bound < unit.companions.len() + 1 => Self::Partly,
            (_, false) => Self::SharedGroup,
            (_, true) => Self::Bound,
        }
    }
}

/// A unit and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How.
    pub state: UnitState,
    /// Which.
    pub unit: Unit,
}

/// Everything that `verify` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The units of one vendor with their state.
    pub units: Vec<Verified>,
    /// Files, whether each is there, and its name in the text.
    pub files: Vec<(bool, String)>,
    /// The IOMMU.
    pub iommu: Iommu,
    /// Versions of libvirt and QEMU, as far as they are installed.
    pub libvirt: Option<String>,
    /// See above.
    pub qemu: Option<String>,
    /// Whether the base image is there.
    pub has_base_image: bool,
    /// What to do next.
    pub next: String,
}

impl Verification {
    /// Looks at the machine; `vendor` is NVIDIA's but in tests.
    #[must_use]
    pub fn read(host: &HostFs, vendor: u16) -> Self {
        let listed = files::addresses(&host.text(UNITS).unwrap_or_default());
        let units = Inventory::read(host).units_of(vendor).into_iter();
        let units: Vec<_> = units.map(|unit| Verified { state: UnitState::of(&unit, &listed), unit }).collect();
        let iommu = Iommu::read(host);
        let next = next(host, &units, iommu, !listed.is_empty());
        Self {
            units,
            files: shown_files(host),
            iommu,
            libvirt: packages::libvirt(host),
            qemu: packages::qemu(host),
            has_base_image: host.exists(BASE_IMAGE),
            next,
        }
    }

    /// Whether there is a bound GPU and none is left to be bound.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        let is = |wanted: &[UnitState]| self.units.iter().filter(|verified| wanted.contains(&verified.state)).count();
        is(&[UnitState::Bound, UnitState::SharedGroup]) > 0 && is(&[UnitState::Partly, UnitState::RebootPending]) == 0
    }

    /// GPUs that vfio-pci has, and the others.
    fn split(&self) -> (Vec<&Verified>, Vec<&Verified>) {
        self.units.iter().partition(|verified| verified.unit.gpu.is_bound())
    }
}

/// The one thing that brings the machine further.
fn next(host: &HostFs, units: &[Verified], iommu: Iommu, has_list: bool) -> String {
    let has = |wanted| units.iter().any(|verified| verified.state == wanted);
    if units.is_empty() {
        return "there is no NVIDIA GPU in this machine".to_owned();
    }
    match iommu {
        Iommu::NotOffered => return firmware_advice(host, Switch::Iommu),
        Iommu::NotUsed if has_list => return "sudo reboot: the kernel uses the IOMMU from then on".to_owned(),
        _ => {}
    }
    if has(UnitState::Partly) {
        "byteleap-worker debug: a companion of a bound GPU has another driver".to_owned()
    } else if has(UnitState::RebootPending) {
        "sudo reboot: GPUs are set up to be bound and are not yet".to_owned()
    } else if has(UnitState::SharedGroup) {
        "byteleap-worker list: a bound GPU shares its isolation group and cannot be handed out alone".to_owned()
    } else if has(UnitState::Bound) {
        "sudo systemctl start byteleap-worker".to_owned()
    } else {
        "sudo byteleap-worker bind".to_owned()
    }
}

fn shown_files(host: &HostFs) -> Vec<(bool, String)> {
    let wanted = parameters(host, false);
    let configured = Loader::find(host).map(|loader| (loader, loader.configured(host)));
    let has_all =
        configured.as_ref().is_some_and(|(_, found)| wanted.iter().all(|parameter| found.contains(parameter)));
    let is_marked = host.text(GRUB).is_some_and(|text| text.contains(files::MARK));
    let boot = match configured.map(|(loader, _)| loader) {
        Some(Loader::GrubDropIn) if host.exists(GRUB_DROP_IN) => {
            (true, format!("GRUB: {GRUB} (drop-in {GRUB_DROP_IN})"))
        }
        Some(Loader::GrubDropIn | Loader::GrubFile) => (has_all || is_marked, format!("GRUB: {GRUB}")),
        Some(Loader::Grubby) => (has_all, "GRUB: /boot/loader/entries (by grubby)".to_owned()),
        Some(Loader::CommandLineFile) => (has_all, format!("kernel parameters: {KERNEL_COMMAND_LINE}")),
        None => (false, "kernel parameters: nothing known holds them".to_owned()),
    };
    let file = |name: &str, path: &str| (host.exists(path), format!("{name}: {path}"));
    vec![boot, file("modprobe", MODPROBE), file("blacklist", BLACKLIST), file("modules", MODULES)]
}

impl fmt::Display for Verification {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bound, others) = self.split();
        let mut number = 0;
        for (title, units) in [("Bound to vfio-pci", &bound), ("Not bound", &others)] {
            writeln!(out, "{title} ({}):", units.len())?;
            for Verified { unit, .. } in units {
                number += 1;
                write_unit(out, number, unit)?;
            }
        }
        writeln!(out, "\n=== Summary ===")?;
        writeln!(out, "VFIO-bound NVIDIA GPUs: {}", bound.len())?;
        writeln!(out, "Other NVIDIA GPUs: {}", others.len())?;
        writeln!(out, "Total NVIDIA GPUs: {}", self.units.len())?;
        writeln!(out, "\nFiles:")?;
        for (is_there, name) in &self.files {
            writeln!(out, "  {} {name}", mark(*is_there))?;
        }
        let iommu = match self.iommu {
            Iommu::On(groups) => format!("✓ IOMMU on ({groups} groups)"),
            Iommu::NotUsed => "✗ IOMMU not used by the kernel".to_owned(),
            Iommu::NotOffered => "✗ IOMMU off in the firmware".to_owned(),
        };
        let (libvirt, qemu) = (self.libvirt.as_deref(), self.qemu.as_deref());
        writeln!(
            out,
            "Host: {iommu}   {} libvirt {}, QEMU {}   {} base image {}",
            mark(libvirt.is_some() && qemu.is_some()),
            libvirt.unwrap_or("missing"),
            qemu.unwrap_or("missing"),
            mark(self.has_base_image),
            if self.has_base_image { "present" } else { "missing" },
        )?;
        writeln!(out, "Next: {}", self.next)
    }
}

fn mark(is_fine: bool) -> char {
    if is_fine { '✓' } else { '✗' }
}

fn write_unit(out: &mut impl fmt::Write, number: usize, unit: &Unit) -> fmt::Result {
    let gpu = &unit.gpu;
    let node = gpu.numa_node.map(|node| format!("   node {node}")).unwrap_or_default();
    let group = gpu.iommu_group.map_or_else(|| "none".to_owned(), |group| group.to_string());
    writeln!(out, "  [{number}] {}{node}", gpu.name())?;
    writeln!(out, "      Address: {}   ID: {}   IOMMU group: {group}", gpu.address, gpu.ids)?;
    writeln!(out, "      Driver: {}", gpu.driver_text())?;
    for companion in &unit.companions {
        writeln!(
            out,
            "      Companion: {} {} {}, {}",
            companion.address,
            companion.ids,
            companion.role,
            companion.driver_text()
        )?;
    }
    Ok(())
}

/// All GPUs of the machine, NVIDIA's first, with what is in their way.
#[must_use]
pub fn list(host: &HostFs) -> String {
    let (mut text, inventory) = (String::new(), Inventory::read(host));
    let units = inventory.units();
    let mut vendors: Vec<u16> = units.iter().map(|unit| unit.gpu.ids.vendor).collect();
    vendors.sort_by_key(|vendor| (*vendor != NVIDIA, *vendor));
    vendors.dedup();
    let mut number = 0;
    for vendor in vendors {
        let units: Vec<_> = units.iter().filter(|unit| unit.gpu.ids.vendor == vendor).collect();
        let _ = writeln!(text, "{} ({}):", names::vendor(vendor), units.len());
        for unit in units {
            number += 1;
            let _ = write_unit(&mut text, number, unit);
            let _ = write_notes(&mut text, host, unit);
        }
    }
    let switches = inventory.nvswitches().count();
    if switches > 0 {
        let _ = writeln!(text, "NVSwitches: {switches} (the GPUs of this board can only be handed out together)");
    }
    if units.is_empty() {
        text.push_str("There is no GPU in this machine.\n");
    }
    text
}

fn write_notes(out: &mut impl fmt::Write, host: &HostFs, unit: &Unit) -> fmt::Result {
    match &unit.isolation {
        Isolation::Alone => {}
        Isolation::Unknown => writeln!(out, "      Isolation: unknown, the IOMMU is off")?,
        Isolation::Shared(strangers) => {
            for stranger in strangers {
                writeln!(out, "      Shares its group with: {} {}", stranger.address, stranger.name())?;
            }
        }
    }
    if unit.gpu.is_boot_vga {
        writeln!(out, "      Shows the console")?;
    }
    if !unit.gpu.can_reset {
        writeln!(out, "      Cannot be reset by the kernel")?;
    }
    for holder in holders::of(host, [unit]) {
        writeln!(out, "      In use: {holder}")?;
    }
    Ok(())
}
