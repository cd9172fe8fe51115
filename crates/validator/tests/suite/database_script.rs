//! `scripts/setup_database.sh` on machines that are not ready. Each machine is a folder of stub programs that stands alone on
//! PATH: what RHEL has and Debian has not can be played on any machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// What the script itself needs from any machine; everything else is a stub or missing.
const BASICS: &[&str] = &["bash", "base64", "cat", "head", "id", "sed", "tr"];

/// A psql that makes what it is told and lets nobody in over TCP, as a server whose `pg_hba.conf` asks for ident.
const PSQL_WITH_IDENT: &str = r#"case "$*" in
  *"SELECT 1"*) echo 'FATAL:  Ident authentication failed for user "byteleap_validator"' >&2; exit 2 ;;
esac
case "$(cat)" in
  *hba_file*) echo /var/lib/pgsql/data/pg_hba.conf ;;
  *password_encryption*) echo scram-sha-256 ;;
  *) printf 'role\ndatabase\n' ;;
esac"#;

struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for program in BASICS {
            symlink(real_path(program), machine.folder.path().join(program)).unwrap();
        }
        // The script becomes the user postgres before it asks the server.
        machine.stub("setpriv", "while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"");
        machine
    }

    fn stub(&self, program: &str, body: &str) {
        let path = self.folder.path().join(program);
        fs::write(&path, format!("#!{}\n{body}\n", real_path("bash").display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn setup_database(&self) -> Output {
        Command::new(real_path("bash"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/setup_database.sh"))
            .arg("setup")
            .env_clear()
            .env("PATH", self.folder.path())
            .output()
            .unwrap()
    }
}

fn real_path(program: &str) -> PathBuf {
    let mut programs = ["/usr/bin", "/bin", "/usr/local/bin"].iter().map(|folder| Path::new(folder).join(program));
    programs.find(|path| path.exists()).unwrap_or_else(|| panic!("this machine has no {program}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_machine_without_postgresql_is_told_which_package_it_lacks() {
    let output = Machine::new().setup_database();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("Debian: postgresql, RHEL: postgresql-server"), "{}", said(&output));
}

#[test]
fn a_server_that_is_not_set_up_yet_is_started_as_its_system_does_it() {
    let machine = Machine::new();
    machine.stub("psql", "exit 2");
    machine.stub("pg_isready", "exit 2");
    let debian = machine.setup_database();
    assert_eq!(debian.status.code(), Some(1));
    assert!(said(&debian).contains("Debian's package makes the cluster"), "{}", said(&debian));
    machine.stub("postgresql-setup", "exit 0");
    let rhel = machine.setup_database();
    assert_eq!(rhel.status.code(), Some(1));
    assert!(said(&rhel).contains("postgresql-setup --initdb"), "{}", said(&rhel));
}

#[test]
fn a_server_that_asks_for_ident_is_made_to_take_the_password_by_one_line() {
    let machine = Machine::new();
    machine.stub("pg_isready", "exit 0");
    machine.stub("psql", PSQL_WITH_IDENT);
    let output = machine.setup_database();
    assert!(output.status.success(), "{}", said(&output));
    let url = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(url.starts_with("url: postgresql://byteleap_validator:"), "{url}");
    assert!(url.trim_end().ends_with("@localhost:5432/byteleap_validator"), "{url}");
    let told = said(&output);
    assert!(told.contains("Add this line to /var/lib/pgsql/data/pg_hba.conf"), "{told}");
    assert!(told.contains("  host  byteleap_validator  byteleap_validator  samehost  scram-sha-256"), "{told}");
    let password = url.split([':', '@']).nth(3).unwrap();
    assert!(password.len() >= 24 && !told.contains(password), "the password stands on standard output alone");
}
