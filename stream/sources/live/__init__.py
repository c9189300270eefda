"""Streams of public services as they happen: what a service needs is in the file of its name, the rest serves all.

A stream is one partition, read by one process. `open_live` is the way in.
"""

from stream.sources.live.opening import LIVE_SOURCES, open_live
from stream.sources.live.source import LiveSource

__all__ = ["LIVE_SOURCES", "LiveSource", "open_live"]
