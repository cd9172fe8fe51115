//! No statement uses what came after PostgreSQL 12: the oldest version that an operator may run.
//!
//! The statements are text in the sources of [`super`] and in the migrations, so this reads them there. It knows what newer
//! versions brought by its words, which is enough to notice it in a review, and no substitute for a run on version 12.

use std::fs;
use std::path::Path;

/// What a version of PostgreSQL brought, in upper case: clauses with their words, functions with their parenthesis.
const NEWER: [(u32, &[&str]); 6] = [
    (13, &["WITH TIES", "GEN_RANDOM_UUID(", "DROP EXPRESSION", "IS NORMALIZED", "NORMALIZE("]),
    (
        14,
        &[
            "DATE_BIN(",
            "BIT_COUNT(",
            "STRING_TO_TABLE(",
            "TRIM_ARRAY(",
            "UNISTR(",
            "MULTIRANGE",
            "SEARCH DEPTH FIRST",
            "SEARCH BREADTH FIRST",
            "GROUP BY DISTINCT",
            "BEGIN ATOMIC",
            "OR REPLACE TRIGGER",
            "DETACH PARTITION",
        ],
    ),
    (
        15,
        &[
            "MERGE INTO",
            "NULLS NOT DISTINCT",
            "REGEXP_LIKE(",
            "REGEXP_COUNT(",
            "REGEXP_INSTR(",
            "REGEXP_SUBSTR(",
            "SECURITY_INVOKER",
            "RANGE_AGG(",
        ],
    ),
    (
        16,
        &[
            "IS JSON",
            "JSON_ARRAY(",
            "JSON_OBJECT(",
            "JSON_ARRAYAGG(",
            "JSON_OBJECTAGG(",
            "ANY_VALUE(",
            "RANDOM_NORMAL(",
            "ARRAY_SHUFFLE(",
            "ARRAY_SAMPLE(",
            "DATE_ADD(",
            "DATE_SUBTRACT(",
        ],
    ),
    (
        17,
        &[
            "JSON_TABLE(",
            "JSON_EXISTS(",
            "JSON_VALUE(",
            "JSON_QUERY(",
            "JSON_SCALAR(",
            "JSON_SERIALIZE(",
            "MERGE_ACTION(",
            "TO_BIN(",
            "TO_OCT(",
            "NOT MATCHED BY SOURCE",
        ],
    ),
    (
        18,
        &[
            "UUIDV4(",
            "UUIDV7(",
            "WITHOUT OVERLAPS",
            "RETURNING OLD.",
            "RETURNING NEW.",
            "RETURNING WITH (",
            "NOT ENFORCED",
        ],
    ),
];

/// The first of these that a text uses, with its version. How the text is broken into lines makes no difference.
fn newer_than_12(text: &str) -> Option<(u32, &'static str)> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    NEWER
        .iter()
        .flat_map(|(version, words)| words.iter().map(|word| (*version, *word)))
        .find(|(_, word)| text.contains(word))
}

#[test]
fn no_statement_needs_more_than_postgresql_12() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    let mut folders = vec![root.join("src/store"), root.join("migrations")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("dialect.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(newer_than_12(&text), None, "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 20, "only {files} files: have the statements moved?");
}

#[test]
fn statements_live_in_the_store_alone() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path == source.join("store") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(!fs::read_to_string(&path).unwrap().contains("sqlx::"), "{}", path.display());
            }
        }
    }
}

#[test]
fn what_is_newer_is_noticed_in_any_spelling() {
    assert_eq!(newer_than_12("merge\n    into gpus"), Some((15, "MERGE INTO")));
    assert_eq!(newer_than_12("SELECT gen_random_uuid()"), Some((13, "GEN_RANDOM_UUID(")));
    assert_eq!(newer_than_12("INSERT INTO gpus (uuid) VALUES ($1) ON CONFLICT (uuid) DO NOTHING RETURNING id"), None);
}
