//! What `list`, `verify`, `bind --dry-run` and `debug` show on every machine, as files that a person has read.

use std::fs;
use std::path::Path;

use byteleap_host::debug;
use byteleap_host::doctor::{Purpose, Report};
use byteleap_host::gpu::report::{self, Verification};
use byteleap_host::gpu_command::{BindArgs, Proposal, RootArgs};
use byteleap_host::host_fs::HostFs;
use byteleap_host::pci::NVIDIA;

use crate::machine;

/// `bind` without flags.
pub(crate) fn bind_all() -> BindArgs {
    BindArgs {
        count: None,
        pci: Vec::new(),
        dry_run: true,
        yes: false,
        now: false,
        allow_console: false,
        with_group: false,
        compat: false,
        no_install: false,
        allow_virtual_machine: false,
        place: RootArgs { root: None, vendor: NVIDIA },
    }
}

/// Machines of which the whole plan is kept: one of each kind. Of the others what is added to files is left out.
const IN_FULL: &[&str] = &["a100-without-sound", "fedora", "systemd-boot"];

/// Everything that the commands show on one machine.
fn shown(host: &HostFs, in_full: bool) -> String {
    let verification = Verification::read(host, NVIDIA);
    let exit = if verification.is_bound() { 0 } else { 1 };
    let proposal = match Proposal::new(host, &bind_all()) {
        Ok(proposal) => proposal.to_string(),
        Err(error) => format!("error: {error}\n"),
    };
    let is_shown = |line: &&str| in_full || !line.starts_with("  +");
    let plan: String = proposal.lines().filter(is_shown).map(|line| format!("{line}\n")).collect();
    let mut doctor = Report::new(host, Purpose { rents_machines: true, image_dir: "/var/lib/vm" }, Vec::new());
    // The disk is that of the machine that runs the test.
    doctor.checks.retain(|check| check.requirement != "500 GB disk");
    format!(
        "$ list\n{}\n$ verify\n{verification}(exit {exit})\n\n$ bind --dry-run\n{plan}\n$ doctor\n{doctor}",
        report::list(host)
    )
}

#[test]
fn every_machine_is_shown_as_it_is() {
    for name in machine::names() {
        let root = tempfile::tempdir().unwrap();
        machine::lay_out(&name, root.path());
        let shown = shown(&HostFs::new(root.path()), IN_FULL.contains(&name.as_str()));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/host/expected/{name}.txt"));
        if std::env::var_os("BYTELEAP_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &shown).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown, expected, "{name}: read it, then write it anew with BYTELEAP_BLESS=1");
    }
}

#[test]
fn the_summary_is_that_of_the_documents_to_the_letter() {
    let root = tempfile::tempdir().unwrap();
    let text = "pci 0000:41:00.0 10de:2204 0300 group=1 driver=vfio-pci\n";
    let text: String = (0..8).map(|bus| text.replace("41", &format!("4{bus}"))).collect();
    machine::lay_out_text(&text, root.path());
    let verification = Verification::read(&HostFs::new(root.path()), NVIDIA);
    let summary = "\n=== Summary ===\nVFIO-bound NVIDIA GPUs: 8\nOther NVIDIA GPUs: 0\nTotal NVIDIA GPUs: 8\n";
    assert!(verification.to_string().contains(summary), "{verification}");
}

#[test]
fn the_report_for_support_has_ten_sections_on_every_machine_and_names_none() {
    for name in machine::names() {
        let root = tempfile::tempdir().unwrap();
        machine::lay_out(&name, root.path());
        fs::write(root.path().join("etc/hostname"), "rack7-n3\n").unwrap();
        fs::write(root.path().join("etc/byteleap.conf"), "rack7-n3\n").unwrap();
        let archive = root.path().join("support.tar.gz");
        let report = debug::run(&HostFs::new(root.path()), Some(&archive)).unwrap();
        let sections = report.lines().filter(|line| line.starts_with("=== ")).count();
        assert_eq!(sections, 10, "{report}");
        assert!(!report.contains("rack7-n3") && fs::metadata(&archive).unwrap().len() > 100);
    }
}
