"""Backups of a live system: the store, what waits for it, keys, jobs, reports and models, as one folder."""
