//! What an operator writes: configuration and keyfiles. Both are read from disk, as the daemons do it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use byteleap_chain::Signer;
use byteleap_chain::wallet::{Passwords, Wallet, WalletError, keypair_from_uri};
use byteleap_daemon::config::{Config, Key, Sources};
use tempfile::TempDir;

/// The folder of this process; its files are written anew for every input.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A configuration file for each daemon; where lines of it are assignments, these also as `--set` flags and as environment
/// variables. Either all settings can be read without a panic, or every problem says where it is; and the effective
/// configuration has one line per key.
pub fn config(bytes: &[u8]) {
    let file = FOLDER.path().join("config.yaml");
    fs::write(&file, bytes).unwrap();
    let text = String::from_utf8_lossy(bytes);
    let assigned: Vec<(String, String)> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
    let mut sources = vec![Sources { file: Some(file), ..Sources::default() }];
    if !assigned.is_empty() {
        let arguments = assigned.iter().map(|(name, value)| format!("{name}={value}")).collect();
        sources.push(Sources { arguments, ..Sources::default() });
        sources.push(Sources { environment: assigned, ..Sources::default() });
    }
    for sources in &sources {
        load(byteleap_validator::config::KEYS, sources, |config| {
            let _ = byteleap_validator::config::advice(config);
            let _ = byteleap_validator::config::Settings::read(config);
        });
        load(byteleap_miner::config::KEYS, sources, |config| {
            drop(byteleap_miner::config::Settings::read(config, None))
        });
        load(byteleap_worker::config::KEYS, sources, |config| {
            drop(byteleap_worker::config::Settings::read(config, None));
        });
    }
}

fn load(keys: &[Key], sources: &Sources, read: impl FnOnce(&Config)) {
    match Config::load(keys, sources) {
        Ok(config) => {
            read(&config);
            let effective = config.effective();
            assert_eq!(effective.lines().count(), keys.len(), "{effective}");
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.subject.is_empty() || problem.source.is_some(), "{problem}");
            }
        }
    }
}

/// A keyfile, sealed or plain, as the secret of a hotkey and as the address of its coldkey, and a phrase with its path. What is read signs
/// for the address that it states, and no refusal repeats a secret.
pub fn keyfile(bytes: &[u8]) {
    static WALLET: LazyLock<()> = LazyLock::new(|| fs::create_dir_all(FOLDER.path().join("w/hotkeys")).unwrap());
    LazyLock::force(&WALLET);
    let (hotkey, coldkeypub) = (FOLDER.path().join("w/hotkeys/h"), FOLDER.path().join("w/coldkeypub.txt"));
    fs::write(&hotkey, bytes).unwrap();
    let _ = fs::remove_file(&coldkeypub);
    let load = || Wallet::load(FOLDER.path(), "w", "h", &Passwords::default());
    let secret = load();
    if let Err(error) = &secret {
        check_refusal(error, &hotkey);
    }

    fs::write(&coldkeypub, bytes).unwrap();
    match (secret, load()) {
        (Ok(before), Ok(after)) => {
            assert_eq!(before.keypair.hotkey(), after.keypair.hotkey());
            // A file that states an address with its secret states the secret's.
            assert_eq!(after.coldkey, Some(after.keypair.hotkey()));
        }
        (Err(_), Ok(wallet)) => panic!("a broken keyfile was read: {wallet:?}"),
        (_, Err(error)) => check_refusal(&error, &coldkeypub),
    }

    if let Ok(uri) = std::str::from_utf8(bytes) {
        let _ = keypair_from_uri(uri).map(|keypair| keypair.hotkey());
    }
}

/// The refusal names a file of the wallet and is far shorter than what could hold a secret and more.
fn check_refusal(error: &WalletError, file: &Path) {
    let text = error.to_string();
    assert!(text.contains("/w/"), "{text}");
    assert!(text.len() <= 512 + file.as_os_str().len(), "{text}");
}
