//! A genesis as a person writes it: TOML, with keys as SS58 addresses or development URIs such as `//Alice`.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use byteleap_chain::wallet::keypair_from_uri;
use byteleap_protocol::hotkey::{Hotkey, Signer};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Genesis, Hyperparameters, Neuron, Subnet};

/// Why a file is no genesis.
#[derive(Debug, thiserror::Error)]
pub enum GenesisFileError {
    /// It cannot be read.
    #[error("cannot read the genesis file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It does not say what a genesis needs.
    #[error("{path} is no genesis: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

/// A key, however it is written.
struct Key(Hotkey);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains("//") {
            return keypair_from_uri(&text).map(|pair| Self(pair.hotkey())).map_err(D::Error::custom);
        }
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisText {
    #[serde(default)]
    stake_threshold_rao: u64,
    #[serde(default, rename = "balance")]
    balances: Vec<BalanceText>,
    #[serde(rename = "subnet")]
    subnets: Vec<SubnetText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalanceText {
    account: Key,
    rao: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetText {
    netuid: u16,
    owner_hotkey: Key,
    owner_coldkey: Key,
    #[serde(default)]
    hyperparameters: Hyperparameters,
    #[serde(default, rename = "neuron")]
    neurons: Vec<NeuronText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NeuronText {
    hotkey: Key,
    coldkey: Key,
    #[serde(default)]
    stake_rao: u64,
    axon: Option<SocketAddr>,
}

impl Genesis {
    /// Reads a file. Whether its parts go together is looked at when a chain starts from it.
    ///
    /// # Errors
    /// [`GenesisFileError`]: unreadable, or no genesis.
    pub fn read(path: &Path) -> Result<Self, GenesisFileError> {
        let text =
            fs::read_to_string(path).map_err(|source| GenesisFileError::Read { path: path.to_owned(), source })?;
        let GenesisText { stake_threshold_rao, balances, subnets } = toml::from_str(&text)
            .map_err(|source| GenesisFileError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        Ok(Self {
            balances_rao: balances.into_iter().map(|BalanceText { account, rao }| (account.0, rao)).collect(),
            stake_threshold_rao,
            subnets: subnets.into_iter().map(Subnet::from).collect(),
        })
    }
}

impl From<SubnetText> for Subnet {
    fn from(SubnetText { netuid, owner_hotkey, owner_coldkey, hyperparameters, neurons }: SubnetText) -> Self {
        Self {
            netuid,
            owner_hotkey: owner_hotkey.0,
            owner_coldkey: owner_coldkey.0,
            hyperparameters,
            neurons: neurons.into_iter().map(Neuron::from).collect(),
        }
    }
}

impl From<NeuronText> for Neuron {
    fn from(NeuronText { hotkey, coldkey, stake_rao, axon }: NeuronText) -> Self {
        Self { hotkey: hotkey.0, coldkey: coldkey.0, stake_rao, axon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Genesis, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("genesis.toml");
        fs::write(&path, text).unwrap();
        Genesis::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_makes_a_chain() {
        let genesis = read(include_str!("../../../../config/genesis.toml")).unwrap();
        genesis.check().unwrap();
        assert_eq!(genesis.subnets[0].netuid, 128);
        assert_eq!(genesis.subnets[0].neurons[0].hotkey, keypair_from_uri("//Alice").unwrap().hotkey());
        assert!(genesis.subnets[0].neurons[1].axon.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, part) in [
            ("", "missing field `subnet`"),
            ("subnet = []\nstake = 7", "unknown field `stake`"),
            ("subnet = []\n[[balance]]\naccount = \"5Gr\"\nrao = 7", "line 3"),
            ("subnet = []\n[[balance]]\naccount = \"//\"\nrao = 7", "line 3"),
            ("subnet = []\nstake_threshold_rao = -1", "stake_threshold_rao"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("genesis.toml") && error.contains(part), "{part}: {error}");
        }
    }
}
