"""InfluxDB as an idempotent projection of snapshots, and as a store that is read from.

`address` says where it is, `points` what a snapshot looks like there, `connection` speaks HTTP and explains failures,
`writer` sends points and tries again, `flux` asks and parses, `reader` is the `SnapshotReader`. When to project what is
decided in `stream.store.projector`.
"""
