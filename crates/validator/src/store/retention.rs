//! What is forgotten, and when (validator spec 2.5): every table that grows has a rule here.
//!
//! Rows go in batches, each a transaction of its own, so that nobody waits long for a turn to write. What refers to a row
//! goes before it.

use super::{Store, StoreError, retrying};

const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 365 * DAY_MS;
/// Rows that one transaction removes at most.
const BATCH_ROWS: i64 = 5_000;
/// A worker or a card that was not heard of for so long is given up.
const SILENCE_MS: i64 = 30 * DAY_MS;
/// How long challenges are kept at least.
const CHALLENGES_MS: i64 = 14 * DAY_MS;
/// How long tasks of the marketplace are kept.
const HUB_TASKS_MS: i64 = 30 * DAY_MS;
/// How long it is kept what was odd about its messages.
const HUB_EVENTS_MS: i64 = 7 * DAY_MS;
/// How long rounds and what they gave to miners are kept at least.
const ROUNDS_MS: i64 = 90 * DAY_MS;

/// How long things are kept that the configuration has a say in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// `database.event_retention_days`, in milliseconds: how long the scores of single workers are kept.
    pub events_ms: i64,
    /// The time over which challenges count.
    pub ranking_ms: i64,
    /// The time over which presence counts.
    pub availability_ms: i64,
}

/// What a pass did to one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The table.
    pub table: &'static str,
    /// Rows removed; of `workers`, retired.
    pub rows: u64,
}

/// A statement that handles at most `$1` rows, those from before `$2`.
struct Rule {
    table: &'static str,
    /// Unix milliseconds, or the number of a day for `presence_days`; none where a row's age does not matter.
    before: Option<i64>,
    statement: &'static str,
}

impl Kept {
    /// Every rule, what refers to a row before that row.
    fn rules(self, now_ms: i64) -> [Rule; 21] {
        let rule = |table, before, statement| Rule { table, before, statement };
        let older_than = |kept_ms: i64| Some(now_ms - kept_ms);
        let rounds_ms = ROUNDS_MS.max(self.events_ms);
        let challenges_ms = CHALLENGES_MS.max(self.events_ms).max(self.ranking_ms);
        let presence_ms = self.availability_ms + DAY_MS;
        [
            rule(
                "round_rosters",
                older_than(self.events_ms),
                "DELETE FROM round_rosters WHERE (round, hotkey) IN
                     (SELECT r.round, r.hotkey FROM scoring_rounds s JOIN round_rosters r ON r.round = s.id
                      WHERE s.at < $2 LIMIT $1)",
            ),
            rule(
                "round_miners",
                older_than(rounds_ms),
                "DELETE FROM round_miners WHERE (round, hotkey) IN
                     (SELECT r.round, r.hotkey FROM scoring_rounds s JOIN round_miners r ON r.round = s.id
                      WHERE s.at < $2 LIMIT $1)",
            ),
            rule(
                "weight_submissions",
                older_than(YEAR_MS),
                "DELETE FROM weight_submissions WHERE id IN (SELECT id FROM weight_submissions WHERE at < $2 LIMIT $1)",
            ),
            rule(
                "scoring_rounds",
                older_than(rounds_ms),
                "DELETE FROM scoring_rounds WHERE id IN
                     (SELECT id FROM scoring_rounds
                      WHERE at < $2 AND id NOT IN (SELECT round FROM weight_submissions) LIMIT $1)",
            ),
            rule(
                "challenge_proofs",
                older_than(challenges_ms),
                "DELETE FROM challenge_proofs WHERE challenge IN
                     (SELECT p.challenge FROM challenges c JOIN challenge_proofs p ON p.challenge = c.id
                      WHERE c.status IN ('verified', 'failed', 'void') AND c.created_at < $2 LIMIT $1)",
            ),
            rule(
                "challenge_units",
                older_than(challenges_ms),
                "DELETE FROM challenge_units WHERE (challenge, unit) IN
                     (SELECT u.challenge, u.unit FROM challenges c JOIN challenge_units u ON u.challenge = c.id
                      WHERE c.status IN ('verified', 'failed', 'void') AND c.created_at < $2 LIMIT $1)",
            ),
            rule(
                "challenges",
                older_than(challenges_ms),
                "DELETE FROM challenges WHERE id IN
                     (SELECT id FROM challenges
                      WHERE status IN ('verified', 'failed', 'void') AND created_at < $2 LIMIT $1)",
            ),
            rule(
                "presence_days",
                Some((now_ms - presence_ms).div_euclid(DAY_MS)),
                "DELETE FROM presence_days WHERE (worker, day, gpu_set) IN
                     (SELECT worker, day, gpu_set FROM presence_days WHERE day < $2 LIMIT $1)",
            ),
            rule(
                "gpu_sets",
                None,
                "DELETE FROM gpu_sets WHERE id IN
                     (SELECT id FROM gpu_sets WHERE id NOT IN (SELECT gpu_set FROM presence_days)
                      AND id NOT IN (SELECT gpu_set FROM challenges WHERE gpu_set IS NOT NULL) LIMIT $1)",
            ),
            rule(
                "worker_addresses",
                older_than(presence_ms),
                "DELETE FROM worker_addresses WHERE (worker, from_at) IN
                     (SELECT worker, from_at FROM worker_addresses WHERE to_at < $2 LIMIT $1)",
            ),
            rule(
                "gpu_claims",
                older_than(SILENCE_MS),
                "DELETE FROM gpu_claims WHERE (gpu, worker) IN
                     (SELECT gpu, worker FROM gpu_claims
                      WHERE last_at < $2 OR gpu IN (SELECT id FROM gpus WHERE last_seen_at < $2) LIMIT $1)",
            ),
            rule(
                "gpu_stats",
                older_than(SILENCE_MS),
                "DELETE FROM gpu_stats WHERE gpu IN
                     (SELECT s.gpu FROM gpus g JOIN gpu_stats s ON s.gpu = g.id WHERE g.last_seen_at < $2 LIMIT $1)",
            ),
            rule(
                "gpus",
                older_than(SILENCE_MS),
                "DELETE FROM gpus WHERE id IN (SELECT id FROM gpus WHERE last_seen_at < $2 LIMIT $1)",
            ),
            rule(
                "workers",
                older_than(SILENCE_MS),
                "UPDATE workers SET state = 'retired' WHERE id IN
                     (SELECT id FROM workers WHERE state IN ('online', 'offline') AND last_heartbeat_at < $2 LIMIT $1)",
            ),
            rule(
                "worker_specs",
                None,
                "DELETE FROM worker_specs WHERE worker IN
                     (SELECT s.worker FROM workers w JOIN worker_specs s ON s.worker = w.id
                      WHERE w.state = 'retired' LIMIT $1)",
            ),
            rule(
                "worker_usage",
                None,
                "DELETE FROM worker_usage WHERE worker IN
                     (SELECT u.worker FROM workers w JOIN worker_usage u ON u.worker = w.id
                      WHERE w.state = 'retired' LIMIT $1)",
            ),
            rule(
                "lease_events",
                older_than(YEAR_MS),
                "DELETE FROM lease_events WHERE id IN (SELECT id FROM lease_events WHERE at < $2 LIMIT $1)",
            ),
            rule(
                "hub_tasks",
                older_than(HUB_TASKS_MS),
                "DELETE FROM hub_tasks WHERE task_key IN
                     (SELECT task_key FROM hub_tasks WHERE received_at < $2 LIMIT $1)",
            ),
            rule(
                "hub_events",
                older_than(HUB_EVENTS_MS),
                "DELETE FROM hub_events WHERE id IN (SELECT id FROM hub_events WHERE at < $2 LIMIT $1)",
            ),
            rule(
                "config_changes",
                older_than(YEAR_MS),
                "DELETE FROM config_changes WHERE id IN (SELECT id FROM config_changes WHERE at < $2 LIMIT $1)",
            ),
            rule(
                "refusals",
                older_than(YEAR_MS),
                "DELETE FROM refusals WHERE (hotkey, code) IN
                     (SELECT hotkey, code FROM refusals WHERE last_at < $2 LIMIT $1)",
            ),
        ]
    }
}

impl Store {
    /// Forgets what has been kept long enough, and gives freed space back; returns what became of each table.
    pub async fn forget(&self, kept: Kept, now_ms: i64) -> Result<Vec<Forgotten>, StoreError> {
        let forgotten = self.forget_in_batches(kept, now_ms, BATCH_ROWS).await?;
        if let Some(statement) = self.engine.give_back_space() {
            sqlx::raw_sql(statement).execute(&self.writer).await?;
        }
        Ok(forgotten)
    }

    async fn forget_in_batches(&self, kept: Kept, now_ms: i64, batch: i64) -> Result<Vec<Forgotten>, StoreError> {
        let mut forgotten = Vec::new();
        for Rule { table, before, statement } in kept.rules(now_ms) {
            let mut rows = 0;
            loop {
                let affected = retrying(|| self.forget_batch(statement, before, batch)).await?;
                rows += affected;
                if affected < batch.unsigned_abs() {
                    break;
                }
            }
            forgotten.push(Forgotten { table, rows });
        }
        Ok(forgotten)
    }

    async fn forget_batch(&self, statement: &'static str, before: Option<i64>, batch: i64) -> Result<u64, StoreError> {
        let mut query = sqlx::query(statement).bind(batch);
        if let Some(before) = before {
            query = query.bind(before);
        }
        let mut transaction = self.begin().await?;
        let affected = query.execute(&mut *transaction).await?.rows_affected();
        transaction.commit().await?;
        Ok(affected)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use byteleap_chain::{Chain, FixedChain, Weights};
    use byteleap_daemon::clock::ManualClock;
    use byteleap_protocol::challenge::ChallengeKind;
    use byteleap_protocol::hotkey::Hotkey;
    use byteleap_protocol::id::{Iterations, MatrixSize};
    use byteleap_scoring::Rules;
    use sqlx::{AssertSqlSafe, Row};

    use super::super::challenge::{NewChallenge, NewCommitment};
    use super::super::gpu::SeenGpu;
    use super::super::heartbeat::{Heartbeat, Usage, WorkerBeat};
    use super::super::hub::NewTask;
    use super::super::lease::LeaseScore;
    use super::super::testing::{beat, on_both_engines, store};
    use super::*;
    use crate::challenge::state::Verdict;
    use crate::challenge::targets::Targets;
    use crate::challenge::units::CommittedUnit;
    use crate::score::Scorer;
    use crate::store::submission::NewSubmission;
    use crate::weights::testing::terms;

    const MINER: Hotkey = Hotkey([1; 32]);
    /// A midnight, so that days of presence end where days of time do.
    const THEN_MS: i64 = 20_000 * DAY_MS;
    const KEPT: Kept = Kept { events_ms: 7 * DAY_MS, ranking_ms: 3 * 3_600_000, availability_ms: 7 * DAY_MS };

    async fn hear(store: &Store, hotkey: Hotkey, at_ms: i64) {
        let gpu = SeenGpu { uuid: "GPU-1".to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        let usage = Usage { public_ip: Some("192.0.2.1".parse().unwrap()), ..Usage::default() };
        let worker = WorkerBeat { gpus: vec![gpu], gpu_set: vec!["GPU-1".to_owned()], usage, ..beat("w") };
        let heartbeat = Heartbeat { hotkey, version: None, public_ip: None, workers: vec![worker], at_ms };
        store.record_heartbeat(&heartbeat).await.unwrap();
    }

    /// A store in which every table that grows has rows of [`THEN_MS`].
    async fn lived_in() -> Store {
        let store = store().await;
        hear(&store, MINER, THEN_MS).await;
        hear(&store, Hotkey([2; 32]), THEN_MS).await;
        let gpu = sqlx::query("SELECT id FROM gpus").fetch_one(&store.reader).await.unwrap().get::<i64, _>("id");
        sqlx::query("INSERT INTO gpu_stats (gpu, ok, failed, last_at) VALUES ($1, 1, 0, $2)")
            .bind(gpu)
            .bind(THEN_MS)
            .execute(&store.writer)
            .await
            .unwrap();
        store.set_lease(MINER, &"w".parse().unwrap(), LeaseScore::new(1.0).unwrap(), "test", THEN_MS).await.unwrap();
        store.record_refusal(MINER, "expired", "late", THEN_MS).await.unwrap();
        store.record_hub_event("MESH_LEASE_PUBLISH_V1", "replay", "again", THEN_MS).await.unwrap();
        store.record_config_change("meshhub", "{}", true, "", THEN_MS).await.unwrap();
        let task = NewTask {
            key: "t".to_owned(),
            worker: None,
            kind: "vm_creation".to_owned(),
            payload: "{}".to_owned(),
            priority: 0,
            expires_at_ms: None,
        };
        store.record_task(&task, THEN_MS).await.unwrap();
        judge_one(&store).await;
        let chain = FixedChain::of(128, &[MINER]);
        let metagraph = chain.metagraph(128).await.unwrap();
        let clock = Arc::new(ManualClock::new(THEN_MS));
        let chain = Arc::new(chain);
        let scorer = Scorer { store: store.clone(), chain, netuid: 128, clock, rules: Rules::default().into() };
        let (round, _) = scorer.score_once().await.unwrap();
        let weights = Weights::emit(&[(0, 1.0)], 0).unwrap().unwrap();
        let (weights, terms) = (&weights, &terms());
        let submission = NewSubmission { round, block: metagraph.block, weights, terms, dry_run: true, at_ms: THEN_MS };
        store.record_submission(submission).await.unwrap();
        store
    }

    async fn judge_one(store: &Store) {
        let challenge = NewChallenge {
            id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
            worker: store.workers().await.unwrap()[0].key,
            kind: ChallengeKind::CpuMatrix,
            size: MatrixSize::new(2_000).unwrap(),
            iterations: Iterations::ONE,
            seed: "00".parse().unwrap(),
            round_id: "round_1".to_owned(),
            is_test: false,
        };
        store.create_challenges(&[challenge], THEN_MS, THEN_MS + 1).await.unwrap();
        let owner = store.workers().await.unwrap()[0].hotkey;
        let sent = store.send_challenges(owner, 1, THEN_MS, THEN_MS + 1).await.unwrap().remove(0);
        let root = "ab".repeat(32).parse().unwrap();
        let commitment = NewCommitment {
            units: vec![CommittedUnit::cpu(root)],
            targets: Targets { rows: vec![1], coordinates: Vec::new() },
            at_ms: THEN_MS,
            proof_deadline_at_ms: THEN_MS + 1,
        };
        assert!(store.commit_challenge(sent.key, &commitment).await.unwrap());
        assert!(store.accept_proof(sent.key, b"proof", THEN_MS).await.unwrap());
        store.judge_oldest(Verdict::Verified, THEN_MS).await;
    }

    async fn rows(store: &Store, table: &str) -> i64 {
        let table = if table == "workers" { "workers WHERE state <> 'retired'" } else { table };
        let sql = AssertSqlSafe(format!("SELECT COUNT(*) AS n FROM {table}"));
        sqlx::query(sql).fetch_one(&store.reader).await.unwrap().get("n")
    }

    async fn every_table_forgets_when_its_time_is_over_and_not_before() {
        let store = lived_in().await;
        // Days to the pass that still keeps the rows, in the order of their ends.
        let ends = [
            (7, ["round_rosters", "hub_events"].as_slice()),
            (8, &["presence_days", "gpu_sets", "worker_addresses"]),
            (14, &["challenge_units", "challenges"]),
            (30, &["gpu_claims", "gpu_stats", "gpus", "workers", "worker_specs", "worker_usage", "hub_tasks"]),
            (90, &["round_miners"]),
            (365, &["weight_submissions", "scoring_rounds", "lease_events", "refusals", "config_changes"]),
        ];
        for (days, tables) in ends {
            store.forget(KEPT, THEN_MS + days * DAY_MS).await.unwrap();
            for table in tables {
                assert!(rows(&store, table).await > 0, "{table} after {days} days");
            }
            // Presence ends with a day, everything else with a millisecond.
            let past = THEN_MS + days * DAY_MS + if days == 8 { DAY_MS } else { 1 };
            let forgotten = store.forget(KEPT, past).await.unwrap();
            for table in tables {
                assert_eq!(rows(&store, table).await, 0, "{table} after {days} days");
                assert!(
                    forgotten.iter().any(|entry| entry.table == *table && entry.rows > 0),
                    "{table}: {forgotten:?}"
                );
            }
        }
        assert_eq!(rows(&store, "miners").await, 2);
        assert_eq!(rows(&store, "leases").await, 1);
    }

    async fn a_longer_window_keeps_its_rows_longer() {
        let store = lived_in().await;
        let kept = Kept { events_ms: 20 * DAY_MS, ranking_ms: 25 * DAY_MS, availability_ms: 40 * DAY_MS };
        store.forget(kept, THEN_MS + 20 * DAY_MS).await.unwrap();
        for table in ["round_rosters", "challenges", "challenge_units", "presence_days", "worker_addresses"] {
            assert!(rows(&store, table).await > 0, "{table}");
        }
        store.forget(kept, THEN_MS + 25 * DAY_MS + 1).await.unwrap();
        assert_eq!((rows(&store, "round_rosters").await, rows(&store, "challenges").await), (0, 0));
        assert!(rows(&store, "presence_days").await > 0);
    }

    async fn batches_go_on_until_nothing_is_left() {
        let store = store().await;
        for score in 0..7 {
            let score = LeaseScore::new(f64::from(score)).unwrap();
            store.set_lease(MINER, &"w".parse().unwrap(), score, "test", THEN_MS).await.unwrap();
        }
        let forgotten = store.forget_in_batches(KEPT, THEN_MS + YEAR_MS + 1, 2).await.unwrap();
        assert!(forgotten.contains(&Forgotten { table: "lease_events", rows: 7 }), "{forgotten:?}");
        assert_eq!(rows(&store, "lease_events").await, 0);
    }

    async fn a_retired_worker_comes_back_with_its_next_heartbeat() {
        let store = store().await;
        hear(&store, MINER, THEN_MS).await;
        let later_ms = THEN_MS + SILENCE_MS + 1;
        store.forget(KEPT, later_ms).await.unwrap();
        assert!(store.workers().await.unwrap().is_empty());
        hear(&store, MINER, later_ms).await;
        assert_eq!(store.workers().await.unwrap().len(), 1);
        assert_eq!(rows(&store, "worker_specs").await, 1);
    }

    on_both_engines!(
        every_table_forgets_when_its_time_is_over_and_not_before,
        a_longer_window_keeps_its_rows_longer,
        batches_go_on_until_nothing_is_left,
        a_retired_worker_comes_back_with_its_next_heartbeat,
    );
}
