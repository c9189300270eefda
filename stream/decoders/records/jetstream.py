"""Bluesky Jetstream: likes, reposts, follows and replies among the commits of all accounts.

Source of the format: https://github.com/bluesky-social/jetstream. The time is the server's `time_us`; `createdAt` is
what a client claims. The id is the record's AT URI, which a replay from a cursor repeats.
"""

from collections.abc import Mapping
from typing import Any

from stream.decoders.records.base import Record
from stream.decoders.records.extract import Row, text_at
from stream.events import InvalidEventError, shown

# Collection to event type; a post counts where it replies.
_TYPES = {
    "app.bsky.feed.like": "like",
    "app.bsky.feed.repost": "repost",
    "app.bsky.graph.follow": "follow",
    "app.bsky.feed.post": "reply",
}
COLLECTIONS = tuple(_TYPES)


class JetstreamExtract:
    """Events of a commit that creates a record; identity and account messages, updates and deletions are none."""

    looked_for: Mapping[str, str] = {
        "src": "did",
        "dst": "commit.record.subject, commit.record.reply.parent.uri",
        "ts": "time_us",
    }

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return the event of a message; see `Extract`."""
        del record
        kind = fields.get("kind")
        if not isinstance(kind, str):
            raise InvalidEventError("kind is missing: this is no Jetstream message")
        commit = fields.get("commit")
        if kind != "commit":
            return []
        if not isinstance(commit, dict):
            raise InvalidEventError("commit is missing")
        collection = commit.get("collection")
        type_ = _TYPES.get(collection) if isinstance(collection, str) else None
        if commit.get("operation") != "create" or type_ is None:
            return []
        body = commit.get("record")
        if not isinstance(body, dict):
            raise InvalidEventError("commit.record is missing")
        if type_ == "reply":
            if body.get("reply") is None:
                return []
            uri = text_at(body, "reply", "parent", "uri")
        else:
            uri = text_at(body, "subject") or text_at(body, "subject", "uri")
        did, rkey = fields.get("did"), commit.get("rkey")
        id_ = f"at://{did}/{collection}/{rkey}" if isinstance(rkey, str) else None
        return [Row(src=did, dst=None if uri is None else _account(uri), ts=fields.get("time_us"), type=type_, id=id_)]


def _account(uri: str) -> str:
    """Return whose record an AT URI names; a bare DID or handle is an account."""
    account = uri.removeprefix("at://").partition("/")[0]
    if not account:
        raise InvalidEventError(f"{shown(uri)} names no account")
    return account
