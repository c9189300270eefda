"""Models over sequences of snapshot metrics: Mamba2 and its kernels, the forecaster, the floors, training.

Knows nothing of `stream`: it sees arrays and the metric schema.
"""
