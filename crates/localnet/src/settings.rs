//! The configuration of each daemon: fast cadences, challenges of the real size, loopback addresses, nothing remote.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use byteleap_chain::Hotkey;
use byteleap_devchain::DevChain;
use serde_json::{Value, json};

use crate::keys::{HOTKEY_NAME, NETUID, VALIDATOR_STAKE_TAO};
use crate::market::ACCESS_TOKEN;

/// Where one daemon listens: its own service, and its admin endpoint. A worker serves nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) service: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Free ports for so many daemons. All are held at once while they are chosen, so that no two are the same; then they
/// are free for the daemons to take.
pub(crate) fn free_ports(daemons: usize) -> io::Result<Vec<Ports>> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = (0..daemons).map(|_| Ok((bind()?, bind()?))).collect::<io::Result<Vec<_>>>()?;
    held.iter()
        .map(|(service, admin)| Ok(Ports { service: service.local_addr()?, admin: admin.local_addr()? }))
        .collect()
}

/// Side of a GPU challenge: processors play the GPUs here, and have it in well under a second.
const SOFTWARE_GPU_MATRIX_SIZE: u32 = 512;

/// What all daemons of one network share.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) chain_url: String,
    pub(crate) market_url: String,
    pub(crate) wallets: PathBuf,
    pub(crate) workers: u16,
}

impl World {
    /// The validator's configuration. Challenges come every 10 s and count for 2 minutes, so that one suffices for a
    /// score; rounds follow each other closely. All workers share this machine's processors, so that each product takes
    /// the longer the more there are.
    pub(crate) fn validator(&self, folder: &Path, ports: Ports) -> Value {
        let challenge_timeout_s = (20 + 5 * u32::from(self.workers)).min(300);
        json!({
            "port": ports.service.port(),
            "axon": { "host": ports.service.ip() },
            "netuid": NETUID,
            "subtensor": { "network": self.chain_url, "beacon": DevChain::beacon().to_string() },
            "metagraph": { "weight_update_tempo": 4, "sync_interval": 2 },
            "wallet": self.wallet("validator"),
            "logging": { "log_level": "DEBUG", "log_dir": folder.join("logs") },
            "database": { "url": database_url(folder) },
            "validation": {
                "challenge_interval": 10,
                "challenge_timeout": challenge_timeout_s,
                "ranking_window_minutes": 2,
                "verification_interval": 1,
                "challenge_type": "both",
                "cpu": {
                    "matrix_size": 2000,
                    "size_variance": 0.1,
                    "iterations": 1,
                    "verification": { "row_verification_count": 50, "row_verification_count_variance": 0.5 },
                },
                "gpu": {
                    "matrix_size": SOFTWARE_GPU_MATRIX_SIZE,
                    "verification": { "row_sample_rate": 0.02 },
                    "model_allowlist": ["software"],
                },
            },
            "gpu": { "accept_host_keys": true },
            "meshhub": {
                "ws_url": self.market_url,
                "access_token": ACCESS_TOKEN,
                "reconnect_delay_seconds": 2,
                "heartbeat_interval_seconds": 1,
                "resource_report_interval_seconds": 5,
                "lease_stale_after": 10,
            },
            "vmgw": { "mode": "hub" },
            "scoring": { "profile": "docs-90-10", "interval_s": 5 },
            "http": { "listen": ports.admin },
        })
    }

    /// A miner's configuration: it knows the validator by its address, and reports every second.
    pub(crate) fn miner(&self, name: &str, folder: &Path, ports: Ports, validator: (&Hotkey, SocketAddr)) -> Value {
        let (hotkey, axon) = validator;
        json!({
            "netuid": NETUID,
            "subtensor": { "network": self.chain_url },
            "metagraph": {
                "sync_interval": 2,
                "validator_whitelist": { hotkey.to_string(): axon },
                "validator_min_stake_tao": VALIDATOR_STAKE_TAO,
                "blacklist": { "threshold": 5, "ttl_seconds": 2 },
            },
            "wallet": self.wallet(name),
            "logging": { "log_level": "DEBUG", "log_dir": folder.join("logs") },
            "heartbeat_interval": 1,
            "task_poll_interval": 1,
            "worker_management": {
                "host": ports.service.ip(),
                "port": ports.service.port(),
                "heartbeat_interval": 5,
                "heartbeat_timeout": 30,
            },
            "state_dir": folder,
            "http": { "listen": ports.admin },
        })
    }

    fn wallet(&self, name: &str) -> Value {
        json!({ "name": name, "hotkey": HOTKEY_NAME, "path": self.wallets })
    }
}

/// A worker's configuration: it computes for one miner, on the CPU and on one GPU that the CPU plays.
pub(crate) fn worker(name: &str, folder: &Path, ports: Ports, miner: SocketAddr) -> Value {
    json!({
        "worker_name": name,
        "worker_id": name,
        "miner_url": format!("ws://{miner}"),
        "reconnect_interval": 1,
        "heartbeat_interval": 1,
        "gpu": { "enable": true, "engine": "software", "software_gpus": 1 },
        "vmgw": { "enable": false },
        "logging": { "level": "DEBUG", "filepath": folder.join("logs/worker.log") },
        "state_dir": folder,
        "http": { "listen": ports.admin },
    })
}

/// The validator's database.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("validator.db")
}

fn database_url(folder: &Path) -> String {
    format!("sqlite:///{}", database(folder).display())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_port_is_another() {
        let ports = free_ports(20).unwrap();
        let distinct: HashSet<u16> =
            ports.iter().flat_map(|ports| [ports.service.port(), ports.admin.port()]).collect();
        assert_eq!(distinct.len(), 40);
    }

    #[test]
    fn the_database_is_named_as_operators_name_it() {
        assert_eq!(database_url(Path::new("/tmp/net/validator")), "sqlite:////tmp/net/validator/validator.db");
    }
}
