"""The fault run of the service: mixed load on `graphtide serve` while what it stands on breaks, and what must hold.

`python -m tests.soak --minutes 30` runs it by hand; a short one is among the integration tests.
"""
