//! Coldkeys that lie where this process can read them. A coldkey owns all that a wallet holds; on a machine that runs other
//! people's work it has no place, encrypted or not, so a worker looks before it starts.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where wallets lie in a home directory.
const WALLETS: &str = ".bittensor/wallets";

/// Name of a coldkey's file in a wallet.
const COLDKEY: &str = "coldkey";

/// Environment variable that moves the official tools' wallets elsewhere.
const WALLET_PATH: &str = "BT_WALLET_PATH";

/// Coldkeys that this process can open, in the wallets of every home directory under `root` and of its own environment.
#[must_use]
pub fn readable(root: &Path) -> Vec<PathBuf> {
    let own = env::home_dir().map(|home| home.join(WALLETS)).into_iter();
    let configured = env::var_os(WALLET_PATH).map(PathBuf::from).into_iter();
    let homes = entries(&root.join("home")).into_iter().chain([root.join("root")]).map(|home| home.join(WALLETS));
    let mut found: Vec<_> = own.chain(configured).chain(homes).flat_map(|wallets| readable_in(&wallets)).collect();
    found.sort();
    found.dedup();
    found
}

fn readable_in(wallets: &Path) -> Vec<PathBuf> {
    let coldkeys = entries(wallets).into_iter().map(|wallet| wallet.join(COLDKEY));
    coldkeys.filter(|path| path.is_file() && File::open(path).is_ok()).collect()
}

/// What lies in a folder; nothing where it cannot be listed.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coldkeys_of_all_homes_are_found_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let lay = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let expected =
            [lay("home/ada/.bittensor/wallets/main/coldkey"), lay("root/.bittensor/wallets/validator/coldkey")];
        lay("root/.bittensor/wallets/validator/coldkeypub.txt");
        lay("root/.bittensor/wallets/miner/hotkeys/coldkey");
        let found: Vec<_> = readable(root.path()).into_iter().filter(|path| path.starts_with(root.path())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_machine_without_wallets_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert!(readable(root.path()).iter().all(|path| !path.starts_with(root.path())));
    }
}
