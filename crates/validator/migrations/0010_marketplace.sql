-- What passes between validator and marketplace: who it is, which rounds it has, what it ordered, and which leases ran out.

ALTER TABLE leases ADD COLUMN
    expired_at ts;
CREATE INDEX leases_received ON leases (received_at);

CREATE TABLE hub_facts (
    name txt(64) NOT NULL PRIMARY KEY,
    value txt(256) NOT NULL,
    at ts NOT NULL
);

CREATE TABLE hub_tasks (
    task_key txt(128) NOT NULL PRIMARY KEY,
    worker_key txt(512),
    kind txt(64) NOT NULL,
    payload json NOT NULL,
    priority int NOT NULL,
    status txt(16) NOT NULL CHECK (status IN ('pending', 'expired')),
    received_at ts NOT NULL,
    expires_at ts
);
CREATE INDEX hub_tasks_expiry ON hub_tasks (status, expires_at);

CREATE TABLE hub_events (
    id id,
    at ts NOT NULL,
    kind txt(64) NOT NULL,
    result txt(32) NOT NULL,
    note txt(512) NOT NULL
);
CREATE INDEX hub_events_at ON hub_events (at);

CREATE TABLE config_changes (
    id id,
    at ts NOT NULL,
    source txt(32) NOT NULL,
    diff json NOT NULL,
    accepted bool NOT NULL,
    reason txt(512) NOT NULL
);
CREATE INDEX config_changes_at ON config_changes (at);
