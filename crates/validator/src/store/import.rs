//! Writes what [`super::reference`] read into an empty database, all of it or nothing (`migrate import-reference`).

use std::collections::HashMap;
use std::fmt;

use byteleap_protocol::id::Unit;
use sqlx::{Any, Row, Transaction};

use super::heartbeat::WORKER_DEADLINE_MS;
use super::presence::gpu_set_row;
use super::reference::{Heritage, OldAddress, OldChallenge, OldGpu, OldMachine, OldMiner, OldWorker, WorkerName};
use super::{Store, StoreError, WorkerKey, double_or_null, json_of};
use crate::challenge::state::Status;

/// Who says that an imported worker is leased, until the marketplace does.
const SOURCE: &str = "import-reference";

/// What an import brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Miners.
    pub miners: usize,
    /// Workers.
    pub workers: usize,
    /// GPUs of the inventory.
    pub gpus: usize,
    /// Descriptions of workers' hardware.
    pub machines: usize,
    /// Leases above 0.
    pub leases: usize,
    /// Heartbeats, now presence and addresses.
    pub heartbeats: u64,
    /// Finished challenges.
    pub challenges: usize,
    /// Rows that could not be read, or that name a worker which is not there.
    pub skipped: u64,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { miners, workers, gpus, machines, leases, heartbeats, challenges, skipped } = self;
        write!(
            f,
            "imported {miners} miners, {workers} workers, {gpus} GPUs, {machines} machines, {leases} leases, \
             {heartbeats} heartbeats, {challenges} challenges; skipped {skipped} rows"
        )
    }
}

type Keys = HashMap<WorkerName, WorkerKey>;

impl Store {
    /// Writes a heritage. The database must be empty, or facts of two programs would mix.
    pub async fn import(&self, heritage: &Heritage) -> Result<Imported, StoreError> {
        if !self.miners().await?.is_empty() {
            let problem = "the database holds miners already: import into an empty one, before the first start";
            return Err(StoreError::Schema(problem.to_owned()));
        }
        let mut imported =
            Imported { heartbeats: heritage.heartbeats, skipped: heritage.skipped, ..Imported::default() };
        let mut transaction = self.begin().await?;
        for miner in &heritage.miners {
            insert_miner(&mut transaction, miner).await?;
            imported.miners += 1;
        }
        let mut keys = Keys::new();
        for worker in &heritage.workers {
            let Some(key) = insert_worker(&mut transaction, worker).await? else {
                imported.skipped += 1;
                continue;
            };
            keys.insert(worker.name.clone(), key);
            imported.workers += 1;
            if worker.lease_score.is_finite() && worker.lease_score > 0.0 {
                insert_lease(&mut transaction, worker).await?;
                imported.leases += 1;
            }
        }
        for gpu in &heritage.gpus {
            match keys.get(&gpu.worker) {
                Some(key) => {
                    insert_gpu(&mut transaction, *key, gpu).await?;
                    imported.gpus += 1;
                }
                None => imported.skipped += 1,
            }
        }
        for machine in &heritage.machines {
            match keys.get(&machine.worker) {
                Some(key) => {
                    insert_machine(&mut transaction, *key, machine).await?;
                    imported.machines += 1;
                }
                None => imported.skipped += 1,
            }
        }
        insert_presence(&mut transaction, heritage, &keys).await?;
        for (name, runs) in &heritage.addresses {
            if let Some(key) = keys.get(name) {
                insert_addresses(&mut transaction, *key, runs).await?;
            }
        }
        for challenge in &heritage.challenges {
            match keys.get(&challenge.worker) {
                Some(key) => {
                    insert_challenge(&mut transaction, *key, challenge).await?;
                    imported.challenges += 1;
                }
                None => imported.skipped += 1,
            }
        }
        transaction.commit().await?;
        Ok(imported)
    }
}

async fn insert_miner(transaction: &mut Transaction<'_, Any>, miner: &OldMiner) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO miners (hotkey, version, public_ip, first_seen_at, last_heartbeat_at, state)
         VALUES ($1, $2, $3, $4, $5, 'online')",
    )
    .bind(miner.hotkey.to_string())
    .bind(miner.version.clone())
    .bind(miner.public_ip.clone())
    .bind(miner.first_seen_at_ms)
    .bind(miner.last_heartbeat_at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// None when its miner is not there. States are left to the sweep, the limit of active workers to the next heartbeat.
async fn insert_worker(
    transaction: &mut Transaction<'_, Any>,
    worker: &OldWorker,
) -> Result<Option<WorkerKey>, StoreError> {
    let row = sqlx::query(
        "INSERT INTO workers (hotkey, worker_id, name, version, capabilities, first_seen_at, last_heartbeat_at,
                              deadline_at, state, over_limit)
         SELECT hotkey, $1, $2, $3, $4, $5, $6, $7, 'online', 0 FROM miners WHERE hotkey = $8 RETURNING id",
    )
    .bind(worker.name.1.as_str())
    .bind(worker.display_name.clone())
    .bind(worker.version.clone())
    .bind(json_of(&worker.capabilities))
    .bind(worker.first_seen_at_ms)
    .bind(worker.last_heartbeat_at_ms)
    .bind(worker.last_heartbeat_at_ms + WORKER_DEADLINE_MS)
    .bind(worker.name.0.to_string())
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| Ok(WorkerKey(row.try_get("id")?))).transpose()
}

async fn insert_lease(transaction: &mut Transaction<'_, Any>, worker: &OldWorker) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (hotkey, worker_id, score, source, received_at, changed_at) VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(worker.name.0.to_string())
    .bind(worker.name.1.as_str())
    .bind(worker.lease_score)
    .bind(SOURCE)
    .bind(worker.lease_at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_gpu(transaction: &mut Transaction<'_, Any>, key: WorkerKey, gpu: &OldGpu) -> Result<(), StoreError> {
    let row = sqlx::query(
        "INSERT INTO gpus (uuid, worker, model, memory_mb, cc, sm_count, clock_mhz, arch, first_seen_at, last_seen_at,
                           owner_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $9) RETURNING id",
    )
    .bind(gpu.uuid.as_str())
    .bind(key.0)
    .bind(gpu.model.clone())
    .bind(gpu.memory_mb)
    .bind(gpu.compute_capability.clone())
    .bind(gpu.sm_count)
    .bind(gpu.clock_mhz)
    .bind(gpu.architecture.clone())
    .bind(gpu.first_seen_at_ms)
    .bind(gpu.last_seen_at_ms)
    .fetch_one(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT INTO gpu_stats (gpu, ok, failed, ewma_ms, last_at)
         VALUES ($1, $2, $3, CAST($4 AS DOUBLE PRECISION), $5)",
    )
    .bind(row.try_get::<i64, _>("id")?)
    .bind(gpu.passed)
    .bind(gpu.failed)
    .bind(double_or_null(gpu.mean_ms))
    .bind(gpu.judged_at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Its digest is that of no description, so that the next heartbeat writes it anew.
async fn insert_machine(
    transaction: &mut Transaction<'_, Any>,
    key: WorkerKey,
    machine: &OldMachine,
) -> Result<(), StoreError> {
    let specs = &machine.specs;
    sqlx::query(
        "INSERT INTO worker_specs (worker, hash, cpu_model, cpu_count, memory_mb, disk_gb, gpu_count, os, kernel, raw,
                                   changed_at, seen_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
    )
    .bind(key.0)
    .bind(specs.hash.clone())
    .bind(specs.cpu_model.clone())
    .bind(specs.cpu_count)
    .bind(specs.memory_mb)
    .bind(specs.disk_gb)
    .bind(specs.gpu_count)
    .bind(specs.os.clone())
    .bind(specs.kernel.clone())
    .bind(specs.raw.as_str())
    .bind(machine.at_ms)
    .execute(&mut **transaction)
    .await?;
    sqlx::query("INSERT INTO worker_usage (worker, cpu_pct, mem_pct, uptime_s, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(key.0)
        .bind(machine.cpu_percent)
        .bind(machine.memory_percent)
        .bind(machine.uptime_s)
        .bind(machine.at_ms)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn insert_presence(
    transaction: &mut Transaction<'_, Any>,
    heritage: &Heritage,
    keys: &Keys,
) -> Result<(), StoreError> {
    let mut sets: HashMap<&[String], i64> = HashMap::new();
    for ((name, day, gpus), bits) in &heritage.presence {
        let Some(key) = keys.get(name) else { continue };
        let set = match sets.get(gpus.as_slice()) {
            Some(set) => *set,
            None => gpu_set_row(transaction, gpus).await?,
        };
        sets.insert(gpus, set);
        sqlx::query("INSERT INTO presence_days (worker, day, gpu_set, bits) VALUES ($1, $2, $3, $4)")
            .bind(key.0)
            .bind(*day)
            .bind(set)
            .bind(bits.as_bytes().to_vec())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn insert_addresses(
    transaction: &mut Transaction<'_, Any>,
    key: WorkerKey,
    runs: &[OldAddress],
) -> Result<(), StoreError> {
    for run in runs {
        sqlx::query(
            "INSERT INTO worker_addresses (worker, from_at, to_at, ip) VALUES ($1, $2, $3, $4)
             ON CONFLICT (worker, from_at) DO UPDATE SET to_at = excluded.to_at, ip = excluded.ip",
        )
        .bind(key.0)
        .bind(run.from_at_ms)
        .bind(run.to_at_ms)
        .bind(run.ip.as_str())
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

async fn insert_challenge(
    transaction: &mut Transaction<'_, Any>,
    key: WorkerKey,
    challenge: &OldChallenge,
) -> Result<(), StoreError> {
    let passed = i64::from(challenge.status == Status::Verified);
    let gpus: Vec<String> = challenge.roots.keys().filter(|unit| *unit != Unit::Cpu.as_str()).cloned().collect();
    let gpu_set = if gpus.is_empty() { None } else { Some(gpu_set_row(transaction, &gpus).await?) };
    let row = sqlx::query(
        "INSERT INTO challenges (uuid, worker, kind, size, iterations, seed, params, status, created_at, finished_at,
                                 compute_ms, units_total, units_ok, fail_code, gpu_set)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CAST($11 AS DOUBLE PRECISION), $12, $13, $14, $15)
         RETURNING id",
    )
    .bind(challenge.id.as_str())
    .bind(key.0)
    .bind(challenge.kind.as_str())
    .bind(i64::from(challenge.size.get()))
    .bind(i64::from(challenge.iterations.get()))
    .bind(challenge.seed.as_str())
    .bind(serde_json::json!({ "round_id": SOURCE }).to_string())
    .bind(challenge.status.as_str())
    .bind(challenge.created_at_ms)
    .bind(challenge.finished_at_ms)
    .bind(double_or_null(challenge.compute_ms))
    .bind(challenge.roots.len() as i64)
    .bind(challenge.units_ok)
    .bind((passed == 0).then_some(SOURCE))
    .bind(gpu_set)
    .fetch_one(&mut **transaction)
    .await?;
    let id: i64 = row.try_get("id")?;
    for (unit, root) in &challenge.roots {
        sqlx::query("INSERT INTO challenge_units (challenge, unit, root, ok) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(unit.as_str())
            .bind(root.as_str())
            .bind(passed)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use byteleap_chain::{FixedChain, Hotkey, Weights};
    use byteleap_daemon::clock::ManualClock;
    use byteleap_scoring::rules::{Overrides, Windows};
    use byteleap_scoring::{Profile, ProfileName, Rules};
    use serde_json::{Value, json};
    use sqlx::{AnyConnection, AssertSqlSafe, Connection};

    use super::super::reference::{Reach, instant_text};
    use super::super::testing::{on_both_engines, store, url};
    use super::super::url::Access;
    use super::super::{DatabaseUrl, Engine};
    use super::*;
    use crate::score::Scorer;

    /// The reference's own tables (validator spec 2.1).
    const TABLES: &str = include_str!("../../tests/reference/tables.sql");
    const VECTORS: &str = include_str!("../../../scoring/tests/vectors/scoring.json");
    const HOUR_MS: i64 = 3_600_000;

    /// The old database: a file beside the new one, or tables beside the new ones.
    fn old_url() -> DatabaseUrl {
        url().file().map_or_else(url, |file| format!("sqlite:///{}.old", file.display()).parse().unwrap())
    }

    async fn run_on_old(sql: String) {
        sqlx::any::install_default_drivers();
        let mut old = AnyConnection::connect(&old_url().with(Access::Create)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut old).await.unwrap();
        old.close().await.unwrap();
    }

    fn hotkey(name: &Value) -> Hotkey {
        Hotkey([name.as_str().unwrap().as_bytes()[0]; 32])
    }

    /// A literal of SQL.
    fn sql(value: &Value) -> String {
        match value {
            Value::Null => "NULL".to_owned(),
            Value::String(text) => format!("'{text}'"),
            other => other.to_string().to_uppercase(),
        }
    }

    fn list<'a>(scenario: &'a Value, key: &str) -> &'a [Value] {
        scenario[key].as_array().map_or(&[], Vec::as_slice)
    }

    /// The statements that make the old database of a scenario.
    fn old_database(scenario: &Value, now_ms: i64) -> String {
        let id = if url().engine() == Engine::Sqlite { "INTEGER PRIMARY KEY" } else { "SERIAL PRIMARY KEY" };
        let mut text = format!("BEGIN;\n{}", TABLES.replace("{id}", id));
        let ago = |seconds: i64| format!("'{}.000000'", instant_text(now_ms - seconds * 1000));
        let long_ago = ago(10_000_000);
        for miner in list(scenario, "miners") {
            let seen = if miner["is_online"] == false { &long_ago } else { &ago(0) };
            text += &format!(
                "INSERT INTO miner_info (created_at, hotkey, last_heartbeat) VALUES ({long_ago}, '{}', {seen});\n",
                hotkey(&miner["hotkey"])
            );
        }
        for worker in list(scenario, "workers") {
            text += &format!(
                "INSERT INTO worker_info (created_at, hotkey, worker_id, capabilities, lease_score, last_heartbeat)
                 VALUES ({long_ago}, '{}', {}, '[\"cpu_matrix\"]', {}, {});\n",
                hotkey(&worker["hotkey"]),
                sql(&worker["worker_id"]),
                worker["lease_score"].as_f64().unwrap_or(0.0),
                ago(0)
            );
        }
        for worker in list(scenario, "workers") {
            text += &format!(
                "INSERT INTO hardware_info (updated_at, hotkey, worker_id, cpu_count, cpu_model, memory_total_mb,
                     system_info, gpu_info, avg_cpu_usage, uptime_seconds)
                 VALUES ({}, '{}', {}, 64, 'EPYC', 1024, '{{\"system\": \"Linux\", \"release\": \"6.8\"}}', '[]', 12.5,
                         77.9);\n",
                ago(60),
                hotkey(&worker["hotkey"]),
                sql(&worker["worker_id"])
            );
        }
        for gpu in list(scenario, "gpus") {
            text += &format!(
                "INSERT INTO gpu_inventory (created_at, gpu_uuid, hotkey, worker_id, gpu_model, last_seen_at)
                 VALUES ({long_ago}, {}, '{}', {}, 'NVIDIA RTX 4090', {});\n",
                sql(&gpu["gpu_uuid"]),
                hotkey(&gpu["hotkey"]),
                sql(&gpu["worker_id"]),
                ago(gpu["last_seen_s_ago"].as_i64().unwrap_or(0))
            );
        }
        let mut beats = Vec::new();
        for run in list(scenario, "heartbeat_runs") {
            let number = |key: &str| run[key].as_i64().unwrap();
            let mut at = number("first_s_ago");
            while at >= number("last_s_ago") {
                let row = format!(
                    "({}, '{}', {}, {}, '{}')",
                    ago(at),
                    hotkey(&run["hotkey"]),
                    sql(&run["worker_id"]),
                    sql(&run["public_ip"]),
                    Value::from_iter(list(run, "gpu_uuids").iter().map(|uuid| json!({ "uuid": uuid })))
                );
                beats.push((-at, row));
                at -= number("step_s");
            }
        }
        beats.sort();
        for chunk in beats.chunks(500) {
            let rows: Vec<_> = chunk.iter().map(|(_, row)| row.as_str()).collect();
            text += "INSERT INTO heartbeat_records (created_at, hotkey, worker_id, public_ip, gpu_utilization) VALUES ";
            text += &format!("{};\n", rows.join(", "));
        }
        for (place, run) in list(scenario, "challenges").iter().enumerate() {
            let or = |key: &str, default: Value| run.get(key).cloned().unwrap_or(default);
            let gpus = list(run, "gpu_uuids").iter().map(|uuid| (uuid.as_str().unwrap(), "ab"));
            let roots = if gpus.len() == 0 { json!({ "-1": "ab" }) } else { Value::from_iter(gpus) };
            let kind = if roots.get("-1").is_some() { "cpu_matrix" } else { "gpu_matrix" };
            for k in 0..run["repeat"].as_i64().unwrap() {
                text += &format!(
                    "INSERT INTO compute_challenges (created_at, challenge_id, hotkey, worker_id, challenge_type,
                         challenge_data, merkle_commitments, computation_time_ms, challenge_status, is_success,
                         verification_result, success_count)
                     VALUES ({}, 'c{place}-{k}', '{}', {}, '{kind}',
                             '{{\"matrix_size\": 2000, \"seed\": \"00ff\", \"iterations\": 1}}', '{roots}', {},
                             {}, {}, {}, {});\n",
                    ago(run["first_s_ago"].as_i64().unwrap() - k * run["every_s"].as_i64().unwrap()),
                    hotkey(&run["hotkey"]),
                    sql(&run["worker_id"]),
                    sql(&or("computation_time_ms", Value::Null)),
                    sql(&or("status", "verified".into())),
                    sql(&or("is_success", true.into())),
                    sql(&or("verification_result", true.into())),
                    sql(&or("success_count", 1.into())),
                );
            }
        }
        text + "COMMIT;\n"
    }

    fn rules(config: &Value) -> Rules {
        let number = |key: &str| config[key].as_f64().unwrap();
        let windows = Windows {
            ranking_minutes: number("ranking_window_minutes") as u32,
            challenge_interval_s: number("challenge_interval") as u32,
            participation_threshold: number("participation_rate_threshold"),
            availability_hours: number("availability_window_hours") as u32,
        };
        let set = Overrides {
            lease_weight: Some(number("lease_weight")),
            challenge_weight: Some(number("challenge_weight")),
            ..Overrides::default()
        };
        Rules::new(Profile::named(ProfileName::Reference005).with(&set), windows).unwrap()
    }

    /// Imports the database that the old program would have had, scores, and compares with what it computed itself.
    async fn scores_as_before(name: &str) {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let now_ms = vectors["now_unix"].as_i64().unwrap() * 1000;
        let scenario =
            vectors["scenarios"].as_array().unwrap().iter().find(|scenario| scenario["name"] == name).unwrap();
        run_on_old(old_database(scenario, now_ms)).await;
        let rules = rules(&scenario["config"]);
        let reach = Reach {
            heartbeats_since_ms: now_ms - i64::from(rules.windows().availability_hours) * HOUR_MS,
            challenges_since_ms: now_ms - i64::from(rules.windows().ranking_minutes) * 60_000,
        };
        let store = store().await;
        let heritage = Heritage::read(&old_url(), reach).await.unwrap();
        let imported = store.import(&heritage).await.unwrap();
        let workers = list(scenario, "workers").len();
        assert_eq!((imported.workers, imported.machines, imported.skipped), (workers, workers, 0), "{imported}");
        assert_eq!(imported.gpus, list(scenario, "gpus").len());

        let members: Vec<Hotkey> = list(scenario, "metagraph").iter().map(hotkey).collect();
        let (chain, clock) = (Arc::new(FixedChain::of(128, &members)), Arc::new(ManualClock::new(now_ms)));
        let (round, _) =
            Scorer { store: store.clone(), chain, netuid: 128, clock, rules: rules.into() }.score_once().await.unwrap();

        let near = |what: &str, found: f64, expected: &Value| {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found} instead of {expected}");
        };
        for (miner, expect) in scenario["expect"]["miners"].as_object().unwrap() {
            let hotkey = Hotkey([miner.as_bytes()[0]; 32]);
            near(miner, store.miner_score(round, hotkey).await.unwrap().unwrap().weight, &expect["weight"]);
            let workers = store.worker_scores(round, hotkey).await.unwrap();
            let workers: BTreeMap<_, _> = workers.iter().map(|worker| (worker.worker_id.as_str(), worker)).collect();
            for (worker, expect) in scenario["expect"]["workers"].as_object().unwrap() {
                if let Some(found) = worker.strip_prefix(&format!("{miner}:")).and_then(|id| workers.get(id)) {
                    near(worker, found.performance, &expect["performance_score"]);
                    near(worker, found.availability.value, &expect["availability"]);
                }
            }
        }
        let pairs: Vec<_> =
            store.shares_of(round).await.unwrap().iter().map(|share| (share.uid, share.weight)).collect();
        let values: Vec<_> = Weights::emit(&pairs, 0).unwrap().unwrap().pairs().collect();
        assert_eq!(json!(values), scenario["expect"]["u16"]);
    }

    async fn leases_and_challenges_count_as_before() {
        scores_as_before("lease_and_challenge_mix").await;
    }

    async fn presence_counts_as_before() {
        scores_as_before("availability_cpu").await;
    }

    async fn address_changes_count_as_before() {
        scores_as_before("availability_ip_changes").await;
    }

    async fn participation_counts_as_before() {
        scores_as_before("participation_ladder").await;
    }

    async fn units_of_gpus_count_as_before() {
        scores_as_before("gpu_count_normalisation").await;
    }

    async fn gpus_of_others_are_ignored_as_before() {
        scores_as_before("gpu_ownership").await;
    }

    async fn presence_of_gpus_counts_as_before() {
        scores_as_before("availability_gpu_presence").await;
    }

    async fn a_foreign_gpu_in_the_history_costs_as_before() {
        scores_as_before("foreign_gpu_in_history").await;
    }

    async fn a_machine_is_described_as_before() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        run_on_old(old_database(&vectors["scenarios"][0], 10_000_000_000)).await;
        let reach = Reach { heartbeats_since_ms: 0, challenges_since_ms: 0 };
        let (store, heritage) = (store().await, Heritage::read(&old_url(), reach).await.unwrap());
        store.import(&heritage).await.unwrap();
        let row = sqlx::query(
            "SELECT s.cpu_count, s.cpu_model, s.memory_mb, s.os, s.kernel, u.cpu_pct, u.uptime_s, u.at
             FROM worker_specs s JOIN worker_usage u ON u.worker = s.worker",
        )
        .fetch_one(&store.reader)
        .await
        .unwrap();
        let number = |column| row.try_get::<i64, _>(column).unwrap();
        assert_eq!(["cpu_count", "memory_mb", "uptime_s", "at"].map(number), [64, 1024, 77, 10_000_000_000 - 60_000]);
        let text = |column| row.try_get::<String, _>(column).unwrap();
        assert_eq!(["cpu_model", "os", "kernel"].map(text), ["EPYC", "Linux", "6.8"]);
        assert_eq!(row.try_get::<f64, _>("cpu_pct").unwrap(), 12.5);
    }

    async fn a_database_in_use_is_left_alone() {
        let reach = Reach { heartbeats_since_ms: 0, challenges_since_ms: 0 };
        let store = store().await;
        let error = Heritage::read(&url(), reach).await.unwrap_err();
        assert!(error.to_string().contains("no tables of the old program"), "{error}");
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        run_on_old(old_database(&vectors["scenarios"][0], 10_000_000_000)).await;
        let heritage = Heritage::read(&old_url(), reach).await.unwrap();
        store.import(&heritage).await.unwrap();
        let before = store.workers().await.unwrap();
        let error = store.import(&heritage).await.unwrap_err();
        assert!(error.to_string().contains("before the first start"), "{error}");
        assert_eq!(store.workers().await.unwrap(), before);
    }

    on_both_engines!(
        leases_and_challenges_count_as_before,
        presence_counts_as_before,
        address_changes_count_as_before,
        participation_counts_as_before,
        units_of_gpus_count_as_before,
        gpus_of_others_are_ignored_as_before,
        presence_of_gpus_counts_as_before,
        a_foreign_gpu_in_the_history_costs_as_before,
        a_machine_is_described_as_before,
        a_database_in_use_is_left_alone,
    );
}
