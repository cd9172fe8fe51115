//! What the documents claim is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byteleap_localnet::binaries::Binaries;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of every Rust file of the workspace's crates.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The words in backticks that read like the name of a test.
fn tests_named_in(document: &str) -> Vec<&str> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        })
        .collect()
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let document = fs::read_to_string(repository().join("docs/threat-model.md")).unwrap();
    let mut text = String::new();
    sources(&repository().join("crates"), &mut text);
    let named = tests_named_in(&document);
    assert!(named.len() > 30, "the document names tests: {named:?}");
    let missing: Vec<&str> = named.into_iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/threat-model.md names tests that do not exist: {missing:?}");
}

/// The command and flags of each call of `byteleap-validator` in a document: words up to the first argument, and the flags.
fn calls_in(document: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let lines = document.split('\n').flat_map(|line| line.split('#').next()).flat_map(|line| line.split('`'));
    lines
        .filter_map(|code| {
            let (before, call) = code.split_once("byteleap-validator ")?;
            let is_program = before.is_empty() || before.ends_with([' ', '/']);
            let words: Vec<&str> = call.split_whitespace().collect();
            let command: Vec<&str> = words.iter().copied().take_while(is_command).collect();
            let flags = words.iter().copied().filter(|word| word.starts_with("--")).collect();
            (is_program && !command.is_empty()).then_some((command, flags))
        })
        .collect()
}

#[test]
fn every_command_and_key_of_the_operating_guide_exists() {
    let validator = Binaries::beside_this_process().unwrap().validator();
    let document = fs::read_to_string(repository().join("docs/operating-validator.md")).unwrap();
    let calls = calls_in(&document);
    assert!(calls.len() > 15, "the guide shows commands: {calls:?}");
    for (command, flags) in calls {
        let help = Command::new(&validator).args(&command).arg("--help").output().unwrap();
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success(), "{command:?}: {}", String::from_utf8_lossy(&help.stderr));
        for flag in flags {
            assert!(text.contains(flag), "{command:?} has no {flag}");
        }
    }

    let required = ["--set", "netuid=1", "--set", "wallet.name=a", "--set", "wallet.hotkey=b"];
    let config = Command::new(&validator).args(required).arg("config").output().unwrap();
    let config = String::from_utf8(config.stdout).unwrap();
    let keys: Vec<&str> = config.lines().filter_map(|line| line.split(':').next()).collect();
    let sections: Vec<&str> = keys.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let words = document.split('`').skip(1).step_by(2).flat_map(|code| code.split([':', ' ']).next());
    let named: Vec<&str> =
        words.filter(|word| word.split_once('.').is_some_and(|(section, _)| sections.contains(&section))).collect();
    assert!(named.len() > 15, "the guide names keys: {named:?}");
    let unknown: Vec<&&str> = named.iter().filter(|word| !keys.contains(word)).collect();
    assert!(unknown.is_empty(), "docs/operating-validator.md names keys that do not exist: {unknown:?}");
}
