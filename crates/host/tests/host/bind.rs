//! Binding and unbinding on every machine: everything comes back byte for byte, whatever fails and wherever the process ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use byteleap_host::gpu::report::Verification;
use byteleap_host::gpu_command::{BindArgs, Proposal};
use byteleap_host::host_fs::HostFs;
use byteleap_host::pci::{NVIDIA, VFIO_PCI};
use byteleap_host::vfio::plan::Plan;
use byteleap_host::vfio::{Binder, Error, files, former};
use proptest::prelude::*;

use crate::kernel::{Fault, Kernel, Noted, differences, tree};
use crate::machine;
use crate::shown::bind_all;

/// Files are synced often; where there is a file system in memory, that costs nothing.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A machine below a folder, with the kernel that it was started with.
struct Machine {
    root: tempfile::TempDir,
    kernel: Kernel,
}

impl Machine {
    fn named(name: &str) -> Self {
        let root = folder();
        machine::lay_out(name, root.path());
        Self { kernel: Kernel::of(root.path()), root }
    }

    fn described(text: &str) -> Self {
        let root = folder();
        machine::lay_out_text(text, root.path());
        Self { kernel: Kernel::of(root.path()), root }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    /// The plan of binding, whatever is in the way: where something is, the plan is made of the units alone.
    fn plan(&self, args: &BindArgs) -> Option<Plan> {
        let args = BindArgs { allow_console: true, allow_virtual_machine: true, ..args.clone() };
        Proposal::new(&HostFs::new(self.path()), &args).unwrap().plan
    }

    fn bind(&self, plan: &Plan, kernel: Kernel, programs: &Noted, now: bool) -> (Result<(), Error>, usize) {
        let kernel = Arc::new(kernel);
        let host = HostFs::intercepted(self.path(), kernel.clone());
        let done = Binder { host: &host, programs }.bind(plan, "20261124T200000Z", now);
        (done, kernel.changes())
    }

    fn unbind(&self, kernel: Kernel, now: bool) -> (Result<Vec<String>, Error>, usize) {
        let kernel = Arc::new(kernel);
        let host = HostFs::intercepted(self.path(), kernel.clone());
        let done = Binder { host: &host, programs: &Noted::new(self.path()) }.unbind(now);
        (done, kernel.changes())
    }

    fn kernel(&self) -> Kernel {
        self.kernel.again()
    }
}

/// The machines that binding has nothing against, or only the console.
fn bindable() -> Vec<String> {
    let mut names = machine::names();
    names.retain(|name| Machine::named(name).plan(&bind_all()).is_some());
    names
}

#[test]
fn binding_is_refused_exactly_where_it_must_be() {
    let bindable = bindable();
    let refused: Vec<_> = machine::names().into_iter().filter(|name| !bindable.contains(name)).collect();
    assert_eq!(refused, ["group-shared-with-disk", "no-iommu", "read-only-boot", "virtual-machine"]);
}

#[test]
fn bind_then_unbind_leaves_every_file_byte_for_byte_as_it_was() {
    for name in bindable() {
        for now in [false, true] {
            let machine = Machine::named(&name);
            let (before, kernel) = (tree(machine.path()), machine.kernel());
            let plan = machine.plan(&bind_all()).unwrap();
            let programs = Noted::new(machine.path());
            machine.bind(&plan, kernel, &programs, now).0.unwrap();
            let host = HostFs::new(machine.path());
            let verification = Verification::read(&host, NVIDIA);
            assert_eq!(verification.is_bound(), now || name == "former-helper", "{name}: {verification}");
            assert!(verification.files.iter().all(|(is_there, _)| *is_there), "{name}: {verification}");
            assert!(!programs.ran.lock().unwrap().is_empty());
            let again = machine.plan(&bind_all()).unwrap();
            assert!(again.is_empty() && again.commands.is_empty(), "{name}: a second bind changes nothing: {again:#?}");
            assert_eq!(machine.unbind(machine.kernel(), now).0.unwrap(), Vec::<String>::new());
            assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new(), "{name}, now: {now}");
        }
    }
}

#[test]
fn whichever_write_of_bind_fails_everything_is_put_back_at_once() {
    for name in bindable() {
        let machine = Machine::named(&name);
        let before = tree(machine.path());
        let plan = machine.plan(&bind_all()).unwrap();
        for at in 1.. {
            let kernel = machine.kernel().with_fault(at, Fault::Fails);
            let (done, changes) = machine.bind(&plan, kernel, &Noted::new(machine.path()), true);
            if changes < at {
                done.unwrap();
                break;
            }
            assert!(matches!(done, Err(Error::PutBack { .. })), "{name}, write {at}: {done:?}");
            let left = differences(&before, &tree(machine.path()));
            let is_swept = left.iter().all(|path| path.starts_with("var/lib/byteleap-gpu"));
            assert!(
                left.is_empty() || is_swept && machine.unbind(machine.kernel(), false).0.is_ok(),
                "{name}, write {at}: {left:?}"
            );
            assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new(), "{name}, write {at}");
        }
    }
}

#[test]
fn wherever_the_process_of_bind_ends_unbind_repairs_it() {
    for name in bindable() {
        let machine = Machine::named(&name);
        let before = tree(machine.path());
        let plan = machine.plan(&bind_all()).unwrap();
        for at in 1.. {
            let kernel = machine.kernel().with_fault(at, Fault::Kills);
            let (done, changes) = machine.bind(&plan, kernel, &Noted::new(machine.path()), true);
            if changes < at {
                done.unwrap();
                break;
            }
            let repaired = machine.unbind(machine.kernel(), false).0;
            assert_eq!(repaired.unwrap(), Vec::<String>::new(), "{name}, write {at}");
            assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new(), "{name}, write {at}");
        }
    }
}

#[test]
fn wherever_unbind_fails_or_ends_the_next_one_finishes_it() {
    for name in bindable() {
        let machine = Machine::named(&name);
        let before = tree(machine.path());
        let plan = machine.plan(&bind_all()).unwrap();
        for fault in [Fault::Fails, Fault::Kills] {
            for at in 1.. {
                machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), true).0.unwrap();
                let (done, changes) = machine.unbind(machine.kernel().with_fault(at, fault), true);
                if changes >= at {
                    done.unwrap_err();
                    machine.unbind(machine.kernel(), true).0.unwrap();
                }
                assert_eq!(
                    differences(&before, &tree(machine.path())),
                    Vec::<PathBuf>::new(),
                    "{name}, {fault:?} {at}"
                );
                if changes < at {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_program_that_fails_puts_everything_back() {
    for (name, failing) in [
        ("eight-3090", "update-initramfs"),
        ("two-4090-one-bound", "update-grub"),
        ("fedora", "--args"),
        ("fedora", "dracut"),
        ("systemd-boot", "mkinitcpio"),
        ("systemd-boot", "kernel-install"),
        ("eight-3090", "modprobe"),
    ] {
        let machine = Machine::named(name);
        let before = tree(machine.path());
        let plan = machine.plan(&bind_all()).unwrap();
        let programs = Noted { failing: Some(failing.to_owned()), ..Noted::new(machine.path()) };
        let done = machine.bind(&plan, machine.kernel(), &programs, true).0;
        // The program fails while undoing, too: what is left is what the next unbind repairs.
        assert!(matches!(done, Err(Error::PutBack { .. } | Error::Stuck { .. })), "{name}, {failing}: {done:?}");
        machine.unbind(machine.kernel(), false).0.unwrap();
        assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new(), "{name}, {failing}");
    }
}

#[test]
fn an_interrupted_run_must_be_undone_before_the_next() {
    let machine = Machine::named("card-without-reset");
    let plan = machine.plan(&bind_all()).unwrap();
    let total = {
        let other = Machine::named("card-without-reset");
        other.bind(&plan, other.kernel(), &Noted::new(other.path()), false).1
    };
    let kernel = machine.kernel().with_fault(total - 2, Fault::Kills);
    machine.bind(&plan, kernel, &Noted::new(machine.path()), false).0.unwrap_err();
    let refused = machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap_err();
    assert!(refused.to_string().contains("byteleap-worker unbind"), "{refused}");
    machine.unbind(machine.kernel(), false).0.unwrap();
    machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap();
}

#[test]
fn a_function_that_vfio_does_not_get_undoes_the_whole_run() {
    let machine = Machine::named("eight-3090");
    let before = tree(machine.path());
    let plan = machine.plan(&bind_all()).unwrap();
    let kernel = machine.kernel().refusing("0000:56:00.1");
    let done = machine.bind(&plan, kernel, &Noted::new(machine.path()), true).0.unwrap_err();
    assert!(
        matches!(&done, Error::PutBack { step, .. } | Error::Stuck { step, .. } if step.contains("0000:56:00.1")),
        "{done:?}"
    );
    machine.unbind(machine.kernel(), false).0.unwrap();
    assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new());
}

#[test]
fn a_partial_bind_leaves_the_driver_to_the_others_and_a_wider_one_is_undone_in_one_go() {
    let machine = Machine::named("eight-3090");
    let before = tree(machine.path());
    let first = machine.plan(&BindArgs { count: Some(2), ..bind_all() }).unwrap();
    machine.bind(&first, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap();
    let read = |path: &str| fs::read_to_string(machine.path().join(path.trim_start_matches('/'))).unwrap();
    assert_eq!(files::addresses(&read(files::UNITS)).len(), 4);
    assert!(!read(files::BLACKLIST).contains("\nblacklist"), "{}", read(files::BLACKLIST));
    let all = machine.plan(&bind_all()).unwrap();
    machine.bind(&all, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap();
    assert_eq!(files::addresses(&read(files::UNITS)).len(), 16);
    assert!(read(files::BLACKLIST).contains("\nblacklist nouveau\n"));
    machine.unbind(machine.kernel(), false).0.unwrap();
    assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new());
}

#[test]
fn of_a_file_that_others_changed_since_only_our_lines_go() {
    let machine = Machine::named("eight-3090");
    let plan = machine.plan(&bind_all()).unwrap();
    machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap();
    let path = machine.path().join("etc/modules-load.d/vfio.conf");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}kvm_intel\n")).unwrap();
    let changed = machine.unbind(machine.kernel(), false).0.unwrap();
    assert_eq!(changed, [files::MODULES]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "kvm_intel\n");
}

#[test]
fn a_card_in_use_is_refused_with_the_process_and_what_to_stop() {
    let minor = |address: &str, minor| {
        format!("file /proc/driver/nvidia/gpus/{address}/information\n| Model: x\n| Device Minor: {minor}\n")
    };
    let machine = fs::read_to_string(machine::folder().join("eight-3090.txt")).unwrap();
    let users = "process 4711 python3 /dev/null /dev/nvidia1\nprocess 812 nvidia-persiste /dev/nvidia0\n\
                 process 99 bash /dev/pts/0\n";
    let (first, second) = (minor("0000:16:00.0", 0), minor("0000:26:00.0", 1));
    let machine = Machine::described(&format!("{machine}{first}{second}{users}"));
    let host = HostFs::new(machine.path());
    let refused = |args: BindArgs| {
        let proposal = Proposal::new(&host, &args).unwrap();
        assert!(proposal.plan.is_none());
        proposal.to_string()
    };
    let all = refused(bind_all());
    assert!(all.contains("refused: nvidia-persiste (process 812) has /dev/nvidia0 open"), "{all}");
    assert!(all.contains("sudo systemctl disable --now nvidia-persistenced"), "{all}");
    assert!(all.contains("python3 (process 4711) has /dev/nvidia1 open") && !all.contains("bash"), "{all}");
    let one = refused(BindArgs { count: Some(1), ..bind_all() });
    assert!(!one.contains("python3"), "only the users of the chosen cards stand in the way: {one}");
    let other = BindArgs { pci: vec!["0000:36:00.0".parse().unwrap()], ..bind_all() };
    assert!(Proposal::new(&host, &other).unwrap().plan.is_some());
}

#[test]
fn a_device_that_shares_a_group_is_bound_with_the_card_only_if_it_is_unused_and_one_asks_for_it() {
    let machine = Machine::named("group-shared-with-disk");
    fs::write(machine.path().join("proc/mounts"), "/dev/sda1 / ext4 rw 0 0\n").unwrap();
    assert!(machine.plan(&bind_all()).is_none());
    let plan = machine.plan(&BindArgs { with_group: true, ..bind_all() }).unwrap();
    let addresses: Vec<_> = plan.units[0].functions().map(|function| function.address.to_string()).collect();
    assert_eq!(addresses, ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]);
}

#[test]
fn the_former_helpers_files_are_removed_by_content_and_its_backup_is_never_copied_back() {
    let machine = Machine::named("former-helper");
    let host = HostFs::new(machine.path());
    let edits = former::removal(&host).unwrap();
    let programs = Noted::new(machine.path());
    Binder { host: &host, programs: &programs }.remove_former(&edits, "20261124T200000Z").unwrap();
    let grub = fs::read_to_string(machine.path().join("etc/default/grub")).unwrap();
    assert_eq!(grub, "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\nGRUB_CMDLINE_LINUX=\"\"\n");
    for gone in
        [files::MODPROBE, files::BLACKLIST, files::MODULES, "/etc/initramfs-tools/scripts/init-top/vfio-pci-bind"]
    {
        assert!(!host.exists(gone), "{gone}");
    }
    assert!(host.exists("/etc/default/grub.backup") && former::removal(&host).unwrap().is_empty());
    assert_eq!(*programs.ran.lock().unwrap(), ["update-initramfs -u -k all", "update-grub"]);
    // The copies stay, and are nothing that unbind would put back.
    assert!(!host.list("/var/lib/byteleap-gpu").is_empty());
    assert_eq!(Binder { host: &host, programs: &programs }.undoing().unwrap().runs, 0);
}

#[test]
fn the_script_sets_overrides_of_cards_that_are_still_the_same_and_skips_the_others() {
    let machine = Machine::named("two-4090-one-bound");
    let plan = machine.plan(&bind_all()).unwrap();
    machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), false).0.unwrap();
    let device = |address: &str, name: &str| machine.path().join(format!("sys/bus/pci/devices/{address}/{name}"));
    fs::write(device("0000:61:00.0", "device"), "0x2204\n").unwrap();
    for program in ["etc/byteleap/vfio-bind", "etc/initramfs-tools/scripts/init-top/byteleap-vfio"] {
        let script = machine.path().join(program);
        let ended = Command::new("/bin/sh").arg(script).env("BYTELEAP_HOST_ROOT", machine.path()).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("0000:61:00.0 is now 0x10de:0x2204 and not 10de:2684"), "{said}");
        let only_driver = |address| fs::read_to_string(device(address, "driver_override")).unwrap().trim().to_owned();
        assert_eq!(only_driver("0000:41:00.0"), VFIO_PCI);
        assert_eq!(only_driver("0000:41:00.1"), VFIO_PCI);
        assert_eq!(only_driver("0000:61:00.0"), "(null)");
    }
}

/// A machine of random cards, with random files where binding writes.
fn random_machine() -> impl Strategy<Value = String> {
    let distribution = prop_oneof![
        Just(
            "program /usr/sbin/update-grub /usr/sbin/update-initramfs\nfile /etc/default/grub\n| GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n"
        ),
        Just(
            "program /usr/sbin/update-grub /usr/bin/dracut\nfile /etc/default/grub 600\n| GRUB_CMDLINE_LINUX='vfio-pci.ids=10de:2204 quiet'\n"
        ),
        Just("program /usr/bin/grub-mkconfig /usr/bin/mkinitcpio\nfile /etc/default/grub\n| GRUB_TIMEOUT=5\n"),
        Just("program /usr/sbin/grubby /usr/bin/dracut\nfile /boot/loader/entries/a.conf\n| options root=1 ro\n"),
        Just("program /usr/bin/mkinitcpio\nfile /etc/kernel/cmdline\n| root=1 rw\n"),
    ];
    let card = (
        0x10_u8..0x90,
        prop_oneof![Just("2204"), Just("2684"), Just("2330"), Just("20b5")],
        any::<bool>(),
        any::<bool>(),
    );
    let path = prop_oneof![
        Just(files::MODPROBE),
        Just(files::BLACKLIST),
        Just(files::MODULES),
        Just(files::UNITS),
        Just(files::SERVICE),
        Just(files::SCRIPT),
        Just("/etc/default/grub.d/60-byteleap-vfio.cfg"),
        Just("/etc/default/grub.d/50-cloudimg-settings.cfg"),
        Just("/etc/initramfs-tools/scripts/init-top/vfio-pci-bind"),
        Just("/etc/dracut.conf.d/60-byteleap-vfio.conf"),
    ];
    let text = prop_oneof![
        Just("options vfio-pci ids=10de:2204"),
        Just("vfio_pci"),
        Just("softdep nvidia pre: vfio-pci"),
        Just(""),
        Just("GRUB_CMDLINE_LINUX_DEFAULT=\"vfio-pci.ids=10de:2204 console=ttyS0\""),
        Just("# byteleap-vfio"),
    ];
    let file = (path, text, prop_oneof![Just("600"), Just("644"), Just("755")]);
    let link = prop_oneof![
        Just(""),
        Just("link /etc/modprobe.d/vfio.conf /usr/lib/vfio.conf\n"),
        Just("link /etc/modules-load.d/vfio.conf nowhere\n")
    ];
    let files = proptest::collection::vec(file, 0..6);
    (distribution, proptest::collection::vec(card, 1..5), files, link).prop_map(|(distribution, cards, files, link)| {
        let mut text = format!("kernel 6.8.0\ncpu amd 2 svm\niommu on\n{link}{distribution}");
        for (bus, device, is_bound, has_sound) in cards {
            let driver = if is_bound { "vfio-pci" } else { "nouveau" };
            text += &format!("pci 0000:{bus:02x}:00.0 10de:{device} 0300 group={bus} driver={driver}\n");
            if has_sound {
                text += &format!("pci 0000:{bus:02x}:00.1 10de:1aef 0403 group={bus}\n");
            }
        }
        let is_link = |path: &str| link.contains(path);
        for (path, line, mode) in files.into_iter().filter(|(path, ..)| !is_link(path)) {
            text += &format!("file {path} {mode}\n| {line}\n");
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_machine_is_bound_and_unbound_without_a_trace(
        text in random_machine(),
        now: bool,
        at in 1_usize..60,
        fault in prop_oneof![Just(Fault::Fails), Just(Fault::Kills)],
    ) {
        let machine = Machine::described(&text);
        let before = tree(machine.path());
        let plan = machine.plan(&bind_all()).unwrap();
        // First with a fault somewhere, repaired; then as it should go.
        let _ = machine.bind(&plan, machine.kernel().with_fault(at, fault), &Noted::new(machine.path()), now);
        machine.unbind(machine.kernel(), true).0.unwrap();
        prop_assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new());
        machine.bind(&plan, machine.kernel(), &Noted::new(machine.path()), now).0.unwrap();
        prop_assert!(machine.plan(&bind_all()).unwrap().is_empty(), "a second bind changes nothing");
        machine.unbind(machine.kernel(), now).0.unwrap();
        prop_assert_eq!(differences(&before, &tree(machine.path())), Vec::<PathBuf>::new());
    }
}
