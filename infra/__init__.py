"""What every package shares: the metric schema, step sizes, errors, settings, telemetry, deployment.

Imported by all, imports none of the other packages. `schema`, `steps` and `errors` use the standard library only.
"""
