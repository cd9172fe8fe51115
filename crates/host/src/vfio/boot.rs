//! How this machine boots: what holds the kernel's parameters, and what makes the initial RAM disk
//! (vm-and-gpu-host spec 4.5, points 5 to 7).

use crate::host_fs::HostFs;
use crate::program::command;

/// GRUB's settings.
pub const GRUB: &str = "/etc/default/grub";
/// Our additions to them, where GRUB's maker reads a folder.
pub const GRUB_DROP_IN: &str = "/etc/default/grub.d/60-byteleap-vfio.cfg";
/// The parameters of systemd-boot's entries and of unified images.
pub const KERNEL_COMMAND_LINE: &str = "/etc/kernel/cmdline";
/// Boot entries that grubby edits.
const LOADER_ENTRIES: &str = "/boot/loader/entries";

/// What gives the kernel its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// GRUB as Debian and Ubuntu have it, with a folder of additions.
    GrubDropIn,
    /// GRUB without that folder: the settings themselves get a line.
    GrubFile,
    /// Boot entries that only grubby may edit, as on Fedora.
    Grubby,
    /// A file of parameters, as for systemd-boot.
    CommandLineFile,
}

/// What makes the initial RAM disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initramfs {
    /// Debian, Ubuntu.
    InitramfsTools,
    /// Fedora, openSUSE.
    Dracut,
    /// Arch Linux.
    Mkinitcpio,
}

/// Whether a program is in one of the system's folders.
pub fn has_program(host: &HostFs, name: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| host.exists(format!("{folder}/{name}")))
}

impl Loader {
    /// The one that this machine uses; none if it is none of these.
    #[must_use]
    pub fn find(host: &HostFs) -> Option<Self> {
        let has_grub = host.exists(GRUB);
        if has_program(host, "grubby") {
            Some(Self::Grubby)
        } else if has_grub && has_program(host, "update-grub") {
            Some(Self::GrubDropIn)
        } else if has_grub && (has_program(host, "grub-mkconfig") || has_program(host, "grub2-mkconfig")) {
            Some(Self::GrubFile)
        } else if host.exists(KERNEL_COMMAND_LINE) {
            Some(Self::CommandLineFile)
        } else {
            None
        }
    }

    /// The parameters that stand in this machine's configuration by others' hands.
    #[must_use]
    pub fn configured(self, host: &HostFs) -> Vec<String> {
        let text = |path: &str| host.text(path).unwrap_or_default();
        let texts = match self {
            Self::GrubDropIn | Self::GrubFile => {
                let others =
                    host.list("/etc/default/grub.d").into_iter().map(|name| format!("/etc/default/grub.d/{name}"));
                let files = others.filter(|path| path != GRUB_DROP_IN).chain([GRUB.to_owned()]);
                let lines: Vec<_> =
                    files.flat_map(|path| text(&path).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
                lines
                    .into_iter()
                    .filter(|line| line.starts_with("GRUB_CMDLINE_LINUX") && !line.ends_with(super::files::MARK))
                    .collect()
            }
            Self::CommandLineFile => vec![text(KERNEL_COMMAND_LINE)],
            Self::Grubby => {
                let entries =
                    host.list(LOADER_ENTRIES).into_iter().map(|name| text(&format!("{LOADER_ENTRIES}/{name}")));
                let options =
                    entries.map(|entry| entry.lines().filter_map(|line| line.strip_prefix("options ")).collect());
                // A parameter counts only if every entry has it.
                return common_words(&options.collect::<Vec<String>>());
            }
        };
        words(&texts.join(" "))
    }

    /// The commands that let a change of the parameters take effect.
    #[must_use]
    pub fn regenerate(self, host: &HostFs) -> Vec<Vec<String>> {
        match self {
            Self::GrubDropIn => vec![command(&["update-grub"])],
            Self::GrubFile if has_program(host, "grub2-mkconfig") => {
                vec![command(&["grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"])]
            }
            Self::GrubFile => vec![command(&["grub-mkconfig", "-o", "/boot/grub/grub.cfg"])],
            Self::CommandLineFile if has_program(host, "kernel-install") => {
                vec![command(&["kernel-install", "add-all"])]
            }
            Self::CommandLineFile | Self::Grubby => Vec::new(),
        }
    }
}

/// grubby's command that adds or takes away parameters in all entries.
#[must_use]
pub fn grubby(parameters: &[String], adds: bool) -> Vec<String> {
    let change = if adds { "--args" } else { "--remove-args" };
    vec!["grubby".to_owned(), "--update-kernel=ALL".to_owned(), format!("{change}={}", parameters.join(" "))]
}

impl Initramfs {
    /// The one that this machine uses; none if it is none of these.
    #[must_use]
    pub fn find(host: &HostFs) -> Option<Self> {
        let known =
            [("update-initramfs", Self::InitramfsTools), ("dracut", Self::Dracut), ("mkinitcpio", Self::Mkinitcpio)];
        known.into_iter().find(|(program, _)| has_program(host, program)).map(|(_, found)| found)
    }

    /// The command that makes all of this machine's again.
    #[must_use]
    pub fn regenerate(self) -> Vec<String> {
        match self {
            Self::InitramfsTools => command(&["update-initramfs", "-u", "-k", "all"]),
            Self::Dracut => command(&["dracut", "--force", "--regenerate-all"]),
            Self::Mkinitcpio => command(&["mkinitcpio", "-P"]),
        }
    }
}

/// The words of parameters, without the quotes and names of a settings file around them.
fn words(text: &str) -> Vec<String> {
    let bare =
        text.replace(['"', '\''], " ").replace("GRUB_CMDLINE_LINUX_DEFAULT=", " ").replace("GRUB_CMDLINE_LINUX=", " ");
    bare.split_whitespace().map(str::to_owned).collect()
}

fn common_words(texts: &[String]) -> Vec<String> {
    let Some((first, others)) = texts.split_first() else { return Vec::new() };
    let others: Vec<_> = others.iter().map(|text| words(text)).collect();
    words(first).into_iter().filter(|word| others.iter().all(|other| other.contains(word))).collect()
}

/// What the kernel must be told so that it isolates devices and lets the host's own go untranslated.
#[must_use]
pub fn parameters(host: &HostFs, for_old_checkers: bool) -> Vec<String> {
    let is_amd = host.text("/proc/cpuinfo").is_some_and(|text| text.contains("AuthenticAMD"));
    let wanted: &[&str] = match (is_amd, for_old_checkers) {
        (false, _) => &["intel_iommu=on", "iommu=pt"],
        (true, false) => &["iommu=pt"],
        (true, true) => &["amd_iommu=on", "iommu=pt"],
    };
    command(wanted)
}
