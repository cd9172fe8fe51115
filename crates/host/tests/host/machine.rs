//! Machines for the tests: each a short text in `machines/`, laid out as a tree that reads like the machine's own files
//! (vm-and-gpu-host spec 4.7).
//!
//! | Line | Lays out |
//! |---|---|
//! | `os ID VERSION [LIKE]` | `/etc/os-release` |
//! | `kernel RELEASE` | `/proc/sys/kernel/osrelease` |
//! | `cmdline WORD…` | `/proc/cmdline` |
//! | `cpu intel\|amd CORES FLAG…` | `/proc/cpuinfo`, `/proc/stat`, the topology |
//! | `memory GIB` | `/proc/meminfo` |
//! | `board VENDOR \| NAME` | `/sys/class/dmi/id` |
//! | `iommu off\|table\|on` | ACPI's table, and with `on` the groups; without a line there is nothing |
//! | `pci ADDRESS IDS CLASS [group=N] [driver=D] [numa=N] [subsystem=IDS] [drm=cardN] [vfs=N] boot_vga noreset` | a function |
//! | `process PID NAME DEVICE…` | a process with these files open |
//! | `mount DEVICE PATH TYPE OPTIONS` | a line of `/proc/mounts` |
//! | `program PATH…` | an empty file that may be run |
//! | `folder PATH`, `link PATH TARGET` | those |
//! | `file PATH [MODE]` and lines `\| text` | a file |

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The names of all machines.
pub(crate) fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = files.map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Where they are described.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/machines")
}

/// Lays the machine of this name out below `root`.
pub(crate) fn lay_out(name: &str, root: &Path) {
    let text = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
    lay_out_text(&text, root);
}

/// Lays out the machine that a text describes.
pub(crate) fn lay_out_text(text: &str, root: &Path) {
    let tree = Tree { root: root.to_owned() };
    for folder in ["etc", "proc", "sys/bus/pci/devices", "sys/bus/pci/drivers/vfio-pci", "sys/kernel/iommu_groups"] {
        tree.folder(folder);
    }
    tree.folder("var/lib");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.split('#').next().unwrap().trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "file" {
            let mut content = String::new();
            while let Some(next) = lines.next_if(|next| next.starts_with('|')) {
                content.push_str(next[1..].strip_prefix(' ').unwrap_or(&next[1..]));
                content.push('\n');
            }
            let (path, mode) = rest.split_once(' ').unwrap_or((rest, "644"));
            tree.file(path, &content, u32::from_str_radix(mode, 8).unwrap());
        } else {
            tree.line(word, rest);
        }
    }
}

struct Tree {
    root: PathBuf,
}

impl Tree {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    fn file(&self, path: &str, content: &str, mode: u32) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn text(&self, path: &str, content: &str) {
        self.file(path, &format!("{content}\n"), 0o644);
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    fn append(&self, path: &str, line: &str) {
        let mut text = fs::read_to_string(self.at(path)).unwrap_or_default();
        text.push_str(line);
        text.push('\n');
        self.file(path, &text, 0o644);
    }

    fn line(&self, word: &str, rest: &str) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "" => {}
            "os" => {
                let like = words.get(2).map(|like| format!("ID_LIKE={like}\n")).unwrap_or_default();
                let text = format!(
                    "ID={}\nVERSION_ID=\"{}\"\n{like}PRETTY_NAME=\"{} {}\"",
                    words[0], words[1], words[0], words[1]
                );
                self.text("etc/os-release", &text);
            }
            "kernel" => self.text("proc/sys/kernel/osrelease", rest),
            "cmdline" => self.text("proc/cmdline", rest),
            "cpu" => self.cpu(words[0], words[1].parse().unwrap(), &words[2..]),
            "memory" => {
                let kib = words[0].parse::<u64>().unwrap() << 20;
                self.text("proc/meminfo", &format!("MemTotal: {kib} kB\nMemAvailable: {kib} kB"));
            }
            "board" => {
                let (vendor, name) = rest.split_once(" | ").unwrap();
                self.text("sys/class/dmi/id/board_vendor", vendor);
                self.text("sys/class/dmi/id/sys_vendor", vendor);
                self.text("sys/class/dmi/id/board_name", name);
                self.text("sys/class/dmi/id/product_name", name);
            }
            "iommu" => self.iommu(words[0]),
            "pci" => self.pci(&words),
            "process" => {
                let folder = format!("proc/{}", words[0]);
                self.text(&format!("{folder}/comm"), words[1]);
                for (number, device) in words[2..].iter().enumerate() {
                    self.link(&format!("{folder}/fd/{number}"), device);
                }
            }
            "mount" => self.append("proc/mounts", &format!("{rest} 0 0")),
            "program" => words.iter().for_each(|path| self.file(path, "", 0o755)),
            "folder" => self.folder(rest),
            "link" => self.link(words[0], words[1]),
            other => panic!("no such line: {other} {rest}"),
        }
    }

    fn cpu(&self, vendor: &str, cores: u32, flags: &[&str]) {
        let (vendor, model) = match vendor {
            "amd" => ("AuthenticAMD", "AMD EPYC 7543 32-Core Processor"),
            _ => ("GenuineIntel", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"),
        };
        let (mut info, mut stat) = (String::new(), "cpu  1 0 0 1 0 0 0 0 0 0\n".to_owned());
        for cpu in 0..cores * 2 {
            let flags = flags.join(" ");
            info += &format!(
                "processor\t: {cpu}\nvendor_id\t: {vendor}\nmodel name\t: {model}\nflags\t\t: fpu {flags}\n\n"
            );
            stat += &format!("cpu{cpu} 1 0 0 1 0 0 0 0 0 0\n");
            let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            self.text(&format!("{topology}/core_cpus_list"), &format!("{},{}", cpu % cores, cpu % cores + cores));
        }
        self.text("proc/cpuinfo", &info);
        self.text("proc/stat", &format!("{stat}btime 1700000000"));
    }

    fn iommu(&self, state: &str) {
        let cpuinfo = fs::read_to_string(self.at("proc/cpuinfo")).unwrap_or_default();
        let (table, unit) = if cpuinfo.contains("AuthenticAMD") { ("IVRS", "ivhd0") } else { ("DMAR", "dmar0") };
        if state != "off" {
            self.text(&format!("sys/firmware/acpi/tables/{table}"), table);
        }
        if state == "on" {
            self.folder(&format!("sys/class/iommu/{unit}"));
        }
    }

    fn pci(&self, words: &[&str]) {
        let (address, folder) = (words[0], format!("sys/bus/pci/devices/{}", words[0]));
        let set = |name: &str, value: &str| self.text(&format!("{folder}/{name}"), value);
        let (vendor, device) = words[1].split_once(':').unwrap();
        set("vendor", &format!("0x{vendor}"));
        set("device", &format!("0x{device}"));
        set("class", &format!("0x{:0<6}", words[2]));
        set("driver_override", "(null)");
        let has = |flag: &str| words[3..].contains(&flag);
        if words[2].starts_with("0300") {
            set("boot_vga", if has("boot_vga") { "1" } else { "0" });
        }
        if !has("noreset") {
            set("reset_method", "flr bus");
        }
        for (name, value) in words[3..].iter().filter_map(|word| word.split_once('=')) {
            match name {
                "group" => {
                    self.link(&format!("{folder}/iommu_group"), &format!("../../../../kernel/iommu_groups/{value}"));
                    let member = format!("sys/kernel/iommu_groups/{value}/devices/{address}");
                    self.link(&member, &format!("../../../../bus/pci/devices/{address}"));
                }
                "driver" => {
                    self.folder(&format!("sys/bus/pci/drivers/{value}"));
                    self.link(&format!("{folder}/driver"), &format!("../../drivers/{value}"));
                }
                "numa" => set("numa_node", value),
                "vfs" => set("sriov_numvfs", value),
                "drm" => self.folder(&format!("{folder}/drm/{value}")),
                "subsystem" => {
                    let (vendor, device) = value.split_once(':').unwrap();
                    set("subsystem_vendor", &format!("0x{vendor}"));
                    set("subsystem_device", &format!("0x{device}"));
                }
                other => panic!("no such property: {other}"),
            }
        }
    }
}
