-- The tables a challenge passes on its way round: who reports, what was asked and answered, what it was worth.
-- Column types are aliases, expanded for each engine by `store::migrate`:
--   id, ref, int, num, bool, txt(N), json, ts (unix milliseconds, UTC), blob.

CREATE TABLE miners (
    hotkey txt(64) NOT NULL PRIMARY KEY,
    version txt(32),
    public_ip txt(64),
    first_seen_at ts NOT NULL,
    last_heartbeat_at ts,
    state txt(8) NOT NULL CHECK (state IN ('online', 'offline')),
    state_changed_at ts
);
CREATE INDEX miners_last_heartbeat ON miners (state, last_heartbeat_at);

CREATE TABLE miner_uids (
    hotkey txt(64) NOT NULL,
    uid int NOT NULL,
    from_block int NOT NULL,
    to_block int,
    PRIMARY KEY (hotkey, from_block)
);
CREATE INDEX miner_uids_uid ON miner_uids (uid, from_block);

CREATE TABLE workers (
    id id,
    hotkey txt(64) NOT NULL REFERENCES miners (hotkey),
    worker_id txt(256) NOT NULL,
    name txt(128),
    version txt(32),
    capabilities json NOT NULL,
    reported_status txt(16),
    first_seen_at ts NOT NULL,
    last_heartbeat_at ts NOT NULL,
    deadline_at ts NOT NULL,
    state txt(8) NOT NULL CHECK (state IN ('online', 'offline', 'retired')),
    over_limit bool NOT NULL,
    UNIQUE (hotkey, worker_id)
);
CREATE INDEX workers_deadline ON workers (state, deadline_at);

CREATE TABLE worker_specs (
    worker ref NOT NULL PRIMARY KEY REFERENCES workers (id),
    hash blob NOT NULL,
    cpu_model txt(256),
    cpu_count int,
    memory_mb int,
    disk_gb int,
    gpu_count int,
    os txt(128),
    kernel txt(128),
    raw json NOT NULL,
    changed_at ts NOT NULL,
    seen_at ts NOT NULL
);

CREATE TABLE worker_usage (
    worker ref NOT NULL PRIMARY KEY REFERENCES workers (id),
    cpu_pct num,
    mem_pct num,
    mem_free_mb int,
    disk_free_gb int,
    uptime_s int,
    public_ip txt(64),
    at ts NOT NULL
);

CREATE TABLE gpus (
    id id,
    uuid txt(64) UNIQUE,
    worker ref REFERENCES workers (id),
    pci_addr txt(32),
    model txt(256),
    memory_mb int,
    cc txt(16),
    sm_count int,
    clock_mhz int,
    arch txt(64),
    raw json,
    first_seen_at ts NOT NULL,
    last_seen_at ts NOT NULL,
    owner_since ts NOT NULL,
    contested_at ts,
    UNIQUE (worker, pci_addr)
);
CREATE INDEX gpus_worker ON gpus (worker);
CREATE INDEX gpus_last_seen ON gpus (last_seen_at);

CREATE TABLE gpu_claims (
    gpu ref NOT NULL REFERENCES gpus (id),
    worker ref NOT NULL REFERENCES workers (id),
    first_at ts NOT NULL,
    last_at ts NOT NULL,
    beats int NOT NULL,
    PRIMARY KEY (gpu, worker)
);

CREATE TABLE gpu_stats (
    gpu ref NOT NULL PRIMARY KEY REFERENCES gpus (id),
    ok int NOT NULL,
    failed int NOT NULL,
    ewma_ms num,
    last_at ts
);

CREATE TABLE gpu_sets (
    id id,
    hash blob NOT NULL UNIQUE,
    uuids json NOT NULL
);

-- One bit per five minutes of a UTC day in which the worker was heard, kept apart by the GPUs it reported.
CREATE TABLE presence_days (
    worker ref NOT NULL REFERENCES workers (id),
    day int NOT NULL,
    gpu_set ref NOT NULL REFERENCES gpu_sets (id),
    bits blob NOT NULL CHECK (length(bits) = 36),
    PRIMARY KEY (worker, day, gpu_set)
);
CREATE INDEX presence_days_day ON presence_days (day);

-- Runs of one public address: an address change is the border of two runs.
CREATE TABLE worker_addresses (
    worker ref NOT NULL REFERENCES workers (id),
    from_at ts NOT NULL,
    to_at ts NOT NULL,
    ip txt(64) NOT NULL,
    PRIMARY KEY (worker, from_at)
);
CREATE INDEX worker_addresses_to ON worker_addresses (to_at);

-- `expires_at` is the deadline of the status the challenge is in.
CREATE TABLE challenges (
    id id,
    uuid txt(36) NOT NULL UNIQUE,
    worker ref NOT NULL REFERENCES workers (id),
    kind txt(16) NOT NULL,
    size int NOT NULL,
    iterations int NOT NULL,
    seed txt(32) NOT NULL,
    params json NOT NULL,
    targets json,
    status txt(16) NOT NULL
        CHECK (status IN ('created', 'sent', 'committed', 'verifying', 'verified', 'failed', 'void')),
    created_at ts NOT NULL,
    sent_at ts,
    expires_at ts,
    committed_at ts,
    proof_at ts,
    finished_at ts,
    compute_ms num,
    units_total int,
    units_ok int,
    verify_ms num,
    fail_code txt(32),
    fail_note txt(512)
);
CREATE INDEX challenges_worker ON challenges (worker, created_at);
CREATE INDEX challenges_status ON challenges (status, created_at);
CREATE INDEX challenges_verified ON challenges (created_at) WHERE status = 'verified';

CREATE TABLE challenge_units (
    challenge ref NOT NULL REFERENCES challenges (id),
    unit txt(64) NOT NULL,
    root txt(64) NOT NULL,
    ok bool,
    fail_code txt(32),
    PRIMARY KEY (challenge, unit)
);

-- A proof waits here from its acknowledgement to its verdict.
CREATE TABLE challenge_proofs (
    challenge ref NOT NULL PRIMARY KEY REFERENCES challenges (id),
    body blob NOT NULL,
    received_at ts NOT NULL
);
CREATE INDEX challenge_proofs_received ON challenge_proofs (received_at);

-- No reference to `workers`: a lease for a worker not heard of yet is kept.
CREATE TABLE leases (
    hotkey txt(64) NOT NULL,
    worker_id txt(256) NOT NULL,
    score num NOT NULL,
    source txt(32) NOT NULL,
    received_at ts NOT NULL,
    changed_at ts NOT NULL,
    PRIMARY KEY (hotkey, worker_id)
);

CREATE TABLE lease_events (
    id id,
    hotkey txt(64) NOT NULL,
    worker_id txt(256) NOT NULL,
    old num,
    new num NOT NULL,
    at ts NOT NULL
);
CREATE INDEX lease_events_worker ON lease_events (hotkey, worker_id, at);
CREATE INDEX lease_events_at ON lease_events (at);

CREATE TABLE scoring_rounds (
    id id,
    at ts NOT NULL,
    block int,
    profile txt(32) NOT NULL,
    config json NOT NULL,
    config_hash blob NOT NULL,
    miners int NOT NULL,
    workers int NOT NULL,
    max_raw num,
    avg_norm num,
    took_ms int,
    status txt(16) NOT NULL
);
CREATE INDEX scoring_rounds_at ON scoring_rounds (at);

-- What somebody may want to sort or sum by has a column; `detail` holds every number of the score, with its reasons.
CREATE TABLE round_workers (
    round ref NOT NULL REFERENCES scoring_rounds (id),
    worker ref NOT NULL REFERENCES workers (id),
    attempts int NOT NULL,
    successes int NOT NULL,
    avg_ms num,
    avg_units num,
    participation num NOT NULL,
    availability num NOT NULL,
    address_changes int NOT NULL,
    perf num NOT NULL,
    counted bool NOT NULL,
    detail json NOT NULL,
    PRIMARY KEY (round, worker)
);

CREATE TABLE round_miners (
    round ref NOT NULL REFERENCES scoring_rounds (id),
    hotkey txt(64) NOT NULL,
    uid int,
    online bool NOT NULL,
    raw num NOT NULL,
    norm num NOT NULL,
    challenge num NOT NULL,
    lease num NOT NULL,
    availability num NOT NULL,
    composite num NOT NULL,
    weight num NOT NULL,
    detail json NOT NULL,
    PRIMARY KEY (round, hotkey)
);
CREATE INDEX round_miners_hotkey ON round_miners (hotkey, round);

CREATE TABLE weight_submissions (
    id id,
    round ref NOT NULL REFERENCES scoring_rounds (id),
    at ts NOT NULL,
    block int NOT NULL,
    mode txt(8) NOT NULL CHECK (mode IN ('set', 'commit', 'dry_run')),
    version_key int NOT NULL,
    uids json NOT NULL,
    "values" json NOT NULL,
    extrinsic txt(80),
    reveal_round int,
    status txt(16) NOT NULL CHECK (status IN ('pending', 'included', 'rejected', 'unconfirmed', 'skipped')),
    reason txt(512),
    confirmed_block int
);
CREATE INDEX weight_submissions_at ON weight_submissions (at);
CREATE INDEX weight_submissions_status ON weight_submissions (status);
