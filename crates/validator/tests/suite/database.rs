//! `migrate` on both engines, and `scripts/setup_database.sh` on a real server.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

/// `byteleap-validator` with a database and a command.
pub(super) fn validator(database_url: &str, command: &[&str]) -> Output {
    let settings = [
        "netuid=128".to_owned(),
        "wallet.name=validator".to_owned(),
        "wallet.hotkey=default".to_owned(),
        format!("database.url={database_url}"),
    ];
    let mut program = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"));
    program.args(settings.iter().flat_map(|setting| ["--set", setting])).args(command);
    program.output().expect("the program runs")
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// `migrate check` fails before `migrate up` and passes after it; both times it says where it looked.
fn check_passes_once_the_steps_have_run(database_url: &str, names: &[&str]) {
    let before = validator(database_url, &["migrate", "check"]);
    assert_eq!(before.status.code(), Some(1), "{}", text(&before));
    assert!(text(&before).contains("0001 challenge_path"), "{}", text(&before));
    assert!(validator(database_url, &["migrate", "up"]).status.success());
    let after = validator(database_url, &["migrate", "check"]);
    assert_eq!(after.status.code(), Some(0), "{}", text(&after));
    for name in names {
        assert!(text(&before).contains(name) && text(&after).contains(name), "{name}\n{}", text(&after));
    }
}

/// Several processes bring one fresh database up to date at once: all succeed, and exactly one runs the steps.
fn of_processes_that_start_at_once_one_runs_the_steps(database_url: &str) {
    let outputs = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| validator(database_url, &["migrate", "up"]))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    for output in &outputs {
        assert!(output.status.success(), "{}", text(output));
    }
    let applied = outputs.iter().filter(|output| text(output).contains("applied challenge_path")).count();
    let idle = outputs.iter().filter(|output| text(output).starts_with("nothing to do")).count();
    assert_eq!((applied, idle), (1, 3), "{:?}", outputs.iter().map(text).collect::<Vec<_>>());
}

mod on_sqlite {
    use super::*;

    #[test]
    fn of_processes_that_start_at_once_one_runs_the_steps() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:///{}", folder.path().join("validator.db").display());
        super::of_processes_that_start_at_once_one_runs_the_steps(&url);
    }

    #[test]
    fn check_passes_once_the_steps_have_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("validator.db");
        let url = format!("sqlite:///{}", file.display());
        for command in [["migrate", "check"].as_slice(), &["migrate", "status"], &["check"]] {
            validator(&url, command);
            assert!(!file.exists(), "{command:?} only looks");
        }
        super::check_passes_once_the_steps_have_run(&url, &[&file.display().to_string()]);
    }
}

mod on_postgres {
    use super::super::postgres::Database;
    use super::*;

    #[tokio::test]
    async fn of_processes_that_start_at_once_one_runs_the_steps() {
        super::of_processes_that_start_at_once_one_runs_the_steps(&Database::create().await.url);
    }

    /// Runs the script against the server of this test run, as its administrator.
    fn setup_database(folder: &str, name: &str) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/setup_database.sh"))
            .args(["setup", "--role", name, "--database", name])
            .envs([("PGHOST", folder), ("PGUSER", "byteleap_tests")])
            .output()
            .expect("the script runs")
    }

    #[test]
    fn check_passes_once_the_steps_have_run() {
        let server = env::var("BYTELEAP_TEST_POSTGRES").expect("cargo nextest run sets it");
        let folder = server.split("host=").nth(1).and_then(|rest| rest.split('&').next()).expect("a socket's folder");
        let name = format!("setup_{}", std::process::id());

        let made = setup_database(folder, &name);
        assert!(made.status.success(), "{}", text(&made));
        let line = String::from_utf8(made.stdout).unwrap();
        let url = line.trim().strip_prefix("url: ").expect("the line for the configuration");
        let password = url.split("password=").nth(1).expect("a generated password");
        assert!(password.len() >= 24, "{}", password.len());
        super::check_passes_once_the_steps_have_run(url, &[folder, &name]);

        // Wrong password: refused by name, and never repeated. Set up again: nothing changes.
        let refused = validator(&url.replace(password, "guessed"), &["migrate", "check"]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(&name) && !text(&refused).contains("guessed"), "{}", text(&refused));
        let again = setup_database(folder, &name);
        assert!(again.status.success() && again.stdout.is_empty(), "{}", text(&again));
        assert!(validator(url, &["migrate", "check"]).status.success());
    }
}
