//! The folder `corpus/`: one folder per target, small files, each of which the target must take.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use byteleap_fuzz::TARGETS;

/// Most files of one target.
const MAX_FILES: usize = 200;
/// Most bytes of one target's files together.
const MAX_BYTES: u64 = 300 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names in a folder, without an extension.
fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Gives every kept input of a target to it.
fn replay(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let files: Vec<_> = fs::read_dir(folder("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty() && files.len() <= MAX_FILES, "{} files", files.len());
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
    for path in files {
        // Shown with a failure only: the input that broke the promise.
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
    }
}

/// A test for every target, and the list of those tested.
macro_rules! replayed {
    ($($name:ident),* $(,)?) => {
        mod every_kept_input_is_taken_by {
            $(#[test]
            fn $name() {
                super::replay(stringify!($name));
            })*
        }

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! {
    lenient_json, canonical_json, hotkey, worker_frame, heartbeat_report, miner_frame, payload, feedback, synapse_request, synapse_reply, session_init,
    sealed_package, merkle_proof, half_list, gpu_server_answer, stored_proof, config, keyfile, devchain_request,
    devchain_extrinsic, join_token, key_proof, meshhub_frame, meshhub_message,
}

#[test]
fn every_target_has_its_binary_its_inputs_and_its_replay() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("targets")), known);
    assert_eq!(names(&folder("corpus")), known);
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), known);
}
