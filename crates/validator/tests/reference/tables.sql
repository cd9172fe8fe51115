-- The tables of the Python validator, release 0.0.5, that an import reads (validator spec 2.1); {id} is the engine's own.
CREATE TABLE miner_info (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    hotkey VARCHAR(256) NOT NULL UNIQUE, miner_version VARCHAR(32), public_ip VARCHAR(45),
    is_online BOOLEAN, last_heartbeat TIMESTAMP, last_challenge_time TIMESTAMP,
    current_weight DOUBLE PRECISION, last_weight_update TIMESTAMP
);
CREATE TABLE worker_info (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    worker_id VARCHAR(256) NOT NULL, hotkey VARCHAR(256) NOT NULL REFERENCES miner_info (hotkey),
    worker_name VARCHAR(128), worker_version VARCHAR(32), capabilities JSON,
    is_online BOOLEAN, last_heartbeat TIMESTAMP, next_heartbeat_deadline TIMESTAMP,
    tasks_completed INTEGER, tasks_failed INTEGER, avg_task_time_ms DOUBLE PRECISION,
    lease_score DOUBLE PRECISION, lease_updated_at TIMESTAMP,
    UNIQUE (hotkey, worker_id)
);
CREATE TABLE hardware_info (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    hotkey VARCHAR(256) NOT NULL, worker_id VARCHAR(256) NOT NULL,
    cpu_count INTEGER, cpu_brand VARCHAR(128), cpu_model VARCHAR(256), cpu_architecture VARCHAR(64),
    cpu_frequency_mhz DOUBLE PRECISION, cpu_max_frequency_mhz DOUBLE PRECISION, cpu_info JSON,
    memory_total_mb INTEGER, memory_type VARCHAR(32), memory_frequency_mhz DOUBLE PRECISION, memory_info JSON,
    disk_total_gb INTEGER, disk_type VARCHAR(32), storage_info JSON, gpu_count INTEGER, gpu_info JSON,
    motherboard_brand VARCHAR(128), motherboard_model VARCHAR(256), motherboard_bios_version VARCHAR(128),
    motherboard_info JSON, system_os VARCHAR(128), system_os_version VARCHAR(128),
    system_kernel_version VARCHAR(128), system_info JSON, uptime_seconds DOUBLE PRECISION,
    avg_cpu_usage DOUBLE PRECISION, avg_memory_usage DOUBLE PRECISION, UNIQUE (hotkey, worker_id)
);
CREATE TABLE gpu_inventory (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    gpu_uuid VARCHAR(64) NOT NULL UNIQUE, hotkey VARCHAR(256) NOT NULL REFERENCES miner_info (hotkey),
    worker_id VARCHAR(256) NOT NULL, gpu_model VARCHAR(256), gpu_memory_total INTEGER, gpu_memory_free INTEGER,
    compute_capability VARCHAR(16), multiprocessor_count INTEGER, clock_rate INTEGER, architecture VARCHAR(64),
    gpu_info JSON, last_seen_at TIMESTAMP, successful_challenges INTEGER, failed_challenges INTEGER,
    avg_computation_time_ms DOUBLE PRECISION, last_activity_at TIMESTAMP, is_active BOOLEAN
);
CREATE TABLE heartbeat_records (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    hotkey VARCHAR(256) NOT NULL, worker_id VARCHAR(256), cpu_usage DOUBLE PRECISION, memory_usage DOUBLE PRECISION,
    memory_available_mb INTEGER, disk_free_gb INTEGER, gpu_utilization JSON, public_ip VARCHAR(45)
);
CREATE TABLE compute_challenges (
    id {id}, created_at TIMESTAMP, updated_at TIMESTAMP, deleted_at TIMESTAMP,
    challenge_id VARCHAR(128) NOT NULL UNIQUE, hotkey VARCHAR(256) NOT NULL, worker_id VARCHAR(256),
    challenge_type VARCHAR(32) NOT NULL, challenge_data JSON NOT NULL, sent_at TIMESTAMP, expires_at TIMESTAMP,
    computation_time_ms DOUBLE PRECISION, merkle_commitments JSON, verification_targets JSON, computed_at TIMESTAMP,
    debug_info JSON, challenge_status VARCHAR(20) NOT NULL, verification_result BOOLEAN, verification_notes TEXT,
    verification_time_ms DOUBLE PRECISION, verified_at TIMESTAMP, is_success BOOLEAN, success_count INTEGER
);
