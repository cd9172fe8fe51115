//! The compute server as a process: found, started, given time to answer, and stopped (worker-miner spec 5.1).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How long the server may take to end after it was asked to.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Folders above this program that are searched for the server.
const PARENTS_SEARCHED: usize = 10;

/// Mode bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why the server is not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It lies nowhere.
    #[error("no file {}: set gpu.binary_path to the compute server, or gpu.enable to false", .0.display())]
    Missing(PathBuf),
    /// Somebody else could have put anything into it.
    #[error("{} could be changed by others than its owner: chown root and chmod 755 it", .0.display())]
    Unsafe(PathBuf),
    /// The system refuses.
    #[error("{} does not start: {source}", path.display())]
    Io {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Starts the server, in a process group of its own so that a signal to the worker's does not end it in mid-work.
pub(super) fn start(binary: &Path, socket: &Path) -> Result<Child, StartError> {
    let path = find(binary).ok_or_else(|| StartError::Missing(binary.to_owned()))?;
    let refused = |source| StartError::Io { path: path.clone(), source };
    let metadata = fs::metadata(&path).map_err(refused)?;
    let own = nix::unistd::geteuid().as_raw();
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 || ![0, own].contains(&metadata.uid()) {
        return Err(StartError::Unsafe(path));
    }
    Command::new(&path)
        .arg("--socket")
        .arg(socket)
        .current_dir("/tmp")
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(refused)
}

/// Asks the server to end, and ends it if it does not.
pub(super) async fn stop(mut child: Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // A process that has just ended takes no signal, which is as well.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
        tracing::warn!("the compute server does not end by itself and is killed");
        let _ = child.kill().await;
    }
}

/// The program's absolute path: as it is, from the current folder, or from a folder above this program.
fn find(binary: &Path) -> Option<PathBuf> {
    let own_folders = std::env::current_exe().ok();
    let own_folders = own_folders.iter().flat_map(|program| program.ancestors().skip(1).take(PARENTS_SEARCHED));
    let mut places = std::env::current_dir().into_iter().chain(own_folders.map(Path::to_owned));
    places.find_map(|folder| fs::canonicalize(folder.join(binary)).ok().filter(|path| path.is_file()))
}
