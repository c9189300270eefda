"""A seeded simulator of faulty ingestion: one seed is one whole run, with its log, its faults and its schedule.

The code under test is the real one: ingestion, decoders, the SQL writer and the projector. Simulated is what surrounds
it: the clock, the broker, the sink, the failures of disk and processes, and who runs when. See `docs/simulator.md`.
"""
