"""Real servers, started as plain processes on free ports with folders of their own: for benchmarks and tests.

`.ci/servers` installs them. What only tests need stands in `tests/servers`.
"""
