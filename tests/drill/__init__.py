"""A drill: two of each process under load, killed in turn, and a count of what was lost.

`benchmarks/replica_kills.py` runs it against a real Kafka, PostgreSQL and nginx.
"""
