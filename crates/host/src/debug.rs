//! The report of `debug`: what support must know to help, in ten sections, secrets removed (vm-and-gpu-host spec 4.1).

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::bundle::{self, Redaction};
use crate::gpu::report::{self, Verification};
use crate::gpu::{IOMMU_GROUPS, Inventory, holders};
use crate::host_fs::HostFs;
use crate::pci::NVIDIA;
use crate::surroundings::{Iommu, Surroundings, board, cpu_flags};
use crate::vfio::boot::{GRUB, GRUB_DROP_IN, Initramfs, KERNEL_COMMAND_LINE, Loader};
use crate::vfio::files::{BLACKLIST, MODPROBE, MODULES, SCRIPT, SERVICE, UNITS};
use crate::vfio::manifest::Backups;
use crate::{kernel, packages};

/// Files that binding depends on.
const FILES: &[&str] = &[
    GRUB,
    "/etc/default/grub.d/50-cloudimg-settings.cfg",
    GRUB_DROP_IN,
    KERNEL_COMMAND_LINE,
    MODPROBE,
    BLACKLIST,
    MODULES,
    UNITS,
    SCRIPT,
    SERVICE,
];

/// Modules that matter, by their names in sysfs.
const MODULE_NAMES: &[&str] = &[
    "vfio",
    "vfio_pci",
    "vfio_iommu_type1",
    "nvidia",
    "nvidia_drm",
    "nvidia_uvm",
    "nouveau",
    "kvm",
    "kvm_intel",
    "kvm_amd",
];

/// The report; with `archive` it is written there too, together with the files that it speaks of.
///
/// # Errors
/// The archive cannot be written.
pub fn run(host: &HostFs, archive: Option<&Path>) -> io::Result<String> {
    let mut text = Redaction::of(host).apply(&report(host));
    if let Some(path) = archive {
        write_archive(host, path, &[])?;
        let _ = writeln!(text, "{}", archive_notice(path));
    }
    Ok(text)
}

/// Writes the report, the files that it speaks of and `others` into an archive, all with secrets removed.
///
/// # Errors
/// It cannot be written.
pub fn write_archive(host: &HostFs, path: &Path, others: &[(&str, String)]) -> io::Result<()> {
    let redaction = Redaction::of(host);
    let mut files = vec![("debug.txt".to_owned(), redaction.apply(&report(host)))];
    files.extend(others.iter().map(|(name, text)| ((*name).to_owned(), redaction.apply(text))));
    files.extend(FILES.iter().filter_map(|path| Some((bundle::name(path), redaction.apply(&host.text(path)?)))));
    bundle::write(path, &files)
}

/// What a person should do with an archive.
#[must_use]
pub fn archive_notice(path: &Path) -> String {
    format!("written to {}: look through it before you send it", path.display())
}

/// Writes one section.
type Section = fn(&HostFs) -> String;

/// The ten sections.
#[must_use]
pub fn report(host: &HostFs) -> String {
    let sections: [(&str, Section); 10] = [
        ("System", system),
        ("Processor and surroundings", processor),
        ("Kernel parameters", |host| lines(&kernel::parameters(host))),
        ("IOMMU", iommu),
        ("GPUs", report::list),
        ("Kernel modules", modules),
        ("Boot and packages", boot),
        ("Configuration files", files),
        ("Processes that use GPUs", users),
        ("Diagnosis", diagnosis),
    ];
    let mut text = String::new();
    for (number, (title, section)) in sections.iter().enumerate() {
        let _ = writeln!(text, "=== {}. {title} ===", number + 1);
        text.push_str(section(host).trim_end());
        text.push_str("\n\n");
    }
    text
}

fn lines(items: &[String]) -> String {
    if items.is_empty() { "none\n".to_owned() } else { items.iter().map(|item| format!("{item}\n")).collect() }
}

fn system(host: &HostFs) -> String {
    let release = host.text("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown")
        .trim_matches('"')
        .to_owned();
    let kernel = host.text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let board = board(host);
    format!("Distribution: {name}\nKernel: {kernel}\nBoard: {} {}\n", board.vendor, board.name)
}

fn processor(host: &HostFs) -> String {
    let cpuinfo = host.text("/proc/cpuinfo").unwrap_or_default();
    let model = crate::procfs::cpu_field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned());
    let flags: Vec<_> = cpu_flags(&cpuinfo).filter(|flag| ["vmx", "svm", "hypervisor"].contains(flag)).collect();
    let surroundings = Surroundings::read(host);
    let signs = surroundings.virtual_machine.iter().chain(&surroundings.container);
    let signs: String = signs.map(|sign| format!("  {sign}\n")).collect();
    format!("{model}\nFlags: {}\nRuns on {}\n{signs}", flags.join(" "), surroundings.name())
}

fn iommu(host: &HostFs) -> String {
    let mut text = match Iommu::read(host) {
        Iommu::On(groups) => format!("on, {groups} groups\n"),
        Iommu::NotUsed => "offered by the firmware, not used by the kernel\n".to_owned(),
        Iommu::NotOffered => "not offered by the firmware\n".to_owned(),
    };
    let gpus = Inventory::read(host).units();
    let mut groups: Vec<u32> =
        gpus.iter().flat_map(|unit| unit.functions()).filter_map(|function| function.iommu_group).collect();
    groups.dedup();
    for group in groups {
        let members = host.list(format!("{IOMMU_GROUPS}/{group}/devices"));
        let _ = writeln!(text, "group {group}: {}", members.join(" "));
    }
    text
}

fn modules(host: &HostFs) -> String {
    let loaded = MODULE_NAMES.iter().filter(|name| host.exists(format!("/sys/module/{name}")));
    lines(&loaded.map(|name| (*name).to_owned()).collect::<Vec<_>>())
}

fn boot(host: &HostFs) -> String {
    let package = |version: Option<String>| version.unwrap_or_else(|| "missing".to_owned());
    format!(
        "Parameters held by: {:?}\nInitial RAM disk made by: {:?}\nlibvirt: {}\nQEMU: {}\n",
        Loader::find(host),
        Initramfs::find(host),
        package(packages::libvirt(host)),
        package(packages::qemu(host))
    )
}

fn files(host: &HostFs) -> String {
    let mut text = String::new();
    for path in FILES {
        match host.text(path) {
            Some(content) if *path == SCRIPT => {
                let _ = writeln!(text, "{path}: {} lines", content.lines().count());
            }
            Some(content) => {
                let _ = writeln!(text, "{path}:");
                content.lines().for_each(|line| {
                    let _ = writeln!(text, "  | {line}");
                });
            }
            None => {
                let _ = writeln!(text, "{path}: missing");
            }
        }
    }
    text
}

fn users(host: &HostFs) -> String {
    let units = Inventory::read(host).units();
    lines(&holders::of(host, &units).iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn diagnosis(host: &HostFs) -> String {
    let backups = match Backups::read(host) {
        Err(error) => format!("cannot be read ({error}): run it as root"),
        Ok(backups) if backups.pending().is_some() => "an interrupted run: sudo byteleap-worker unbind".to_owned(),
        Ok(backups) => format!("{}", backups.all.len()),
    };
    format!("Backups of bind: {backups}\nNext: {}\n", Verification::read(host, NVIDIA).next)
}
