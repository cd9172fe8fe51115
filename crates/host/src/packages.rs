//! Versions of installed packages, from the files that package managers and libraries leave; no program is run.

use crate::host_fs::HostFs;
use crate::vfio::boot::has_program;

/// What an installed thing of unknown version is shown as.
const UNKNOWN: &str = "(version unknown)";

/// Folders of libraries, by distribution.
const LIBRARIES: &[&str] = &["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];

/// The version of libvirt, as `10.0`: its library's name holds it, as `libvirt.so.0.10000.0`.
#[must_use]
pub fn libvirt(host: &HostFs) -> Option<String> {
    let link = LIBRARIES.iter().find_map(|folder| host.link_name(format!("{folder}/libvirt.so.0")));
    if let Some(number) = link.as_ref().and_then(|name| name.rsplit('.').nth(1)?.parse::<u32>().ok()) {
        return Some(format!("{}.{}", number / 1000, number % 1000));
    }
    let installed = has_program(host, "libvirtd") || has_program(host, "virtqemud");
    debian(host, "libvirt-daemon-system").or_else(|| installed.then(|| UNKNOWN.to_owned()))
}

/// The version of QEMU, as `8.2`.
#[must_use]
pub fn qemu(host: &HostFs) -> Option<String> {
    let installed = has_program(host, "qemu-system-x86_64");
    debian(host, "qemu-system-x86").or_else(|| installed.then(|| UNKNOWN.to_owned()))
}

/// The major and minor number of a package that dpkg has installed.
fn debian(host: &HostFs, package: &str) -> Option<String> {
    let status = host.text("/var/lib/dpkg/status")?;
    let name = format!("Package: {package}");
    let entry = status.split("\n\n").find(|entry| entry.lines().any(|line| line == name))?;
    let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name));
    field("Status: ").filter(|status| status.ends_with(" installed"))?;
    let version = field("Version: ")?;
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split(|character: char| !character.is_ascii_digit());
    Some(format!("{}.{}", numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn versions_are_read_from_what_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let host = HostFs::new(root.path());
        assert_eq!((libvirt(&host), qemu(&host)), (None, None));
        fs::create_dir_all(root.path().join("usr/lib64")).unwrap();
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        symlink("libvirt.so.0.9003.0", root.path().join("usr/lib64/libvirt.so.0")).unwrap();
        let status = "Package: qemu-utils\nStatus: install ok installed\nVersion: 1:9.0\n\n\
                      Package: qemu-system-x86\nStatus: install ok installed\nVersion: 1:8.2.2+ds-0ubuntu1\n";
        fs::write(root.path().join("var/lib/dpkg/status"), status).unwrap();
        assert_eq!((libvirt(&host).as_deref(), qemu(&host).as_deref()), (Some("9.3"), Some("8.2")));
        fs::write(root.path().join("var/lib/dpkg/status"), status.replace("ok installed", "ok config-files")).unwrap();
        assert_eq!(qemu(&host), None);
    }
}
