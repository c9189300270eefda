"""Wikimedia EventStreams `recentchange`: who edited what, on all wikis.

Source of the format: https://schema.wikimedia.org, mediawiki/recentchange 1.0.0. Canary events, which the operators
send to see that the stream runs, are no interactions.
"""

from collections.abc import Mapping
from typing import Any

from stream.decoders.records.base import Record
from stream.decoders.records.extract import Row, text_at
from stream.events import InvalidEventError

_USER_TALK = 3


class RecentChangeExtract:
    """Events of a change: the user acts on a page of a wiki, or on the user whose talk page it is."""

    looked_for: Mapping[str, str] = {"src": "user", "dst": "wiki and title", "ts": "meta.dt"}

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return the event of a change; see `Extract`."""
        del record
        meta = fields.get("meta")
        if not isinstance(meta, dict):
            raise InvalidEventError("meta is missing: this is no recentchange event")
        if meta.get("domain") == "canary":
            return []
        return [
            Row(
                src=fields.get("user"),
                dst=_page(fields),
                ts=meta.get("dt"),
                type=fields.get("type"),
                id=meta.get("id"),
            )
        ]


def _page(fields: dict[str, Any]) -> str | None:
    wiki, title = text_at(fields, "wiki"), text_at(fields, "title")
    if wiki is None or title is None:
        return None
    if fields.get("namespace") == _USER_TALK and ":" in title:
        # The namespace has another name in each language; subpages (`User talk:Ada/Archive`) are the same user's.
        user = title.partition(":")[2].partition("/")[0].strip()
        if user:
            return user
    return f"{wiki}:{title}"
