//! The processes that have a GPU open, found by what their file descriptors and mappings lead to.
//!
//! As root this sees every process of the machine, in containers too; as another user only the own ones.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Unit;
use crate::host_fs::HostFs;
use crate::pci::Address;

/// Programs that draw a desktop. The kernel cuts names after 15 bytes.
const DISPLAY_MANAGERS: &[&str] =
    &["gdm", "gdm3", "lightdm", "sddm", "Xorg", "Xwayland", "gnome-shell", "kwin_wayland"];

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it has open.
    pub device: String,
}

impl Holder {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self.name.as_str() {
            "nvidia-persiste" => "sudo systemctl disable --now nvidia-persistenced".to_owned(),
            "nv-fabricmanage" => "sudo systemctl stop nvidia-fabricmanager".to_owned(),
            "dcgm" | "nv-hostengine" => "sudo systemctl stop nvidia-dcgm".to_owned(),
            name if name.starts_with("qemu") => "shut the virtual machine down".to_owned(),
            name if DISPLAY_MANAGERS.contains(&name) => "sudo systemctl isolate multi-user.target".to_owned(),
            _ => format!("stop it, as by sudo kill {}", self.pid),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (process {}) has {} open", self.name, self.pid, self.device)
    }
}

/// The processes that have any of these units open.
#[must_use]
pub fn of<'a>(host: &HostFs, units: impl IntoIterator<Item = &'a Unit>) -> Vec<Holder> {
    let devices: BTreeSet<String> = units.into_iter().flat_map(|unit| device_files(host, unit)).collect();
    let processes = host.list("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let mut holders: Vec<_> = processes.filter_map(|pid| holder(host, pid, &devices)).collect();
    holders.sort();
    holders
}

/// The device files through which a process uses a unit: the display's, NVIDIA's own, and the group of vfio.
fn device_files(host: &HostFs, unit: &Unit) -> Vec<String> {
    let folder = unit.gpu.address.folder();
    let mut files: Vec<_> = host.list(format!("{folder}/drm")).iter().map(|node| format!("/dev/dri/{node}")).collect();
    if unit.gpu.driver.as_deref() == Some("nvidia") {
        files.extend(nvidia_minor(host, unit.gpu.address).map(|minor| format!("/dev/nvidia{minor}")));
    }
    files.extend(unit.gpu.iommu_group.map(|group| format!("/dev/vfio/{group}")));
    files
}

/// The number of the card's device file, as NVIDIA's driver tells it.
fn nvidia_minor(host: &HostFs, address: Address) -> Option<u32> {
    let text = host.text(format!("/proc/driver/nvidia/gpus/{address}/information"))?;
    text.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse().ok())
}

/// The process, if it has one of these open or mapped.
fn holder(host: &HostFs, pid: u32, devices: &BTreeSet<String>) -> Option<Holder> {
    let folder = format!("/proc/{pid}");
    let descriptors = host.list(format!("{folder}/fd")).into_iter();
    let mut open = descriptors.filter_map(|name| host.link(format!("{folder}/fd/{name}")));
    let device = open.find_map(|target| devices.get(target.to_str()?)).cloned().or_else(|| {
        let maps = host.text(format!("{folder}/maps"))?;
        let mut mapped = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        mapped.find_map(|path| devices.get(path)).cloned()
    })?;
    let name = host.text(format!("{folder}/comm")).unwrap_or_else(|| "a process".to_owned());
    Some(Holder { pid, name, device })
}
