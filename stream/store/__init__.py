"""Snapshot stores: the reading contract in `base`, one file a store."""
