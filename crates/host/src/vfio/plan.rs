//! What binding changes, before anything is changed: files as edits, and the programs that must run afterwards.

use std::io;

use super::boot::{self, GRUB, GRUB_DROP_IN, Initramfs, KERNEL_COMMAND_LINE, Loader};
use super::edit::Edit;
use super::{Error, files, former};
use crate::gpu::Unit;
use crate::host_fs::{HostFs, Node};

/// A machine's way from what it is to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The units that are bound afterwards.
    pub units: Vec<Unit>,
    /// Changes of files, in the order in which they are made.
    pub edits: Vec<Edit>,
    /// Parameters of the kernel that grubby adds.
    pub grubby: Vec<String>,
    /// Programs that must run after the files are changed.
    pub commands: Vec<Vec<String>>,
}

impl Plan {
    /// Whether the machine is already as it was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.grubby.is_empty()
    }
}

/// What must be known besides the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// No GPU is left for the host.
    pub binds_all: bool,
    /// Parameters that only old checkers ask for, too.
    pub for_old_checkers: bool,
}

/// Plans that exactly these units are bound from the next boot on.
///
/// # Errors
/// The machine boots in a way that is not known, or a file cannot be read.
pub fn plan(host: &HostFs, units: Vec<Unit>, wish: Wish) -> Result<Plan, Error> {
    let parameters = boot::parameters(host, wish.for_old_checkers);
    let loader = Loader::find(host).ok_or_else(|| Error::UnknownLoader { parameters: parameters.join(" ") })?;
    let initramfs = Initramfs::find(host).ok_or(Error::UnknownInitramfs)?;
    let configured = loader.configured(host);
    let missing: Vec<String> = parameters.into_iter().filter(|parameter| !configured.contains(parameter)).collect();

    let mut wanted: Vec<(String, Option<Node>)> =
        vec![(files::UNITS.to_owned(), Some(files::units(&units))), (files::SCRIPT.to_owned(), Some(files::script()))];
    let mut want = |path: &str, node: Node| wanted.push((path.to_owned(), Some(node)));
    want(files::MODPROBE, files::modprobe());
    want(files::BLACKLIST, files::blacklist(wish.binds_all));
    want(files::MODULES, files::modules(crate::kernel::version(host)));
    files::service().into_iter().chain(files::hook(initramfs)).for_each(|(path, node)| want(path, node));
    let grub = grub_settings(host, loader, &missing)?;
    wanted.extend(grub);
    wanted.extend(former::extra_files(host).into_iter().map(|path| (path, None)));

    let mut edits = Vec::new();
    for (path, after) in wanted {
        let before = host.node(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let after = after.map(|after| keep_permissions(after, before.as_ref()));
        if before != after {
            edits.push(Edit { path, before, after });
        }
    }
    let grubby = if loader == Loader::Grubby { missing } else { Vec::new() };
    let mut commands = Vec::new();
    if !edits.is_empty() {
        commands.push(initramfs.regenerate());
    }
    if edits.iter().any(|edit| {
        [GRUB, GRUB_DROP_IN, KERNEL_COMMAND_LINE].contains(&edit.path.as_str()) || edit.path.contains("/grub.d/")
    }) {
        commands.extend(loader.regenerate(host));
    }
    if !grubby.is_empty() {
        commands.push(boot::grubby(&grubby, true));
    }
    Ok(Plan { units, edits, grubby, commands })
}

/// The edits of the files that hold the kernel's parameters, the former helper's words taken out of them.
fn grub_settings(host: &HostFs, loader: Loader, missing: &[String]) -> Result<Vec<(String, Option<Node>)>, Error> {
    let mut wanted = Vec::new();
    for path in former::grub_files(host) {
        let node = host.node(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        if let Some(cleaned) = node.as_ref().and_then(|node| former::without_words(node, former::TAKING)) {
            wanted.push((path, Some(cleaned)));
        }
    }
    match loader {
        Loader::Grubby => {}
        Loader::GrubDropIn if missing.is_empty() => wanted.push((GRUB_DROP_IN.to_owned(), None)),
        Loader::GrubDropIn => wanted.push((GRUB_DROP_IN.to_owned(), Some(files::grub_drop_in(missing)))),
        Loader::GrubFile => {
            let cleaned = wanted.iter().position(|(path, _)| path == GRUB).and_then(|place| wanted.remove(place).1);
            let read = |source: io::Error| Error::Read { path: GRUB.to_owned(), source };
            let node = match cleaned {
                Some(node) => Some(node),
                None => host.node(GRUB).map_err(read)?,
            };
            wanted.extend(node.map(|node| (GRUB.to_owned(), Some(with_grub_line(&node, missing)))));
        }
        Loader::CommandLineFile if missing.is_empty() => {}
        Loader::CommandLineFile => {
            let read = |source: io::Error| Error::Read { path: KERNEL_COMMAND_LINE.to_owned(), source };
            let text = String::from_utf8_lossy(&host.read(KERNEL_COMMAND_LINE).map_err(read)?).into_owned();
            let (line, end) = text.strip_suffix('\n').map_or((text.as_str(), ""), |line| (line, "\n"));
            let longer = format!("{line} {}{end}", missing.join(" "));
            wanted.push((KERNEL_COMMAND_LINE.to_owned(), Some(Node::text(longer))));
        }
    }
    Ok(wanted)
}

/// GRUB's settings with our line as the last, or without it if nothing is missing.
fn with_grub_line(node: &Node, missing: &[String]) -> Node {
    let Node::File { content, mode, owner } = node else { return node.clone() };
    let text = String::from_utf8_lossy(content);
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.ends_with(files::MARK)).collect();
    let line = files::grub_line(missing);
    if !missing.is_empty() {
        lines.push(&line);
    }
    let end = if text.ends_with('\n') || !missing.is_empty() { "\n" } else { "" };
    Node::File { content: format!("{}{end}", lines.join("\n")).into_bytes(), mode: *mode, owner: *owner }
}

/// A file that is there keeps its permissions and owner; a script stays one that may be run.
fn keep_permissions(after: Node, before: Option<&Node>) -> Node {
    match (after, before) {
        (Node::File { content, mode, .. }, Some(Node::File { mode: old_mode, owner, .. })) => {
            Node::File { content, mode: old_mode | (mode & 0o111), owner: *owner }
        }
        (after, _) => after,
    }
}
