//! The three daemons as systemd services, installed into a folder: `install-service --root DIR` and its siblings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use byteleap_localnet::binaries::Binaries;

/// Validator, miner and worker with the names of their services.
fn daemons() -> [(PathBuf, &'static str); 3] {
    let binaries = Binaries::beside_this_process().unwrap();
    [
        (binaries.validator(), "byteleap-validator"),
        (binaries.miner(), "byteleap-miner"),
        (binaries.worker(), "byteleap-worker"),
    ]
}

fn run(daemon: &Path, command: &str, root: &Path, flags: &[&str]) -> Output {
    Command::new(daemon).arg(command).arg("--root").arg(root).args(flags).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The names and contents of all files below a folder, links by their target.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.append(&mut content(&path));
        } else if kind.is_symlink() {
            found.push((path.clone(), fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn each_service_is_installed_once_or_twice_and_removed_without_its_configuration() {
    for (daemon, name) in daemons() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let status = |code| {
            let output = run(&daemon, "service-status", root, &["--json"]);
            assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output));
        };
        status(4);
        let dry = run(&daemon, "install-service", root, &["--dry-run"]);
        assert!(dry.status.success() && text(&dry).contains("systemctl enable"), "{name}: {}", text(&dry));
        assert_eq!(fs::read_dir(root).unwrap().count(), 0, "{name}: a dry run only tells");

        let installed = run(&daemon, "install-service", root, &[]);
        assert!(installed.status.success(), "{name}: {}", text(&installed));
        let once = content(root);
        assert!(run(&daemon, "install-service", root, &[]).status.success());
        assert_eq!(content(root), once, "{name}: a second installation changes nothing");
        status(3);

        // The installed program reads the installed configuration: of its problems, none is a key of ours.
        let program = root.join(format!("opt/{name}/current/{name}"));
        let config = root.join(format!("opt/{name}/config")).join(config_file(name));
        let told = Command::new(program).args(["config", "--config"]).arg(&config).output().unwrap();
        assert!(!text(&told).contains("unknown key"), "{name}: {}", text(&told));

        let removed = run(&daemon, "uninstall-service", root, &[]);
        assert!(removed.status.success(), "{name}: {}", text(&removed));
        status(4);
        assert!(config.exists(), "{name}: the configuration stays");
        let refused = run(&daemon, "uninstall-service", root, &["--purge"]);
        assert!(!refused.status.success() && config.exists(), "{name}: nobody was there to say yes");
        assert!(run(&daemon, "uninstall-service", root, &["--purge", "--yes"]).status.success());
        assert!(!config.exists() && !root.join("var/lib").join(name).exists(), "{name}");
    }
}

#[test]
fn systemd_accepts_every_unit_and_rates_it_well() {
    for (daemon, name) in daemons() {
        let folder = tempfile::tempdir().unwrap();
        let installed = run(&daemon, "install-service", folder.path(), &[]);
        assert!(installed.status.success(), "{name}: {}", text(&installed));
        let unit = folder.path().join(format!("etc/systemd/system/{name}.service"));
        // The program stands where the unit of this root would have it.
        let verified =
            fs::read_to_string(&unit).unwrap().replace("=/opt", &format!("={}/opt", folder.path().display()));
        fs::write(&unit, verified).unwrap();
        let analyze = |flags: &[&str]| Command::new("systemd-analyze").args(flags).arg(&unit).output().unwrap();
        let verify = analyze(&["verify", "--man=no"]);
        assert!(verify.status.success() && verify.stderr.is_empty(), "{name}: {}", text(&verify));
        let security = analyze(&["security", "--offline=true", "--threshold=25"]);
        assert!(security.status.success(), "{name}: {}", text(&security));
    }
}

fn config_file(name: &str) -> String {
    format!("{}_config.yaml", name.trim_start_matches("byteleap-"))
}
