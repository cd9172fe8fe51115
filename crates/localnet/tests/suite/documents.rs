//! What the documents claim is there.

use std::fs;
use std::path::{Path, PathBuf};

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
