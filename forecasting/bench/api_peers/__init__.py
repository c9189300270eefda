"""The servers of models that the forecast service is measured against, each a program of its own environment's Python.

They see the forecaster and its backend, and answer with the bytes that our service answers with. What stands here is
what someone who knows the peer would write: batches where it has them for such answers, and no encoder but orjson.
"""
