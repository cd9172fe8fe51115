//! What the former `vfio-setup` left behind (vm-and-gpu-host spec 4.2 and 4.6): recognised by content, taken out by word.
//!
//! Its backup of GRUB's settings is never copied back: it may be years old.

use super::edit::Edit;
use super::{Error, files};
use crate::host_fs::{HostFs, Node};

/// Starts of kernel parameters by which it takes cards by their model.
pub const TAKING: &[&str] = &["vfio-pci.ids=", "modprobe.blacklist=nvidia", "pcie_acs_override="];

/// Starts of all kernel parameters that it adds.
pub const ALL: &[&str] =
    &["vfio-pci.ids=", "modprobe.blacklist=nvidia", "pcie_acs_override=", "intel_iommu=on", "amd_iommu=on", "iommu=pt"];

/// Files of GRUB's that it edits.
const GRUB_FILES: &[&str] = &["/etc/default/grub", "/etc/default/grub.d/50-cloudimg-settings.cfg"];

/// Files that only it writes, each with words that tell its hand.
const EXTRA: &[(&str, &str)] = &[
    ("/etc/initramfs-tools/scripts/init-top/vfio-pci-bind", "vfio-pci"),
    ("/etc/initramfs-tools/hooks/exclude-nvidia", "nvidia"),
];

/// Files under names that we use too, each with words that tell its hand.
const SHARED: &[(&str, &str)] = &[
    (files::MODPROBE, "options vfio-pci ids="),
    (files::BLACKLIST, "blacklist nvidia"),
    (files::MODULES, "vfio_pci"),
    ("/etc/modprobe.d/nvidia-installer-disable-nouveau.conf", "blacklist nouveau"),
];

/// The files of GRUB's that hold any of its words.
#[must_use]
pub fn grub_files(host: &HostFs) -> Vec<String> {
    let has_words = |path: &&&str| {
        let text = host.text(path).unwrap_or_default();
        TAKING.iter().any(|word| text.contains(word))
    };
    GRUB_FILES.iter().filter(has_words).map(|path| (*path).to_owned()).collect()
}

/// Its scripts that would work against ours.
#[must_use]
pub fn extra_files(host: &HostFs) -> Vec<String> {
    let is_its = |(path, word): &&(&str, &str)| host.text(path).is_some_and(|text| text.contains(word));
    EXTRA.iter().filter(is_its).map(|(path, _)| (*path).to_owned()).collect()
}

/// A settings file without the parameters that start so; nothing if it has none.
#[must_use]
pub fn without_words(node: &Node, starts: &[&str]) -> Option<Node> {
    let Node::File { content, mode, owner } = node else { return None };
    let text = String::from_utf8_lossy(content);
    let lines = text
        .split('\n')
        .map(|line| if line.starts_with("GRUB_CMDLINE") { without(line, starts) } else { line.to_owned() });
    let cleaned = lines.collect::<Vec<_>>().join("\n");
    (cleaned != text).then(|| Node::File { content: cleaned.into_bytes(), mode: *mode, owner: *owner })
}

/// A line `NAME="word word"` without the words that start so.
fn without(line: &str, starts: &[&str]) -> String {
    let is_kept = |word: &&str| !starts.iter().any(|start| word.starts_with(start));
    let Some((name, value)) = line.split_once('=') else { return line.to_owned() };
    let quote = value.chars().next().filter(|first| ['"', '\''].contains(first));
    let inner = quote.map_or(value, |quote| value.trim_start_matches(quote).trim_end_matches(quote));
    let words: Vec<&str> = inner.split(' ').filter(is_kept).collect();
    let quote = quote.map(String::from).unwrap_or_default();
    format!("{name}={quote}{}{quote}", words.join(" "))
}

/// What takes the former helper's work away where none of ours is left.
///
/// # Errors
/// A file cannot be read.
pub fn removal(host: &HostFs) -> Result<Vec<Edit>, Error> {
    let mut edits = Vec::new();
    let its = SHARED.iter().filter(|(path, word)| host.text(path).is_some_and(|text| text.contains(word)));
    let is_here =
        host.text(files::MODPROBE).is_some_and(|text| text.contains(SHARED[0].1)) || !grub_files(host).is_empty();
    if !is_here {
        return Ok(edits);
    }
    let read = |path: &str| host.node(path).map_err(|source| Error::Read { path: path.to_owned(), source });
    for path in its.map(|(path, _)| (*path).to_owned()).chain(extra_files(host)) {
        edits.push(Edit { before: read(&path)?, after: None, path });
    }
    for path in GRUB_FILES {
        let before = read(path)?;
        if let Some(after) = before.as_ref().and_then(|node| without_words(node, ALL)) {
            edits.push(Edit { path: (*path).to_owned(), before, after: Some(after) });
        }
    }
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_are_taken_out_of_grubs_settings() {
        let text = "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet vfio-pci.ids=10de:2204 splash\"\nGRUB_CMDLINE_LINUX=\"vfio-pci.ids=1\"\n# vfio-pci.ids=\n";
        let Some(Node::File { content, .. }) = without_words(&Node::text(text), TAKING) else { panic!("unchanged") };
        let expected =
            "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\nGRUB_CMDLINE_LINUX=\"\"\n# vfio-pci.ids=\n";
        assert_eq!(String::from_utf8(content).unwrap(), expected);
        assert_eq!(without_words(&Node::text("GRUB_CMDLINE_LINUX=\"quiet\"\n"), ALL), None);
    }
}
