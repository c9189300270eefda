"""The fault run of the service: mixed load on `graphtide serve` while what it stands on breaks, and what must hold.

`python benchmarks/faults.py` runs it by hand; a short one is among the integration tests.
"""
