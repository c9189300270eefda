"""The tables of alerts in the service's file. Times are UTC microseconds."""

ALERT_TABLES = """
CREATE TABLE IF NOT EXISTS alert_rules (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,                        -- id of the key, '' where the service has none
    origin TEXT NOT NULL,                       -- 'config' or 'api'
    spec TEXT NOT NULL,                         -- JSON, with the graphs that its owner may see
    created_us INTEGER NOT NULL,                -- of this spec: another begins anew
    evaluations INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    problem TEXT                                -- why it could not be judged last time
) STRICT;
CREATE TABLE IF NOT EXISTS alert_watches (
    graph TEXT PRIMARY KEY,
    ground TEXT NOT NULL,                       -- what the last judgement rests on: steps, events, rules
    judged_us INTEGER,                          -- start of the last closed step that was judged
    final_us INTEGER,                           -- start of the last final step that was judged
    fence INTEGER NOT NULL,                     -- rises with every begin: writes with an old one are refused
    lease_until_us INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS alert_forecasts (
    graph TEXT NOT NULL,
    step_us INTEGER NOT NULL,                   -- start of the step that is forecast
    lead INTEGER NOT NULL,
    quantiles BLOB NOT NULL,                    -- [metrics, levels] float64, little-endian
    made_us INTEGER NOT NULL,
    PRIMARY KEY (graph, step_us, lead)
) STRICT;
CREATE TABLE IF NOT EXISTS alerts (
    id TEXT PRIMARY KEY,                        -- of rule, its begin, graph and metric
    rule TEXT NOT NULL,
    rule_created_us INTEGER NOT NULL,           -- another than that of the rule's row: of what it said before
    graph TEXT NOT NULL,
    metric TEXT NOT NULL,                       -- '' for the graph itself
    course TEXT NOT NULL,                       -- JSON: what the machine goes on from
    state TEXT NOT NULL,
    changes INTEGER NOT NULL,                   -- number of the last transition
    told INTEGER NOT NULL,                      -- number of the last transition that was handed to the deliveries
    since_us INTEGER NOT NULL,
    judged_us INTEGER NOT NULL,
    facts TEXT NOT NULL,                        -- JSON: the last judgement
    acknowledged_us INTEGER,
    acknowledged_by TEXT,
    silenced_until_us INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS alerts_by_graph ON alerts (graph, state);
CREATE INDEX IF NOT EXISTS alerts_by_rule ON alerts (rule, state);
CREATE TABLE IF NOT EXISTS alert_transitions (
    id TEXT PRIMARY KEY,                        -- of alert and number
    alert_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    facts TEXT NOT NULL,                        -- JSON: the judgement that it follows from
    UNIQUE (alert_id, number)
) STRICT;
CREATE TABLE IF NOT EXISTS alert_log (
    transition_id TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS alert_log_by_transition ON alert_log (transition_id, time_us);
CREATE TABLE IF NOT EXISTS alert_deliveries (
    id TEXT PRIMARY KEY,                        -- the idempotency key, the same for a transition and target
    transition_id TEXT NOT NULL,
    target TEXT NOT NULL,
    status TEXT NOT NULL,                       -- waiting, done or failed
    attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    lease_until_us INTEGER,
    next_us INTEGER NOT NULL,                   -- not tried before
    created_us INTEGER NOT NULL,
    finished_us INTEGER,
    problem TEXT,
    queue TEXT NOT NULL,                        -- alert and target: those of one are sent in order
    number INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS alert_deliveries_by_status ON alert_deliveries (status, next_us);
CREATE INDEX IF NOT EXISTS alert_deliveries_by_queue ON alert_deliveries (queue, number)
"""
