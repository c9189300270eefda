"""The tables of the service: keys and jobs; those of reports and alerts stand beside their records.

They are written for SQLite; `bookkeeping.postgres` makes its own of them.
"""

from forecasting.alerts.tables import ALERT_TABLES
from forecasting.reports.tables import REPORT_TABLES

SERVICE_SCHEMA = 1

# Times are UTC microseconds.
BASE_TABLES = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    secret_hash BLOB NOT NULL,                  -- SHA-256 of 256 random bits
    scope TEXT NOT NULL,
    graphs TEXT NOT NULL,                       -- JSON: names, or prefixes that end with *
    created_us INTEGER NOT NULL,
    revoked_us INTEGER
) STRICT;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    graph TEXT NOT NULL,
    owner TEXT NOT NULL,                        -- id of the key, '' where the service has none
    request TEXT NOT NULL,                      -- JSON, canonical
    idempotency_key TEXT,
    status TEXT NOT NULL,
    horizon INTEGER NOT NULL,
    steps_done INTEGER NOT NULL,
    fence INTEGER NOT NULL,                     -- rises with every begin and cancel: writes with an old one are refused
    attempts INTEGER NOT NULL,
    worker TEXT,
    lease_until_us INTEGER,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    problem TEXT,
    ground TEXT,                                -- JSON: what the forecast rests on, from the first begin
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status, created_us);
CREATE TABLE job_chunks (
    job_id TEXT NOT NULL,
    first_step INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    digest BLOB NOT NULL,
    body BLOB NOT NULL,                         -- [steps, metrics, mean and levels]: `forecasting.job_chunks`
    PRIMARY KEY (job_id, first_step)
) STRICT
"""


def base_statements() -> list[str]:
    """Return what makes the tables of the first version."""
    return BASE_TABLES.split(";")


def later_statements() -> list[str]:
    """Return what makes the tables that came later, where they are not there: the schema's number stays.

    An older version neither needs nor minds them.
    """
    return [*REPORT_TABLES.split(";"), *ALERT_TABLES.split(";")]
