//! `doctor`: whether this machine can be a worker. What the machine's files tell comes from the host; here are added what the
//! configuration and the network tell.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use byteleap_daemon::cli::Failure;
use byteleap_daemon::tasks;
use byteleap_host::debug;
use byteleap_host::doctor::{Check, Purpose, Report, Verdict};
use byteleap_host::gpu_command::RootArgs;
use byteleap_host::host_fs::HostFs;
use byteleap_host::identity;
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use crate::config::Settings;
use crate::link::dial;
use crate::service::refuse_coldkeys;

/// How long the miner may take to answer.
const MINER_DEADLINE: Duration = Duration::from_secs(10);

/// Where images of virtual machines lie.
const IMAGE_DIR: &str = "/var/lib/vm";

/// Flags of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the findings and what support needs besides into an archive (.tar.gz), secrets removed.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Where; below another folder than `/` neither the miner nor ports are tried.
    #[command(flatten)]
    pub place: RootArgs,
}

/// Prints all findings.
///
/// # Errors
/// There is a blocker, or the findings cannot be written.
pub async fn run(settings: Settings, arguments: DoctorArgs) -> Result<(), Failure> {
    let root = arguments.place.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let others = if root == Path::new("/") { surroundings(&settings).await } else { Vec::new() };
    let rents_machines = settings.vmgw_enable;
    let examined = tokio::task::spawn_blocking(move || {
        let host = HostFs::new(&root);
        let report = Report::new(&host, Purpose { rents_machines, image_dir: IMAGE_DIR }, others);
        let text = if arguments.json { format!("{:#}\n", json!(report)) } else { report.to_string() };
        if let Some(path) = &arguments.bundle {
            let files = [("doctor.txt", report.to_string()), ("doctor.json", format!("{:#}\n", json!(report)))];
            debug::write_archive(&host, path, &files)?;
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if let Some(path) = arguments.bundle.as_ref().filter(|_| !arguments.json) {
            writeln!(out, "{}", debug::archive_notice(path))?;
        }
        Ok::<_, io::Error>(report.verdict)
    });
    match examined.await?? {
        Verdict::Blocker => {
            Err(Failure::runtime("this machine cannot be a worker as it is: see the blockers (✗) above"))
        }
        _ => Ok(()),
    }
}

/// What is not among the machine's files.
async fn surroundings(settings: &Settings) -> Vec<Check> {
    let coldkeys = match refuse_coldkeys(Path::new("/")).await {
        Ok(()) => Check::new("no coldkey here", Verdict::Ok, "none found", "home directories"),
        Err(problem) => Check::new("no coldkey here", Verdict::Blocker, problem, "home directories")
            .advise("move it to a machine that runs nobody else's work"),
    };
    vec![miner(settings).await, port(settings).await, kept_identity(settings), coldkeys]
}

async fn miner(settings: &Settings) -> Check {
    let source = "the key miner_url";
    match dial::dial(&settings.miner_url, settings.miner_fingerprint, MINER_DEADLINE).await {
        Ok(_) => Check::new("miner reachable", Verdict::Ok, format!("{} answers", settings.miner_url), source),
        Err(error) => Check::new("miner reachable", Verdict::Blocker, tasks::chain(&error), source)
            .advise("correct miner_url, or start the miner and open its port"),
    }
}

async fn port(settings: &Settings) -> Check {
    let (address, source) = (settings.http_listen, "the key http.listen");
    match TcpListener::bind(address).await {
        Ok(_) => Check::new("port of /status", Verdict::Ok, format!("{address} is free"), source),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let found = format!("{address} is in use, by the running worker or by another program");
            Check::new("port of /status", Verdict::Unknown, found, source)
                .advise("byteleap-worker status tells whether it is the worker; else set http.listen to a free port")
        }
        Err(error) => Check::new("port of /status", Verdict::Blocker, format!("{address}: {error}"), source)
            .advise("set http.listen to an address of this machine"),
    }
}

fn kept_identity(settings: &Settings) -> Check {
    let source = "the key state_dir";
    match (&settings.worker_id, identity::check(&settings.state_dir)) {
        (Some(worker_id), _) => Check::new("identity", Verdict::Ok, format!("{worker_id} by configuration"), source),
        (None, Ok(())) => {
            Check::new("identity", Verdict::Ok, format!("kept in {}", settings.state_dir.display()), source)
        }
        (None, Err(error)) => {
            let advice = "make state_dir readable and writable for the worker's user";
            Check::new("identity", Verdict::Blocker, tasks::chain(&error), source).advise(advice)
        }
    }
}
