"""Log lines: one a record, with the time in UTC, at the level asked for."""

import io
import logging
import re
import warnings
from collections.abc import Iterator

import httpx
import pytest

from infra.telemetry import configure_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_line() -> None:
    stream = io.StringIO()
    configure_logging(logging.INFO, stream=stream)
    logging.getLogger("stream.ingest").info("closed %d steps", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info stream\.ingest: closed 3 steps\n", stream.getvalue())


def test_level_and_second_call() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(logging.INFO, stream=first)
    configure_logging(logging.WARNING, stream=second)
    logging.getLogger("x").info("no")
    logging.getLogger("x").warning("yes")
    assert first.getvalue() == ""
    assert second.getvalue().endswith("warning x: yes\n")


def test_addresses_that_are_asked_stay_out_of_the_log() -> None:
    stream = io.StringIO()
    configure_logging(logging.INFO, stream=stream)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.get("http://ada:hush@h.example/hook/hush")
    assert stream.getvalue() == ""


def test_warnings_become_lines() -> None:
    stream = io.StringIO()
    configure_logging(logging.WARNING, stream=stream)
    warnings.warn("old habit", stacklevel=1)
    assert "warning py.warnings:" in stream.getvalue()
    assert "old habit" in stream.getvalue()
