//! How a miner's workers stand, for what the miner is told of them: one bounded statement, however many workers it has.

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, WorkerId};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, parsed, texts_of};
use crate::challenge::state::Status;

/// A worker, with its lease and its last challenges.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStanding {
    /// Its own id.
    pub worker_id: WorkerId,
    /// What it can compute.
    pub capabilities: Vec<String>,
    /// First heartbeat.
    pub first_seen_at_ms: i64,
    /// Beyond the limit of active workers.
    pub over_limit: bool,
    /// What the marketplace said of it; none if it never named it.
    pub lease: Option<LeaseStanding>,
    /// The challenge that was made last.
    pub newest: Option<NewestChallenge>,
    /// The newest one that has ended.
    pub ended: Option<EndedChallenge>,
}

/// A lease, with its age.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseStanding {
    /// What it is worth; 0 is none.
    pub score: f64,
    /// When the score became this.
    pub changed_at_ms: i64,
    /// When it was last said.
    pub received_at_ms: i64,
}

/// A challenge, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestChallenge {
    /// Its name on the wire.
    pub id: ChallengeId,
    /// Where it is.
    pub status: Status,
    /// When it was made.
    pub created_at_ms: i64,
}

/// A challenge that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedChallenge {
    /// Its name on the wire.
    pub id: ChallengeId,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub status: Status,
    /// When.
    pub finished_at_ms: i64,
    /// From handing out to commitment.
    pub compute_ms: Option<f64>,
    /// What the check took.
    pub verify_ms: Option<f64>,
    /// Units that committed.
    pub units: i64,
    /// Those that passed.
    pub units_ok: i64,
    /// Why it was not verified.
    pub note: Option<String>,
}

impl Store {
    /// The oldest `limit` workers of this miner that are online, by age.
    pub async fn standings(
        &self,
        hotkey: Hotkey,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<WorkerStanding>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.worker_id, w.capabilities, w.first_seen_at, w.over_limit,
                    l.score, l.changed_at, l.received_at,
                    n.uuid AS newest, n.status AS newest_status, n.created_at AS newest_at,
                    e.uuid AS ended, e.kind, e.status, COALESCE(e.finished_at, e.created_at) AS finished_at,
                    e.compute_ms, e.verify_ms, COALESCE(e.units_total, 0) AS units, COALESCE(e.units_ok, 0) AS units_ok,
                    e.fail_note
             FROM workers w
             LEFT JOIN leases l ON l.hotkey = w.hotkey AND l.worker_id = w.worker_id
             LEFT JOIN challenges n ON n.id = (
                 SELECT c.id FROM challenges c WHERE c.worker = w.id ORDER BY c.created_at DESC, c.id DESC LIMIT 1)
             LEFT JOIN challenges e ON e.id = (
                 SELECT c.id FROM challenges c WHERE c.worker = w.id AND c.status IN ('verified', 'failed', 'void')
                 ORDER BY c.created_at DESC, c.id DESC LIMIT 1)
             WHERE w.hotkey = $1 AND w.deadline_at >= $2 ORDER BY w.first_seen_at, w.id LIMIT $3",
        )
        .bind(hotkey.to_string())
        .bind(now_ms)
        .bind(limit as i64)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(standing_of).collect()
    }
}

fn standing_of(row: &AnyRow) -> Result<WorkerStanding, StoreError> {
    let score: Option<f64> = row.try_get("score")?;
    Ok(WorkerStanding {
        worker_id: parsed("workers", row, "worker_id")?,
        capabilities: texts_of("workers", "capabilities", row.try_get("capabilities")?)?,
        first_seen_at_ms: row.try_get("first_seen_at")?,
        over_limit: row.try_get::<i64, _>("over_limit")? != 0,
        lease: match score {
            None => None,
            Some(score) => Some(LeaseStanding {
                score,
                changed_at_ms: row.try_get("changed_at")?,
                received_at_ms: row.try_get("received_at")?,
            }),
        },
        newest: match row.try_get::<Option<String>, _>("newest")? {
            None => None,
            Some(_) => Some(NewestChallenge {
                id: parsed("challenges", row, "newest")?,
                status: parsed("challenges", row, "newest_status")?,
                created_at_ms: row.try_get("newest_at")?,
            }),
        },
        ended: match row.try_get::<Option<String>, _>("ended")? {
            None => None,
            Some(_) => Some(EndedChallenge {
                id: parsed("challenges", row, "ended")?,
                kind: row.try_get("kind")?,
                status: parsed("challenges", row, "status")?,
                finished_at_ms: row.try_get("finished_at")?,
                compute_ms: row.try_get("compute_ms")?,
                verify_ms: row.try_get("verify_ms")?,
                units: row.try_get("units")?,
                units_ok: row.try_get("units_ok")?,
                note: row.try_get("fail_note")?,
            }),
        },
    })
}
