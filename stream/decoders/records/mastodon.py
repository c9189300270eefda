"""Mastodon streaming: reblogs, replies and mentions among new statuses.

Source of the format: https://docs.joinmastodon.org/methods/streaming. Over WebSocket a message is an envelope whose
`payload` is a text of JSON; over server-sent events the status comes alone and the name of the event stands in the
record's header `event`. Everything but `update` is no interaction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stream.decoders.ndjson import parse_object
from stream.decoders.records.base import BadEvent, Record, header
from stream.decoders.records.extract import Row, text_at
from stream.decoders.records.objects import Objects
from stream.events import InvalidEventError, shown

_NEW_STATUS = "update"


class StatusCodec:
    """Leaves out the records whose header `event` tells something else than a new status: a deletion is a bare number.

    Args:
        codec: payloads to objects.
    """

    def __init__(self, codec: Callable[[Sequence[Record]], Objects]) -> None:
        self._codec = codec

    def __call__(self, records: Sequence[Record]) -> Objects:
        """Return the objects of the other records."""
        kept = [at for at, record in enumerate(records) if header(record, "event") in (None, _NEW_STATUS.encode())]
        if len(kept) == len(records):
            return self._codec(records)
        objects = self._codec([records[at] for at in kept])
        objects.record = [kept[at] for at in objects.record]
        objects.bad = [BadEvent(kept[at], reason, stage) for at, reason, stage in objects.bad]
        objects.skipped += len(records) - len(kept)
        return objects


class MastodonExtract:
    """Events of a status: one reblog, or one reply and a mention of each other account that it names."""

    looked_for: Mapping[str, str] = {
        "src": "account.acct",
        "dst": "reblog.account.acct, in_reply_to_account_id, mentions[].acct",
        "ts": "created_at",
    }

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return the events of a message; see `Extract`."""
        status = _status(fields)
        if status is None:
            return []
        if not isinstance(status.get("account"), dict):
            raise InvalidEventError("account is missing: this is no Mastodon status")
        src, ts, id_ = text_at(status, "account", "acct"), status.get("created_at"), _text(status.get("id"))
        if status.get("reblog") is not None:
            return [Row(src=src, dst=text_at(status, "reblog", "account", "acct"), ts=ts, type="reblog", id=id_)]
        rows: list[Row] = []
        mentioned = _mentions(status)
        replied = _text(status.get("in_reply_to_account_id"))
        if replied is not None:
            accounts = {**mentioned, _text(status["account"].get("id")): src}
            # An account that the status does not name is known by its number only.
            dst = accounts.get(replied) or f"id:{replied}"
            rows.append(Row(src=src, dst=dst, ts=ts, type="reply", id=id_ and f"{id_}#reply"))
        rows += [
            Row(src=src, dst=acct, ts=ts, type="mention", id=id_ and f"{id_}#mention:{acct}")
            for number, acct in mentioned.items()
            if number != replied
        ]
        return rows


def _status(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return the new status of a message, None if it tells something else."""
    if "event" not in fields:
        return fields
    if fields["event"] != _NEW_STATUS:
        return None
    payload = fields.get("payload")
    if isinstance(payload, dict):
        return payload
    if not isinstance(payload, str):
        raise InvalidEventError(f"payload: {shown(payload)} is no text of JSON")
    try:
        return parse_object(payload)
    except ValueError as error:
        raise InvalidEventError(f"payload: {error}") from None


def _mentions(status: dict[str, Any]) -> dict[str | None, str]:
    """Return number to name of the mentioned accounts."""
    mentions = status.get("mentions") or []
    if not isinstance(mentions, list):
        raise InvalidEventError(f"mentions: {shown(mentions)} is no list")
    accounts: dict[str | None, str] = {}
    for at, mention in enumerate(mentions):
        acct = text_at(mention, "acct")
        if acct is None:
            raise InvalidEventError(f"mentions[{at}].acct is missing")
        accounts[_text(mention.get("id")) or acct] = acct
    return accounts


def _text(value: Any) -> str | None:
    """Return an id as text: Mastodon writes numbers as text, some relatives do not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**30 else None
    return value if isinstance(value, str) and value else None
