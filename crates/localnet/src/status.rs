//! A look at a running network from outside: what `status` prints.

use std::path::Path;

use byteleap_chain::Subtensor;
use byteleap_daemon::admin;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    directory::{Directory, DirectoryError},
    network::{self, Plan},
    progress::Progress,
    record::Record,
};

/// The network in a folder, as JSON.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whether it runs.
    pub running: bool,
    /// What runs where; `None` where none runs.
    pub plan: Option<Plan>,
    /// How far it has come.
    pub progress: Option<Progress>,
    /// Each daemon's own `/status`, by name; an error as text.
    pub daemons: serde_json::Map<String, Value>,
}

/// Why the network cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The folder.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The plan that the runner left.
    #[error("{0} cannot be read: is the network just starting?")]
    Plan(std::path::PathBuf, #[source] std::io::Error),
    /// The database.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// The chain's address.
    #[error(transparent)]
    Chain(#[from] byteleap_chain::subtensor::EndpointError),
}

impl Status {
    /// Looks at the network in a folder.
    ///
    /// # Errors
    ///
    /// [`StatusError`]: a network runs, but what it left for us cannot be read.
    pub async fn of(directory: &Path) -> Result<Self, StatusError> {
        let Some(plan) = running(directory)? else {
            return Ok(Self { running: false, plan: None, progress: None, daemons: serde_json::Map::new() });
        };
        let client = Subtensor::new(&[&plan.chain_url], true)?;
        let progress = network::progress(&client, &Record::at(&plan.database), plan.started_at_ms).await?;
        let mut daemons = serde_json::Map::new();
        for daemon in &plan.daemons {
            let status = admin::get(daemon.admin, "/status").await;
            let status = status.unwrap_or_else(|error| json!({ "error": error.to_string() }));
            daemons.insert(daemon.name.clone(), status);
        }
        Ok(Self { running: true, plan: Some(plan), progress: Some(progress), daemons })
    }
}

/// The plan of the network that runs in a folder; `None` where none runs.
///
/// # Errors
///
/// The folder or the plan cannot be read.
pub fn running(directory: &Path) -> Result<Option<Plan>, StatusError> {
    if !directory.exists() {
        return Ok(None);
    }
    // Whoever can hold the folder is alone in it.
    match Directory::open(directory, false) {
        Ok(_) => return Ok(None),
        Err(DirectoryError::InUse { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let path = directory.join("network.json");
    let plan = std::fs::read_to_string(&path).and_then(|text| Ok(serde_json::from_str(&text)?));
    plan.map(Some).map_err(|error| StatusError::Plan(path, error))
}
