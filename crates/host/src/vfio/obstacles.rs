//! What stands against binding (vm-and-gpu-host spec 4.4 and 4.5, points 1 and 2): found before anything is changed, each
//! with what to do about it.

use std::fmt;

use super::boot::has_program;
use crate::gpu::{Inventory, Unit, holders};
use crate::host_fs::HostFs;
use crate::kernel;
use crate::pci::{Function, names};
use crate::surroundings::{Iommu, Surroundings, Switch, firmware_advice};

/// Room that new initial RAM disks need in `/boot`, in bytes.
const BOOT_FREE_BYTES: u64 = 256 << 20;

/// One thing in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// Whether binding goes on nevertheless.
    pub is_warning: bool,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "refused" };
        write!(out, "{kind}: {}", self.text)?;
        if self.advice.is_empty() { Ok(()) } else { write!(out, "\n         {}", self.advice) }
    }
}

/// What the person at the keyboard takes upon himself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Bind the card that shows the console.
    pub console: bool,
    /// Bind unused devices that share a group, too.
    pub group: bool,
    /// Bind inside a virtual machine, as tests do.
    pub virtual_machine: bool,
}

/// Everything in the way of binding these units.
#[must_use]
pub fn obstacles(host: &HostFs, inventory: &Inventory, units: &[Unit], allowed: Allowed) -> Vec<Obstacle> {
    let mut found = of_machine(host, allowed);
    let unbound: Vec<&Unit> = units.iter().filter(|unit| !unit.is_bound()).collect();
    for holder in holders::of(host, unbound.iter().copied()) {
        found.push(refused(holder.to_string(), holder.advice()));
    }
    if found.iter().all(|obstacle| !obstacle.text.contains(" open")) {
        found.extend(unseen_users(host, &unbound));
    }
    for unit in units {
        of_unit(host, unit, allowed, &mut found);
    }
    let selected = |switch: &Function| units.iter().any(|unit| unit.gpu.address == switch.address);
    if inventory.nvswitches().any(|switch| !selected(switch)) {
        let text = "the GPUs of this board are joined by NVSwitches, and not all of the board is bound";
        found.push(warning(text, "bind without a number, so that the whole board can go to one tenant"));
    }
    found
}

fn refused(text: impl Into<String>, advice: impl Into<String>) -> Obstacle {
    Obstacle { text: text.into(), advice: advice.into(), is_warning: false }
}

fn warning(text: impl Into<String>, advice: impl Into<String>) -> Obstacle {
    Obstacle { text: text.into(), advice: advice.into(), is_warning: true }
}

fn of_machine(host: &HostFs, allowed: Allowed) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let surroundings = Surroundings::read(host);
    if !surroundings.is_bare_metal() && !allowed.virtual_machine {
        let signs = surroundings.virtual_machine.iter().chain(&surroundings.container);
        let signs: Vec<_> = signs.map(String::as_str).collect();
        let text = format!("this is {}: {}", surroundings.name(), signs.join("; "));
        found.push(refused(text, "GPUs can be handed out on bare metal only"));
    }
    match Iommu::read(host) {
        Iommu::On(_) => {}
        Iommu::NotUsed => {
            let text = "the kernel does not use the IOMMU yet, so what shares a group with a card is not known";
            found.push(warning(text, "after the restart `byteleap-worker verify` tells"));
        }
        Iommu::NotOffered => {
            let text = "the firmware offers no IOMMU: there is neither DMAR nor IVRS among ACPI's tables";
            found.push(refused(text, firmware_advice(host, Switch::Iommu)));
        }
    }
    if kernel::version(host) < (6, 0) {
        let text = "the kernel is older than 6.0";
        found.push(warning(text, "the worker needs a newer one: `byteleap-worker doctor` tells how to get it"));
    }
    let boot = host.space("/boot").ok();
    if is_read_only(host, "/boot") || boot.is_some_and(|space| space.is_read_only) {
        found.push(refused("/boot is mounted read-only", "sudo mount -o remount,rw /boot"));
    } else if let Some(space) = boot.filter(|space| space.available_bytes < BOOT_FREE_BYTES) {
        let text =
            format!("/boot has only {} MiB left, and new initial RAM disks need room", space.available_bytes >> 20);
        let cleanup = if has_program(host, "apt") { "sudo apt autoremove --purge" } else { "remove old kernels" };
        found.push(refused(text, cleanup));
    }
    found
}

/// Whether the mount table says that what holds `path` may not be written.
fn is_read_only(host: &HostFs, path: &str) -> bool {
    let mounts = host.text("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(path)
            && fields.nth(1).is_some_and(|options| options.split(',').any(|option| option == "ro"))
    })
}

/// Users of NVIDIA's driver that no process shows, as in another namespace.
fn unseen_users(host: &HostFs, units: &[&Unit]) -> Option<Obstacle> {
    let drives_all = units.iter().any(|unit| unit.gpu.driver.as_deref() == Some("nvidia"));
    let references: i64 = host.text("/sys/module/nvidia/refcnt")?.parse().ok()?;
    let modules = host.list("/sys/module/nvidia/holders").len() as i64;
    let text = format!("NVIDIA's driver is in use {} times by what this command cannot see", references - modules);
    (drives_all && references > modules).then(|| refused(text, "stop containers and services that use the GPUs"))
}

fn of_unit(host: &HostFs, unit: &Unit, allowed: Allowed, found: &mut Vec<Obstacle>) {
    let gpu = &unit.gpu;
    let name = format!("{} {}", gpu.address, gpu.name());
    for stranger in unit.strangers() {
        let what = format!("{} ({})", stranger.address, stranger.name());
        match use_of(host, stranger) {
            Some(used) => found.push(refused(
                format!("{name} is in isolation group {} with {what}, which is {used}", group(gpu)),
                "the two cannot be separated here: put the card into another slot",
            )),
            None if allowed.group => {}
            None => found.push(refused(
                format!("{name} is in isolation group {} with {what}, which is unused", group(gpu)),
                "put the card into another slot, or bind both by --with-group",
            )),
        }
    }
    if gpu.virtual_functions > 0 {
        let text = format!("{name} has {} virtual functions switched on", gpu.virtual_functions);
        found.push(refused(text, format!("echo 0 | sudo tee {}/sriov_numvfs", gpu.address.folder())));
    }
    if gpu.is_boot_vga && !allowed.console && !gpu.is_bound() {
        let text = format!("{name} shows this machine's console, which goes dark when it is bound");
        found.push(refused(text, "reach the machine over the network first, then bind by --allow-console"));
    }
    if !gpu.can_reset {
        let text = format!("{name} cannot be reset by the kernel: a second tenant may find it unusable");
        found.push(warning(text, "a newer firmware of the card or board may help"));
    }
    if !names::is_listed(gpu.ids) && gpu.role == crate::pci::Role::Gpu {
        found.push(warning(format!("{name} is none of the GPUs that the network pays for"), ""));
    }
}

fn group(function: &Function) -> String {
    function.iommu_group.map_or_else(|| "unknown".to_owned(), |group| group.to_string())
}

/// What a device is used for; nothing if it may be taken.
fn use_of(host: &HostFs, function: &Function) -> Option<String> {
    let folder = function.address.folder();
    if let Some(interface) = host.list(format!("{folder}/net")).first() {
        return Some(format!("the network interface {interface}"));
    }
    let is_its = |disk: &String| {
        let target = host.link(format!("/sys/block/{disk}")).unwrap_or_default();
        target.to_string_lossy().contains(&format!("/{}/", function.address))
    };
    let mounts = host.text("/proc/mounts").unwrap_or_default();
    for disk in host.list("/sys/block").into_iter().filter(is_its) {
        let device = format!("/dev/{disk}");
        if let Some(mount) = mounts.lines().find(|line| line.starts_with(&device)) {
            let place = mount.split_whitespace().nth(1).unwrap_or_default();
            return Some(format!("the disk {device}, mounted at {place}"));
        }
    }
    function.is_boot_vga.then(|| "the console".to_owned())
}
