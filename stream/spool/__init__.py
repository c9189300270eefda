"""The spool: events that were taken over HTTP, kept on disk until ingestion has them in the store.

`file` keeps requests, `records` cuts their bodies into records and decodes them, `source` drains the spool.
"""
