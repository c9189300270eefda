"""The stream processors that ingestion is measured against, each a program that its own environment's Python runs.

They see nothing of this project. Each reads a topic to its end, keeps the events, active nodes and unique edges of each
minute, and prints one line of JSON: `{"seconds", "events", "active_nodes", "unique_edges"}`, the three as sums over the
minutes. `seconds` count from the first record to the last result; what only checks the sums is not counted.
"""
