"""Probes and scrapes ask the service's file beside the event loop, which answers others meanwhile."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

from starlette.requests import Request

from forecasting.api.health import checks, metrics
from forecasting.api.service import Service
from forecasting.keys import ANYONE


class Slow:
    """A file that answers once something else has happened on the event loop."""

    def __init__(self) -> None:
        self.others_went_on = threading.Event()
        self.was_held_up = False

    def rows(self, _sql: str) -> list[Any]:
        self.was_held_up = not self.others_went_on.wait(2)
        return []

    def exposition(self) -> bytes:
        self.rows("")
        return b"meters"


def service_over(slow: Slow) -> Service:
    parts = {
        "file": slow,
        "telemetry": slow,
        "following": SimpleNamespace(store_error=None, is_alive=lambda: True),
        "patience": SimpleNamespace(is_away=False),
        "computing": SimpleNamespace(shared=None),
        "settings": SimpleNamespace(api=SimpleNamespace(require_gpu=False)),
    }
    return cast(Service, SimpleNamespace(**parts))


async def beside_others(slow: Slow, asked: Any) -> Any:
    asking = asyncio.ensure_future(asked)
    await asyncio.sleep(0.05)
    slow.others_went_on.set()
    return await asking


def test_a_check_of_a_file_that_hangs_holds_up_nobody() -> None:
    slow = Slow()
    found, failed = asyncio.run(beside_others(slow, checks(service_over(slow))))
    assert found["service_file_open"]
    assert not failed
    assert not slow.was_held_up


def test_a_scrape_of_a_file_that_hangs_holds_up_nobody() -> None:
    slow = Slow()
    request = Request({"type": "http", "query_string": b"", "headers": []})
    answer = asyncio.run(beside_others(slow, metrics(request, service_over(slow), ANYONE)))
    assert answer.body == b"meters"
    assert not slow.was_held_up
