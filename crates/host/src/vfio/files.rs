//! The files that binding writes (vm-and-gpu-host spec 4.5, point 5), each with a line that says whose it is.
//!
//! One script does the work, wherever it runs: in the initial RAM disk, before any display driver, and again as a service
//! of the booted system. It reads the list of units, and lets vfio-pci have what is still the same card.

use std::fmt::Write as _;

use super::boot::Initramfs;
use crate::gpu::Unit;
use crate::host_fs::Node;

/// Ends each line that we add to a file of others.
pub const MARK: &str = "# byteleap-vfio";

/// Opens each file that is ours.
const OURS: &str = "# byteleap-vfio: written by `byteleap-worker bind`, removed by `byteleap-worker unbind`.\n";

/// The list of functions to bind.
pub const UNITS: &str = "/etc/byteleap/vfio-units.conf";
/// The script that binds them.
pub const SCRIPT: &str = "/etc/byteleap/vfio-bind";
/// Orders drivers.
pub const MODPROBE: &str = "/etc/modprobe.d/vfio.conf";
/// Keeps drivers away.
pub const BLACKLIST: &str = "/etc/modprobe.d/nvidia-blacklist.conf";
/// Loads vfio.
pub const MODULES: &str = "/etc/modules-load.d/vfio.conf";
/// Binds what the initial RAM disk did not.
pub const SERVICE: &str = "/etc/systemd/system/byteleap-vfio.service";
/// Starts it at boot.
pub const SERVICE_LINK: &str = "/etc/systemd/system/sysinit.target.wants/byteleap-vfio.service";

/// Drivers that take NVIDIA's GPUs.
pub const GPU_DRIVERS: &[&str] = &["nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidiafb", "nouveau"];

/// The list of units: one line per function.
#[must_use]
pub fn units(units: &[Unit]) -> Node {
    let mut text = format!("{OURS}# address vendor:device subsystem role\n");
    for function in units.iter().flat_map(Unit::functions) {
        let _ = writeln!(text, "{} {} {} {}", function.address, function.ids, function.subsystem, function.role);
    }
    Node::text(text)
}

/// The addresses in a list of units.
#[must_use]
pub fn addresses(text: &str) -> Vec<crate::pci::Address> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// Sets the override of each listed function whose ids still match, and lets vfio-pci take those that no driver has.
/// `/bin/sh` of an initial RAM disk runs it: no other program is needed but modprobe.
const SCRIPT_TEXT: &str = r#"root=${BYTELEAP_HOST_ROOT:-}
say() {
    echo "byteleap-vfio: $1" > "$root/dev/kmsg" 2>/dev/null || echo "byteleap-vfio: $1" >&2
}
units=$root/etc/byteleap/vfio-units.conf
[ -r "$units" ] || { say "there is no list of units"; exit 0; }
while read -r address ids subsystem role; do
    case $address in ''|'#'*) continue ;; esac
    device=$root/sys/bus/pci/devices/$address
    [ -r "$device/vendor" ] || { say "$address is not there: skipped"; continue; }
    read -r vendor < "$device/vendor"
    read -r model < "$device/device"
    if [ "$vendor:$model" != "0x${ids%:*}:0x${ids#*:}" ]; then
        say "$address is now $vendor:$model and not $ids: skipped, bind again"
        continue
    fi
    echo vfio-pci > "$device/driver_override" || say "$address ($role, $subsystem) takes no override"
done < "$units"
[ -n "$root" ] || modprobe vfio-pci || say "vfio-pci cannot be loaded"
while read -r address ids subsystem role; do
    case $address in ''|'#'*) continue ;; esac
    device=$root/sys/bus/pci/devices/$address
    if [ -r "$device/vendor" ] && [ ! -e "$device/driver" ]; then
        echo "$address" > "$root/sys/bus/pci/drivers_probe" || say "$address was not taken"
    fi
done < "$units"
exit 0
"#;

/// The script for the booted system.
#[must_use]
pub fn script() -> Node {
    Node::script(format!("#!/bin/sh\n{OURS}{SCRIPT_TEXT}"))
}

/// Only the order of drivers, and no ids: another card of the same model is none of ours.
#[must_use]
pub fn modprobe() -> Node {
    let mut text = OURS.to_owned();
    for driver in GPU_DRIVERS.iter().chain(&["snd_hda_intel"]) {
        let _ = writeln!(text, "softdep {driver} pre: vfio-pci");
    }
    Node::text(text)
}

/// Keeps drivers away where no card is left for them.
#[must_use]
pub fn blacklist(binds_all: bool) -> Node {
    let mut text = OURS.to_owned();
    if binds_all {
        for driver in GPU_DRIVERS {
            let _ = writeln!(text, "blacklist {driver}");
        }
    } else {
        text.push_str("# Not all GPUs are bound: the others keep their driver, so none is kept away.\n");
    }
    Node::text(text)
}

/// The modules of vfio. One of them went into another with kernel 6.2.
#[must_use]
pub fn modules(kernel: (u32, u32)) -> Node {
    let last = if kernel < (6, 2) { "vfio_virqfd\n" } else { "" };
    Node::text(format!("{OURS}vfio\nvfio_iommu_type1\nvfio_pci\n{last}"))
}

/// GRUB's additions, as a file of their own.
#[must_use]
pub fn grub_drop_in(parameters: &[String]) -> Node {
    Node::text(format!("{OURS}{}\n", grub_line(parameters)))
}

/// GRUB's additions as one line of its settings.
#[must_use]
pub fn grub_line(parameters: &[String]) -> String {
    format!(r#"GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {}" {MARK}"#, parameters.join(" "))
}

/// The service that runs the script once at boot, and the link that starts it.
#[must_use]
pub fn service() -> [(&'static str, Node); 2] {
    let unit = format!(
        "{OURS}[Unit]\n\
         Description=Hand the listed GPUs to vfio-pci\n\
         DefaultDependencies=no\n\
         Wants=systemd-modules-load.service\n\
         After=systemd-remount-fs.service\n\
         Before=systemd-udev-trigger.service systemd-modules-load.service\n\
         Before=sysinit.target display-manager.service libvirtd.service virtqemud.service\n\
         ConditionPathExists={UNITS}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={SCRIPT}\n\
         \n\
         [Install]\n\
         WantedBy=sysinit.target\n"
    );
    [(SERVICE, Node::text(unit)), (SERVICE_LINK, Node::Link { target: SERVICE.into() })]
}

/// What brings the script and the list into the initial RAM disk.
#[must_use]
pub fn hook(initramfs: Initramfs) -> Vec<(&'static str, Node)> {
    match initramfs {
        Initramfs::InitramfsTools => {
            let prerequisites = "case $1 in prereqs) echo; exit 0 ;; esac\n";
            let boot = format!("#!/bin/sh\n{OURS}{prerequisites}{SCRIPT_TEXT}");
            let make = format!(
                "#!/bin/sh\n{OURS}{prerequisites}. /usr/share/initramfs-tools/hook-functions\n\
                 manual_add_modules vfio vfio_iommu_type1 vfio_pci\n\
                 mkdir -p \"$DESTDIR/etc/byteleap\"\n\
                 cp {UNITS} \"$DESTDIR{UNITS}\"\n"
            );
            vec![
                ("/etc/initramfs-tools/hooks/byteleap-vfio", Node::script(make)),
                ("/etc/initramfs-tools/scripts/init-top/byteleap-vfio", Node::script(boot)),
            ]
        }
        Initramfs::Dracut => {
            let setup = format!(
                "#!/bin/bash\n{OURS}check() {{ return 0; }}\ndepends() {{ return 0; }}\n\
                 installkernel() {{ instmods vfio vfio_iommu_type1 vfio-pci; }}\n\
                 install() {{\n    inst_simple {UNITS}\n    inst_script {SCRIPT}\n    \
                 inst_hook pre-udev 00 \"$moddir/hook.sh\"\n}}\n"
            );
            // dracut's init sources its hooks, so this one starts the script as a process of its own.
            let hook = format!("#!/bin/sh\n{OURS}{SCRIPT}\n");
            let settings = format!("{OURS}add_dracutmodules+=\" byteleap-vfio \"\n");
            vec![
                ("/etc/dracut.conf.d/60-byteleap-vfio.conf", Node::text(settings)),
                ("/usr/lib/dracut/modules.d/60byteleap-vfio/hook.sh", Node::script(hook)),
                ("/usr/lib/dracut/modules.d/60byteleap-vfio/module-setup.sh", Node::script(setup)),
            ]
        }
        Initramfs::Mkinitcpio => {
            let install = format!(
                "#!/bin/bash\n{OURS}build() {{\n    add_module vfio_pci\n    add_module vfio_iommu_type1\n    \
                 add_file {UNITS}\n    add_file {SCRIPT} {SCRIPT} 0755\n    add_runscript\n}}\n\
                 help() {{ echo \"Hands the listed GPUs to vfio-pci before any display driver.\"; }}\n"
            );
            let hook = format!("#!/usr/bin/ash\n{OURS}run_earlyhook() {{\n    {SCRIPT}\n}}\n");
            let settings = format!("{OURS}HOOKS=(\"${{HOOKS[0]}}\" byteleap-vfio \"${{HOOKS[@]:1}}\")\n");
            vec![
                ("/etc/initcpio/hooks/byteleap-vfio", Node::text(hook)),
                ("/etc/initcpio/install/byteleap-vfio", Node::text(install)),
                ("/etc/mkinitcpio.conf.d/60-byteleap-vfio.conf", Node::text(settings)),
            ]
        }
    }
}
