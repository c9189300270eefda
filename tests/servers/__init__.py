"""Real servers for the integration tests, started without containers from what `.ci/servers` has fetched.

One file a server. Each is a context manager with `start`, `stop`, `kill` (SIGKILL), `pause` and `resume` (SIGSTOP,
SIGCONT) and `restart` on the same port and data folder. They listen on 127.0.0.1 only.
"""
