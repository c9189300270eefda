"""The tables of reports, their schedules and deliveries in the service's file. Times are UTC microseconds."""

REPORT_TABLES = """
CREATE TABLE IF NOT EXISTS reports (
    id TEXT PRIMARY KEY,
    graph TEXT NOT NULL,
    owner TEXT NOT NULL,                        -- id of the key, '' where the service has none
    request TEXT NOT NULL,                      -- JSON, canonical
    schedule TEXT,                              -- NULL for one that was asked for
    slot_us INTEGER,                            -- when the schedule wanted it
    deliver TEXT NOT NULL,                      -- JSON: names of targets
    status TEXT NOT NULL,
    steps_done INTEGER NOT NULL,
    fence INTEGER NOT NULL,                     -- rises with every begin: writes with an old one are refused
    attempts INTEGER NOT NULL,
    worker TEXT,
    lease_until_us INTEGER,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    observed_until_us INTEGER,
    problem TEXT,
    summary TEXT,                               -- JSON: the sentences at its top
    UNIQUE (schedule, slot_us)
) STRICT;
CREATE INDEX IF NOT EXISTS reports_by_status ON reports (status, created_us);
CREATE INDEX IF NOT EXISTS reports_by_graph ON reports (graph, created_us);
CREATE TABLE IF NOT EXISTS report_files (
    report_id TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (report_id, name)
) STRICT;
CREATE TABLE IF NOT EXISTS report_log (
    report_id TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS report_log_by_report ON report_log (report_id, time_us);
CREATE TABLE IF NOT EXISTS report_schedules (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    origin TEXT NOT NULL,                       -- 'config' or 'api'
    spec TEXT NOT NULL,                         -- JSON
    created_us INTEGER NOT NULL,
    planned_us INTEGER NOT NULL                 -- slots up to here are planned
) STRICT;
CREATE TABLE IF NOT EXISTS report_deliveries (
    id TEXT PRIMARY KEY,                        -- the idempotency key, the same for a schedule's slot and target
    report_id TEXT NOT NULL,
    target TEXT NOT NULL,
    status TEXT NOT NULL,                       -- waiting, done or failed
    attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    lease_until_us INTEGER,
    next_us INTEGER NOT NULL,                   -- not tried before
    created_us INTEGER NOT NULL,
    finished_us INTEGER,
    problem TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS report_deliveries_by_status ON report_deliveries (status, next_us)
"""
