"""The events that a subscriber of a graph gets: snapshots, revisions, forecasts, and why the stream ends."""

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from forecasting.api.bodies import encode
from forecasting.api.cursors import WINDOW_STEPS, Cursor
from forecasting.api.problems import Problem
from forecasting.api.service import Service
from forecasting.api.short_forecasts import ShortForecast, short_forecast
from forecasting.api.streams import HEARTBEATS, written
from forecasting.api.subscriptions import View
from forecasting.keys import Key
from infra.steps import format_time
from stream.store.base import GraphInfo

# Digits of a forecast's entity tag that a cursor holds.
_TAG_DIGITS = 12
_log = logging.getLogger(__name__)
Event = tuple[str, Cursor, bytes]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscriber asked for.

    Attributes:
        graph: of which graph.
        caller: whose key it is; the stream ends with the key.
        metrics: of snapshots.
        forecast: what is forecast after each change; None for nothing.
        media_type: how an event is written.
    """

    graph: str
    caller: Key
    metrics: tuple[str, ...]
    forecast: ShortForecast | None
    media_type: str


class News:
    """Follows a graph for one subscriber.

    Args:
        service: what it follows with.
        wanted: what it tells.
        cursor: where the subscriber stands; None for one who begins, with the last snapshot.
    """

    def __init__(self, service: Service, wanted: Subscription, cursor: Cursor | None) -> None:
        self._service = service
        self._wanted = wanted
        self._cursor = cursor
        self._seen: GraphInfo | None = None
        self._forecast_of: tuple[str, str, str] | None = None

    async def lines(self, heartbeat_s: float) -> AsyncIterator[bytes]:
        """Yield events as they are written, and something at least every `heartbeat_s`, until the stream ends."""
        wanted = self._wanted
        said_at = time.monotonic()
        while True:
            async for kind, cursor, body in self._events():
                yield written(wanted.media_type, kind, str(cursor), body)
                said_at = time.monotonic()
            reason = await self._end()
            if reason is not None:
                yield written(wanted.media_type, "end", None, encode({"graph": wanted.graph, "reason": reason}))
                return
            left_s = said_at + heartbeat_s - time.monotonic()
            if left_s <= 0:
                yield HEARTBEATS[wanted.media_type]
                said_at, left_s = time.monotonic(), heartbeat_s
            await self._service.subscriptions.wait(left_s)

    async def _end(self) -> str | None:
        """Return why the stream ends now, None while it goes on."""
        service, graph = self._service, self._wanted.graph
        if service.subscriptions.draining:
            return "the service is stopped; connect again"
        if not await service.lets_stay(self._wanted.caller):
            return "the API key is not valid any more"
        if graph not in service.following.graphs and service.following.store_error is None:
            return "the graph is gone"
        return None

    async def _events(self) -> AsyncIterator[Event]:
        info = self._service.following.graphs.get(self._wanted.graph)
        if info is None or info.last_step_us is None:
            return
        try:
            if info != self._seen:
                view = await self._view(info)
                if view is None or not len(view.table):
                    return
                async for event in self._changes(view):
                    yield event
                self._seen = info if view.info == info else None
            async for event in self._forecasts():
                yield event
        except Problem as problem:
            # The store or the model has no answer now; nothing is lost, the next look asks again.
            _log.info("news of %s have to wait: %s", self._wanted.graph, problem)

    async def _view(self, info: GraphInfo) -> View | None:
        """Return the last steps, from where the subscriber stands on if that is not too far behind."""
        subscriptions, cursor = self._service.subscriptions, self._cursor
        view = await subscriptions.view(info)
        if view is None or not len(view.table) or cursor is None or _continues(view, cursor):
            return view
        if -view.row_of(cursor.start_us) > self._service.settings.api.max_page_rows:
            return view
        # Another process may have told the subscriber more than this one has read yet.
        return await subscriptions.view_from(info.name, min(cursor.start_us, view.start_us))

    async def _changes(self, view: View) -> AsyncIterator[Event]:
        """Yield what the subscriber does not have of a view, each event with the cursor behind it."""
        cursor, total = self._cursor, len(view.table)
        first, received, tag = total - 1, list[int](), ""
        if cursor is not None:
            tag = cursor.forecast
            if _overlaps(view, cursor):
                first, received = view.row_of(cursor.start_us), list(cursor.revisions)
            if not _continues(view, cursor):
                # Steps that are not told one by one were revised, too many were missed, or it is another log by now.
                self._cursor = _behind(view, first, received, tag)
                before = view.start_us + first * view.info.step_us
                body = encode({"graph": self._wanted.graph, "before": format_time(before)})
                yield "history", self._cursor, body
        for place, revision in enumerate(view.table.revision[first:].tolist()):
            if place < len(received):
                if received[place] == revision:
                    continue
                received[place] = revision
            else:
                received.append(revision)
            self._cursor = _behind(view, first, received, tag)
            yield "snapshot", self._cursor, view.snapshot(first + place, self._wanted.metrics)
        self._cursor = _behind(view, first, received, tag)

    async def _forecasts(self) -> AsyncIterator[Event]:
        wanted, service = self._wanted, self._service
        live = service.following.live(wanted.graph)
        if wanted.forecast is None or self._cursor is None:
            return
        if live is not None and live.key == self._forecast_of:
            return
        live, answer = await short_forecast(service, wanted.graph, wanted.forecast)
        self._forecast_of = live.key
        tag = answer.etag.strip('"')[:_TAG_DIGITS]
        if tag != self._cursor.forecast:
            self._cursor = replace(self._cursor, forecast=tag)
            yield "forecast", self._cursor, answer.body


def _overlaps(view: View, cursor: Cursor) -> bool:
    """Tell whether the steps that a cursor holds are in a view."""
    first = view.row_of(cursor.start_us)
    is_aligned = view.start_us + first * view.info.step_us == cursor.start_us
    return is_aligned and first >= 0 and first + len(cursor.revisions) <= len(view.table)


def _continues(view: View, cursor: Cursor) -> bool:
    """Tell whether all that is new in a view, to one who stands at a cursor, is new or revised steps in it."""
    if not _overlaps(view, cursor):
        return False
    first = view.row_of(cursor.start_us)
    now = view.table.revision[first : first + len(cursor.revisions)].tolist()
    is_later = all(revision >= known for revision, known in zip(now, cursor.revisions, strict=True))
    return is_later and view.older_events(first) == cursor.older_events


def _behind(view: View, first: int, received: list[int], tag: str) -> Cursor:
    """Return the cursor of a subscriber who has `received` the revisions of the rows from `first` on.

    Only rows that are as in the view are let go of: the others are among the last ones.
    """
    skip = max(0, len(received) - WINDOW_STEPS)
    start_us = view.start_us + (first + skip) * view.info.step_us
    return Cursor(start_us, view.older_events(first + skip), tuple(received[skip:]), tag)
