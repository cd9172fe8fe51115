//! What the marketplace holds and has heard. Its leases and its key lie in a file, and every report that it reads is
//! appended to another before the validator learns that it was read, so that a marketplace that is killed and comes back
//! shows what it lost: nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use byteleap_protocol::hotkey::Keypair;
use byteleap_protocol::meshhub::MeshWorker;
use byteleap_protocol::meshhub::report::{Ack, ReportMode, ResourceReport, ScoreReport};
use rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::TokenPolicy;

/// Rounds and acknowledgements that are shown.
const SHOWN: usize = 1_000;

/// What outlives the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// Of the marketplace's key.
    seed: String,
    leases: Vec<(MeshWorker, f64)>,
}

/// A round as its report told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeardRound {
    /// The instant of its facts.
    pub timestamp: String,
    /// Miners in it.
    pub miners: usize,
    /// How often it was told.
    pub times: u32,
}

/// What was heard.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Heard {
    /// Sessions opened so far.
    pub sessions: u64,
    /// Signs of life.
    pub heartbeats: u64,
    /// Frames of full reports.
    pub full_reports: u64,
    /// Frames of reports of what changed.
    pub delta_reports: u64,
    /// Workers with their last state: status and lease as the validator has it.
    pub workers: BTreeMap<String, (String, f64)>,
    /// Rounds, oldest first.
    pub rounds: Vec<HeardRound>,
    /// What became of orders: their type and status.
    pub acks: Vec<(String, String, serde_json::Value)>,
    /// Tokens issued.
    pub tokens: u64,
    /// Frames that did not open or did not fit.
    pub refused: u64,
}

/// Everything that the marketplace knows.
#[derive(Debug)]
pub struct Book {
    folder: PathBuf,
    seed: [u8; 32],
    /// What each worker's lease is worth; 0 until its end has been said.
    pub leases: BTreeMap<MeshWorker, f64>,
    /// What was heard.
    pub heard: Heard,
    /// What whoever asks for a token is told.
    pub tokens: TokenPolicy,
}

impl Book {
    /// Opens the book in a folder, or begins it.
    ///
    /// # Errors
    /// The folder cannot be used, or holds something else.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let kept: Option<Kept> = match std::fs::read_to_string(folder.join("market.json")) {
            Ok(text) => Some(serde_json::from_str(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let mut leases = BTreeMap::new();
        if let Some(kept) = &kept {
            let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "market.json holds no seed");
            hex::decode_to_slice(&kept.seed, &mut seed).map_err(|_| unreadable())?;
            leases.extend(kept.leases.iter().cloned());
        }
        let mut heard = Heard::default();
        for line in std::fs::read_to_string(folder.join("rounds.jsonl")).unwrap_or_default().lines() {
            // The last line of a process that was killed may be half a one; it was not acknowledged.
            if let Ok(report) = serde_json::from_str(line) {
                heard.note_scores(&report);
            }
        }
        let book = Self { folder: folder.to_owned(), seed, leases, heard, tokens: TokenPolicy::default() };
        book.save()?;
        Ok(book)
    }

    /// The marketplace's key.
    #[must_use]
    pub fn key(&self) -> Keypair {
        Keypair::from_seed(&self.seed)
    }

    /// Sets a lease.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn lease(&mut self, worker: MeshWorker, score: f64) -> io::Result<()> {
        self.leases.insert(worker, score);
        self.save()
    }

    /// Forgets a lease without a word.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn forget(&mut self, worker: &MeshWorker) -> io::Result<()> {
        self.leases.remove(worker);
        self.save()
    }

    /// Where rounds are written down.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.join("rounds.jsonl")
    }

    fn save(&self) -> io::Result<()> {
        let leases = self.leases.iter().map(|(worker, score)| (worker.clone(), *score)).collect();
        let kept = Kept { seed: hex::encode(self.seed), leases };
        let path = self.folder.join("market.json");
        let new = self.folder.join("market.json.new");
        std::fs::write(&new, serde_json::to_string(&kept)?)?;
        std::fs::rename(new, path)
    }
}

/// Appends a report of scores to the journal.
///
/// # Errors
/// It cannot be written.
pub async fn write_down(journal: &Path, report: &ScoreReport) -> io::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(journal).await?;
    file.write_all(format!("{}\n", serde_json::to_string(report)?).as_bytes()).await?;
    file.flush().await
}

impl Heard {
    /// Takes the first frame of a round in; the others name no miners.
    pub fn note_scores(&mut self, report: &ScoreReport) {
        let Some(miners) = &report.miner_scores else { return };
        match self.rounds.iter_mut().find(|round| round.timestamp == report.timestamp) {
            Some(round) => round.times += 1,
            None => {
                let timestamp = report.timestamp.clone();
                self.rounds.push(HeardRound { timestamp, miners: miners.len(), times: 1 });
            }
        }
        let surplus = self.rounds.len().saturating_sub(SHOWN);
        self.rounds.drain(..surplus);
    }

    /// Takes a report of resources in.
    pub fn note_resources(&mut self, report: &ResourceReport) {
        match report.mode {
            ReportMode::Full => self.full_reports += 1,
            ReportMode::Delta => self.delta_reports += 1,
        }
        for worker in report.miners.iter().flat_map(|miner| &miner.workers) {
            let status = serde_json::json!(worker.status).as_str().unwrap_or_default().to_owned();
            self.workers.insert(worker.worker_key.to_string(), (status, worker.lease_score));
        }
    }

    /// Takes an acknowledgement in.
    pub fn note_ack(&mut self, ack: Ack) {
        let status = serde_json::json!(ack.status).as_str().unwrap_or_default().to_owned();
        self.acks.push((ack.message_type, status, ack.metadata.into()));
        let surplus = self.acks.len().saturating_sub(SHOWN);
        self.acks.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::hotkey::Signer;

    use super::*;

    #[tokio::test]
    async fn key_leases_and_rounds_outlive_the_marketplace() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Book::open(folder.path()).unwrap();
        let worker: MeshWorker = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY:worker-1".parse().unwrap();
        book.lease(worker.clone(), 0.5).unwrap();
        let report = ScoreReport { miner_scores: Some(vec![]), timestamp: "t".to_owned(), ..ScoreReport::default() };
        write_down(&book.journal(), &report).await.unwrap();
        write_down(&book.journal(), &report).await.unwrap();

        let again = Book::open(folder.path()).unwrap();
        assert_eq!(again.key().hotkey(), book.key().hotkey());
        assert_eq!(again.leases.get(&worker), Some(&0.5));
        assert_eq!(again.heard.rounds, [HeardRound { timestamp: "t".to_owned(), miners: 0, times: 2 }]);
    }
}
