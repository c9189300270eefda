"""The forecast service over HTTP: one file a resource, and what they share (`gate`, `service`, `problems`, `bodies`).

What a route answers is computed in `forecasting.live` and `forecasting.jobs`, which know nothing of HTTP.
"""
