//! Whether this machine can be a worker: each requirement of the documents with what was found, a verdict, and what to do
//! on this very board and distribution (vm-and-gpu-host spec 5.1 to 5.3).
//!
//! Everything is read from files; nothing is run and nothing is changed. What needs the network is the worker's to add.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::distribution::Distribution;
use crate::gpu::{Inventory, Unit};
use crate::host_fs::HostFs;
use crate::pci::{NVIDIA, names};
use crate::surroundings::{Iommu, Surroundings, Switch, cpu_flags, firmware_advice, is_amd};
use crate::{kernel, packages, procfs};

/// Logical processors that a worker needs.
const CORES: u64 = 8;
/// The least that a machine of 32 GB shows: firmware and crash kernel keep some of it.
const MEMORY_GIB: u64 = 30;
/// Room that the documents ask for, and the least that works.
const DISK_BYTES: (u64, u64) = (500_000_000_000, 100_000_000_000);
/// Oldest libvirt and QEMU.
const LIBVIRT: (u32, u32) = (8, 0);
const QEMU: (u32, u32) = (6, 2);

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It cannot be told.
    Unknown,
    /// It works worse, or not everything works.
    Warning,
    /// The worker cannot do its work so.
    Blocker,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is required.
    pub requirement: String,
    /// What the finding means.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Where.
    pub source: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
}

impl Check {
    /// A requirement with its finding.
    #[must_use]
    pub fn new(requirement: &str, verdict: Verdict, found: impl Into<String>, source: &str) -> Self {
        let advice = String::new();
        Self { requirement: requirement.to_owned(), verdict, found: found.into(), source: source.to_owned(), advice }
    }

    /// With what to do, unless all is well.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        if self.verdict != Verdict::Ok {
            self.advice = advice.into();
        }
        self
    }
}

/// What a worker means to do, as far as requirements depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// Whether it rents out virtual machines.
    pub rents_machines: bool,
    /// Where their images lie.
    pub image_dir: &'a str,
}

impl Purpose<'_> {
    /// The verdict on what only virtual machines need.
    fn for_machines(self) -> Verdict {
        if self.rents_machines { Verdict::Blocker } else { Verdict::Warning }
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst verdict.
    pub verdict: Verdict,
    /// One finding per requirement.
    pub checks: Vec<Check>,
    /// Where the machine runs, and what tells so.
    pub surroundings: Surroundings,
}

impl Report {
    /// Looks at the machine, and takes over what was found elsewhere.
    #[must_use]
    pub fn new(host: &HostFs, purpose: Purpose<'_>, others: Vec<Check>) -> Self {
        let mut checks = checks(host, purpose);
        checks.extend(others);
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        Self { verdict, checks, surroundings: Surroundings::read(host) }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Ok => '✓',
                Verdict::Unknown => '?',
                Verdict::Warning => '!',
                Verdict::Blocker => '✗',
            };
            writeln!(out, "{mark} {:<24} {}", check.requirement, check.found)?;
            if !check.advice.is_empty() {
                writeln!(out, "  {:<24} → {}", "", check.advice)?;
            }
        }
        let (blockers, warnings) = (self.count(Verdict::Blocker), self.count(Verdict::Warning));
        writeln!(out, "\nblockers: {blockers}, warnings: {warnings}")
    }
}

/// The findings on this machine, in the order of the documents.
#[must_use]
pub fn checks(host: &HostFs, purpose: Purpose<'_>) -> Vec<Check> {
    let units = Inventory::read(host).units_of(NVIDIA);
    let distribution = Distribution::read(host);
    let mut checks = vec![
        cores(host),
        memory(host),
        gpus(&units),
        disk(host, purpose),
        bare_metal(host, purpose),
        operating_system(&distribution),
        kernel_version(host, &distribution),
        virtualization(host, purpose),
        iommu(host, purpose),
        groups(&units, purpose),
        interrupt_remapping(host),
        drivers(&units),
        libvirt(host, &distribution, purpose),
        clock(host),
        lockdown(host),
    ];
    checks.retain(|check| !check.found.is_empty());
    checks
}

fn cores(host: &HostFs) -> Check {
    let siblings = |processor: &String| {
        let file = |name| host.text(format!("/sys/devices/system/cpu/{processor}/topology/{name}"));
        file("core_cpus_list").or_else(|| file("thread_siblings_list"))
    };
    let cores: BTreeSet<String> = procfs::processors(host).iter().filter_map(siblings).collect();
    let (cores, threads) = (cores.len() as u64, procfs::online_processors(host));
    let verdict = match (threads, cores) {
        (0, _) => Verdict::Unknown,
        (threads, _) if threads < CORES => Verdict::Blocker,
        (_, cores) if cores < CORES => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let found = format!("{cores} cores, {threads} threads");
    Check::new("8 processor cores", verdict, found, "/sys/devices/system/cpu, /proc/stat")
        .advise("the network asks for 8 physical cores: use a machine with more")
}

fn memory(host: &HostFs) -> Check {
    let kib = procfs::memory_kib(host).get("MemTotal").copied().unwrap_or_default();
    let gib = kib >> 20;
    let verdict = match gib {
        _ if kib == 0 => Verdict::Unknown,
        gib if gib < MEMORY_GIB => Verdict::Blocker,
        _ => Verdict::Ok,
    };
    Check::new("32 GB memory", verdict, format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)), "/proc/meminfo")
        .advise("add memory")
}

fn gpus(units: &[Unit]) -> Check {
    let mut found: Vec<(String, usize)> = Vec::new();
    for unit in units {
        let name = unit.gpu.name();
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => found.push((name, 1)),
        }
    }
    let texts: Vec<_> = found.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    let listed = units.iter().filter(|unit| names::is_listed(unit.gpu.ids)).count();
    let verdict = match (units.len(), listed) {
        (0, _) => Verdict::Blocker,
        (_, 0) => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let text = if texts.is_empty() { "no NVIDIA GPU".to_owned() } else { texts.join(", ") };
    Check::new("a listed GPU", verdict, text, "/sys/bus/pci/devices")
        .advise("the network pays for RTX 3090, 4090, 5090, A100, H100, H200 and B200; a GPU earns, processors alone do not rent")
}

fn disk(host: &HostFs, purpose: Purpose<'_>) -> Check {
    let source = format!("the file system of {}", purpose.image_dir);
    let Ok(space) = host.space(purpose.image_dir) else {
        return Check::new("500 GB disk", Verdict::Unknown, "not readable", &source);
    };
    let verdict = match space.available_bytes {
        bytes if bytes < DISK_BYTES.1 => Verdict::Blocker,
        bytes if bytes < DISK_BYTES.0 => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let found = format!("{} GB free for {}", space.available_bytes / 1_000_000_000, purpose.image_dir);
    Check::new("500 GB disk", verdict, found, &source)
        .advise(format!("free some, or mount a larger disk at {}", purpose.image_dir))
}

fn bare_metal(host: &HostFs, purpose: Purpose<'_>) -> Check {
    let surroundings = Surroundings::read(host);
    let verdict = if surroundings.is_bare_metal() { Verdict::Ok } else { purpose.for_machines() };
    let signs: Vec<_> =
        surroundings.virtual_machine.iter().chain(&surroundings.container).map(String::as_str).collect();
    let signs = if signs.is_empty() { String::new() } else { format!(": {}", signs.join("; ")) };
    let found = format!("{}{signs}", surroundings.name());
    Check::new("bare metal", verdict, found, "/proc/cpuinfo, /sys/class/dmi/id, /proc/1")
        .advise("run the worker on the machine itself: GPUs cannot be rented out from inside of this")
}

fn operating_system(distribution: &Distribution) -> Check {
    let verdict = match distribution {
        Distribution { id, .. } if id.is_empty() => Verdict::Unknown,
        other if other.is_documented() => Verdict::Ok,
        _ => Verdict::Warning,
    };
    let name = if distribution.name.is_empty() { "unknown" } else { &distribution.name };
    Check::new("Ubuntu 22.04 or alike", verdict, name, "/etc/os-release")
        .advise("the worker is tested on Ubuntu 22.04 and newer and Debian 12; others may do")
}

fn kernel_version(host: &HostFs, distribution: &Distribution) -> Check {
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let verdict = match kernel::version(host) {
        (0, 0) => Verdict::Unknown,
        version if version < (6, 0) => Verdict::Blocker,
        _ => Verdict::Ok,
    };
    Check::new("kernel 6.0", verdict, release, "/proc/sys/kernel/osrelease").advise(distribution.upgrade_kernel())
}

fn virtualization(host: &HostFs, purpose: Purpose<'_>) -> Check {
    let cpuinfo = host.text("/proc/cpuinfo").unwrap_or_default();
    let is_amd = is_amd(host);
    let flag = cpu_flags(&cpuinfo).find(|flag| ["vmx", "svm"].contains(flag));
    let module = if is_amd { "kvm_amd" } else { "kvm_intel" };
    let name = if is_amd { "SVM (AMD-V)" } else { "VT-x" };
    let (verdict, found, advice) = match flag {
        None => {
            let kvm = if host.exists("/dev/kvm") { "; /dev/kvm is there and of no use without it" } else { "" };
            (
                purpose.for_machines(),
                format!("the processor shows no {name}{kvm}"),
                firmware_advice(host, Switch::Virtualization),
            )
        }
        Some(flag) if host.exists("/dev/kvm") || host.exists(format!("/sys/module/{module}")) => {
            (Verdict::Ok, format!("{name} (flag {flag}), KVM loaded"), String::new())
        }
        Some(flag) => {
            let advice =
                format!("sudo modprobe {module}; if it is refused, {}", firmware_advice(host, Switch::Virtualization));
            (Verdict::Warning, format!("{name} (flag {flag}), KVM not loaded"), advice)
        }
    };
    Check::new("VT-x or SVM", verdict, found, "/proc/cpuinfo, /dev/kvm").advise(advice)
}

fn iommu(host: &HostFs, purpose: Purpose<'_>) -> Check {
    let name = if is_amd(host) { "AMD-Vi" } else { "VT-d" };
    let (verdict, found, advice) = match Iommu::read(host) {
        Iommu::On(groups) => (Verdict::Ok, format!("{name} on, {groups} isolation groups"), String::new()),
        Iommu::NotUsed => {
            let found = format!("{name} offered by the firmware, not used by the kernel");
            (
                purpose.for_machines(),
                found,
                "sudo byteleap-worker bind sets the kernel parameters, then restart".to_owned(),
            )
        }
        Iommu::NotOffered => {
            (purpose.for_machines(), format!("{name} off in the firmware"), firmware_advice(host, Switch::Iommu))
        }
    };
    Check::new("VT-d or AMD-Vi", verdict, found, "/sys/firmware/acpi/tables, /sys/kernel/iommu_groups").advise(advice)
}

fn groups(units: &[Unit], purpose: Purpose<'_>) -> Check {
    let shared: Vec<_> = units.iter().filter(|unit| !unit.strangers().is_empty()).collect();
    let known = units.iter().filter(|unit| unit.gpu.iommu_group.is_some()).count();
    let (verdict, found) = match (known, shared.first()) {
        (0, _) => (Verdict::Ok, String::new()),
        (known, None) => (Verdict::Ok, format!("{known} GPUs, each alone")),
        (_, Some(unit)) => {
            let stranger = &unit.strangers()[0];
            let found =
                format!("{} shares its group with {} ({})", unit.gpu.address, stranger.address, stranger.name());
            (purpose.for_machines(), found)
        }
    };
    Check::new("isolation groups", verdict, found, "/sys/kernel/iommu_groups").advise("put the card into another slot")
}

fn interrupt_remapping(host: &HostFs) -> Check {
    let unsafe_allowed = host.text("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    let ecap = |unit: &String| {
        let text = host.text(format!("/sys/class/iommu/{unit}/intel-iommu/ecap"))?;
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let capabilities: Vec<u64> = host.list("/sys/class/iommu").iter().filter_map(ecap).collect();
    // Bit 3 of the extended capabilities of VT-d.
    let lacks = capabilities.iter().any(|ecap| ecap >> 3 & 1 == 0);
    let (verdict, found) = match (unsafe_allowed.as_deref(), capabilities.is_empty()) {
        (Some("Y"), _) => (Verdict::Warning, "unsafe interrupts are allowed"),
        (_, false) if lacks => (Verdict::Warning, "an IOMMU cannot remap interrupts"),
        (_, false) => (Verdict::Ok, "on"),
        _ => (Verdict::Ok, ""),
    };
    Check::new("interrupt remapping", verdict, found, "/sys/class/iommu")
        .advise("a tenant may disturb the host: remove allow_unsafe_interrupts, update the firmware")
}

fn drivers(units: &[Unit]) -> Check {
    let mut drivers: Vec<&str> = units.iter().map(|unit| unit.gpu.driver_text()).collect();
    drivers.sort_unstable();
    drivers.dedup();
    Check::new("driver of the GPUs", Verdict::Ok, drivers.join(", "), "/sys/bus/pci/devices")
}

fn libvirt(host: &HostFs, distribution: &Distribution, purpose: Purpose<'_>) -> Check {
    let is_older = |version: &str, least| {
        let mut parts = version.split('.').map(str::parse::<u32>);
        matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < least)
    };
    let (libvirt, qemu) = (packages::libvirt(host), packages::qemu(host));
    let has_socket = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"].iter().any(|path| host.exists(path));
    let text = |version: &Option<String>| version.clone().unwrap_or_else(|| "missing".to_owned());
    let running = if has_socket { "" } else { ", not running" };
    let found = format!("libvirt {}, QEMU {}{running}", text(&libvirt), text(&qemu));
    let is_old = libvirt.as_deref().is_some_and(|version| is_older(version, LIBVIRT))
        || qemu.as_deref().is_some_and(|version| is_older(version, QEMU));
    let (verdict, advice) = match (&libvirt, &qemu) {
        (Some(_), Some(_)) if is_old => {
            (purpose.for_machines(), "libvirt 8.0 and QEMU 6.2 are needed: use a newer distribution")
        }
        (Some(_), Some(_)) if has_socket => (Verdict::Ok, ""),
        (Some(_), Some(_)) => (purpose.for_machines(), "sudo systemctl enable --now libvirtd"),
        _ => (purpose.for_machines(), distribution.install_virtualization()),
    };
    Check::new("libvirt and QEMU", verdict, found, "/usr/lib, /var/lib/dpkg/status, /run/libvirt").advise(advice)
}

/// Programs that keep the clock.
const CLOCK_KEEPERS: &[&str] = &["chronyd", "ntpd", "ntpd-rs", "phc2sys", "systemd-timesyn"];

fn clock(host: &HostFs) -> Check {
    let processes = host.list("/proc").into_iter().filter(|name| name.bytes().all(|digit| digit.is_ascii_digit()));
    let keeper = processes
        .filter_map(|pid| host.text(format!("/proc/{pid}/comm")))
        .find(|name| CLOCK_KEEPERS.contains(&name.as_str()));
    let (verdict, found) = match keeper {
        _ if host.exists("/run/systemd/timesync/synchronized") => (Verdict::Ok, "synchronised".to_owned()),
        Some(name) if name == "systemd-timesyn" => (Verdict::Warning, "not synchronised yet".to_owned()),
        Some(name) => (Verdict::Ok, format!("kept by {name}")),
        None => (Verdict::Warning, "nothing keeps it".to_owned()),
    };
    Check::new("clock", verdict, found, "/run/systemd/timesync, /proc")
        .advise("sudo timedatectl set-ntp true: certificates and signatures need the right time")
}

fn lockdown(host: &HostFs) -> Check {
    let modes = host.text("/sys/kernel/security/lockdown").unwrap_or_default();
    let active =
        modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']')).unwrap_or_default();
    let verdict = if ["integrity", "confidentiality"].contains(&active) { Verdict::Warning } else { Verdict::Ok };
    Check::new("kernel lockdown", verdict, active, "/sys/kernel/security/lockdown")
        .advise("unsigned modules cannot be loaded under Secure Boot: sign those that you built, or switch it off")
}
