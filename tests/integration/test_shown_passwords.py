"""No command shows the password in the address of a store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.store import open_writer
from tests.conftest import Ran

Cli = Callable[..., Ran]


@pytest.fixture
def secret_url(postgres_url: str) -> str:
    return postgres_url.replace("graphtide@", "graphtide:hush@")


def test_commands_that_name_the_store_do_not_show_it(
    graphtide: Cli, secret_url: str, toy_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = secret_url.replace("graphtide:hush@", "")
    open_writer(secret_url).close()
    told = [graphtide("graphs", "--store", secret_url)]
    assert f"The store {name} has no graph yet" in told[-1].err
    told.append(graphtide("store", "project", "--off", "--store", secret_url))
    assert name in told[-1].err
    assert graphtide("store", "backup", "backup", "--store", toy_store).code == 0
    told.append(graphtide("store", "restore", "backup", "--store", secret_url))
    assert name in told[-1].err
    Path("events.ndjson").write_text(json.dumps({"src": "a", "dst": "b", "ts": 1_600_000_000}) + "\n")
    told.append(graphtide("ingest", "events.ndjson", "--store", secret_url))
    told.append(graphtide("erase", "toy", "nobody", "--store", secret_url))
    for ran in told:
        assert ran.code == 0, ran.err
        assert "hush" not in ran.out + ran.err
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", secret_url)
    doctor = graphtide("doctor")
    assert name in doctor.out
    assert "hush" not in doctor.out + doctor.err


def test_serve_does_not_show_it(graphtide: Cli, secret_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(_settings: object, *, on_ready: Callable[[str], None], **_: Any) -> None:
        on_ready("http://127.0.0.1:1")

    monkeypatch.setattr("forecasting.api.server.serve", serve)
    ran = graphtide("serve", "--store", secret_url)
    assert ran.code == 0
    assert "Serving postgresql://127.0.0.1" in ran.err
    assert "hush" not in ran.out + ran.err
