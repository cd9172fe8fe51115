//! `scripts/setup` on machines that lack something. Each machine is a folder of stub programs that stands alone on PATH, so
//! that nothing of the real machine helps and nothing of it changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// What the script itself needs from any machine; everything else is a stub or missing.
const BASICS: &[&str] = &["bash", "cat", "chmod", "dirname", "head", "id", "sed", "sort"];

struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine with a C compiler, curl and git, and neither Rust nor rustup.
    fn without_rust() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        for program in BASICS {
            symlink(real_path(program), machine.path(program)).expect("a link to a basic program");
        }
        for program in ["cc", "curl", "git"] {
            machine.stub(program, "exit 0");
        }
        machine
    }

    fn path(&self, program: &str) -> PathBuf {
        self.folder.path().join(program)
    }

    fn stub(&self, program: &str, body: &str) {
        let log = self.path("log");
        let script = format!("#!/usr/bin/env bash\necho \"{program} $*\" >> '{}'\n{body}\n", log.display());
        fs::write(self.path(program), script).expect("the stub is written");
        fs::set_permissions(self.path(program), fs::Permissions::from_mode(0o755)).expect("the stub is executable");
    }

    fn stub_cargo(&self, version: &str) {
        self.stub("cargo", &format!("echo 'cargo {version} (0123abcd 2026-01-01)'"));
    }

    /// A rustup whose toolchain installation puts a cargo of this version on PATH.
    fn stub_rustup(&self, version: &str) {
        let cargo = self.path("cargo");
        let body = format!(
            "if [ \"$1\" = toolchain ]; then\n  printf '#!/usr/bin/env bash\\necho \"cargo {version} (0)\"\\n' > '{0}'\n  \
             chmod 755 '{0}'\nfi",
            cargo.display()
        );
        self.stub("rustup", &body);
    }

    fn setup(&self) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/setup");
        Command::new(real_path("bash"))
            .arg(script)
            .arg("build")
            .env_clear()
            .env("PATH", self.folder.path())
            .env("HOME", self.folder.path())
            .output()
            .expect("the script runs")
    }

    /// The calls of stubs so far, one a line.
    fn calls(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

fn real_path(program: &str) -> PathBuf {
    ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("this machine has no {program}"))
}

#[test]
fn a_machine_with_rustup_but_no_rust_gets_the_stable_toolchain() {
    let machine = Machine::without_rust();
    machine.stub_rustup("1.95.0");
    let output = machine.setup();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(machine.calls().contains("rustup toolchain install stable --profile minimal"), "{}", machine.calls());
    assert!(machine.calls().contains("rustup default stable"), "{}", machine.calls());
    assert!(output.stdout.is_empty(), "standard output belongs to results");
}

#[test]
fn an_old_rust_is_brought_up_to_date() {
    let machine = Machine::without_rust();
    machine.stub_cargo("1.60.0");
    machine.stub_rustup("1.95.0");
    assert!(machine.setup().status.success());
    assert!(machine.calls().contains("rustup toolchain install stable"), "{}", machine.calls());
}

#[test]
fn a_machine_that_has_everything_is_left_alone() {
    let machine = Machine::without_rust();
    machine.stub_cargo("1.99.0");
    machine.stub_rustup("1.99.0");
    machine.stub("apt-get", "exit 1");
    assert!(machine.setup().status.success());
    assert!(!machine.calls().contains("rustup"), "{}", machine.calls());
    assert!(!machine.calls().contains("apt-get"), "{}", machine.calls());
}

#[test]
fn a_toolchain_that_stays_too_old_is_an_error_that_names_the_version() {
    let machine = Machine::without_rust();
    machine.stub_rustup("1.60.0");
    let output = machine.setup();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("or newer is needed, found: cargo 1.60.0"), "{said}");
}

#[test]
fn a_missing_compiler_is_installed_with_the_package_tool() {
    let machine = Machine::without_rust();
    fs::remove_file(machine.path("cc")).expect("the compiler was there");
    machine.stub_cargo("1.95.0");
    machine.stub("apt-get", "exit 0");
    machine.stub("env", "shift; exec \"$@\"");
    machine.stub("sudo", "exec \"$@\"");
    assert!(machine.setup().status.success());
    assert!(machine.calls().contains("gcc libc6-dev"), "{}", machine.calls());
}
