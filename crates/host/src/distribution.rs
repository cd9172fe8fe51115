//! The distribution of this machine, and what to type on it to get something installed.

use crate::host_fs::HostFs;

/// A distribution, as its release file names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// As `ubuntu`.
    pub id: String,
    /// As `22.04`; `rolling` and the like on some.
    pub version: String,
    /// What it descends from, as `debian`.
    pub like: Vec<String>,
    /// As people read it.
    pub name: String,
}

/// Distributions that are installed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu and descendants.
    Debian,
    /// Fedora, RHEL and descendants.
    Fedora,
    /// Arch Linux and descendants.
    Arch,
    /// openSUSE and SLES.
    Suse,
    /// Any other.
    Other,
}

impl Distribution {
    /// Reads `/etc/os-release`.
    #[must_use]
    pub fn read(host: &HostFs) -> Self {
        let text = host.text("/etc/os-release").or_else(|| host.text("/usr/lib/os-release")).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        Self {
            id: field("ID"),
            version: field("VERSION_ID"),
            like: field("ID_LIKE").split_whitespace().map(str::to_owned).collect(),
            name: field("PRETTY_NAME"),
        }
    }

    /// How it is installed.
    #[must_use]
    pub fn family(&self) -> Family {
        let is =
            |names: &[&str]| names.iter().any(|name| self.id == *name || self.like.iter().any(|like| like == name));
        match () {
            () if is(&["debian", "ubuntu"]) => Family::Debian,
            () if is(&["fedora", "rhel", "centos"]) => Family::Fedora,
            () if is(&["arch"]) => Family::Arch,
            () if is(&["suse", "opensuse", "sles"]) => Family::Suse,
            () => Family::Other,
        }
    }

    /// Major and minor number; zeros where it has none.
    #[must_use]
    pub fn numbers(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or_default());
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// Whether the documents name it or a descendant that is new enough.
    #[must_use]
    pub fn is_documented(&self) -> bool {
        match self.id.as_str() {
            "ubuntu" => self.numbers() >= (22, 4),
            "debian" => self.numbers() >= (12, 0),
            _ => self.family() == Family::Debian,
        }
    }

    /// The command that installs libvirt and QEMU.
    #[must_use]
    pub fn install_virtualization(&self) -> &'static str {
        match self.family() {
            Family::Debian => {
                "sudo apt install -y libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils cloud-utils"
            }
            Family::Fedora => {
                "sudo dnf install -y libvirt qemu-kvm qemu-img cloud-utils && sudo systemctl enable --now libvirtd"
            }
            Family::Arch => "sudo pacman -S libvirt qemu-base cloud-utils && sudo systemctl enable --now libvirtd",
            Family::Suse => "sudo zypper install libvirt qemu-kvm qemu-tools && sudo systemctl enable --now libvirtd",
            Family::Other => "install libvirt (8.0 or newer) and QEMU (6.2 or newer) of your distribution",
        }
    }

    /// The command that brings a newer kernel.
    #[must_use]
    pub fn upgrade_kernel(&self) -> String {
        match (self.id.as_str(), self.family()) {
            ("ubuntu", _) => format!("sudo apt install linux-generic-hwe-{} && sudo reboot", self.version),
            ("debian", _) => "enable backports, then sudo apt install -t stable-backports linux-image-amd64".to_owned(),
            (_, Family::Fedora) => "sudo dnf upgrade kernel && sudo reboot".to_owned(),
            (_, Family::Arch) => "sudo pacman -Syu && sudo reboot".to_owned(),
            _ => "install a kernel of 6.0 or newer, then restart".to_owned(),
        }
    }
}
