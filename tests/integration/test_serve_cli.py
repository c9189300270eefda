"""`graphtide keys` and what `graphtide serve` refuses."""

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from forecasting.cli.engines import Engine
from tests.conftest import Ran

Cli = Callable[..., Ran]
TOKEN = re.compile(r"gt_[0-9a-f]{12}_[\w-]{43}\n")


def test_a_key_from_its_making_to_its_end(graphtide: Cli) -> None:
    made = graphtide("keys", "create", "dashboard", "--graph", "toy", "--graph", "shop.*", "--scope", "write")
    assert made.code == 0
    assert TOKEN.fullmatch(made.out)
    assert "shown once" in made.err
    rotated = graphtide("keys", "rotate", "dashboard")
    assert TOKEN.fullmatch(rotated.out)
    assert rotated.out != made.out
    (listed,) = json.loads(graphtide("keys", "list", "--json").out)
    assert (listed["name"], listed["scope"], listed["graphs"]) == ("dashboard", "write", ["toy", "shop.*"])
    assert listed["revoked"] is None
    assert graphtide("keys", "revoke", "dashboard").code == 0
    table = graphtide("keys", "list")
    assert "dashboard" in table.out
    assert made.out.strip().split("_", 2)[2] not in table.out


@pytest.mark.parametrize(
    "arguments", [("create", "x"), ("create", "x", "--graph", "A b"), ("revoke", "nobody"), ("rotate", "nobody")]
)
def test_mistakes_with_keys_are_wrong_usage(graphtide: Cli, arguments: tuple[str, ...]) -> None:
    ran = graphtide("keys", *arguments)
    assert ran.code == 2
    assert "fix:" in ran.err
    assert ran.out == ""


def test_serve_does_not_listen_beyond_this_machine_without_keys(graphtide: Cli) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.test"):
        ran = graphtide("serve", "--host", host, "--port", "0")
        assert ran.code == 2
        assert "there is no API key" in ran.err
        assert "graphtide keys create" in ran.err


def test_serve_names_a_port_that_is_taken(graphtide: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = graphtide("serve", "--port", taken.getsockname()[1])
    assert ran.code == 2
    assert "cannot listen on 127.0.0.1" in ran.err


def test_serve_names_a_file_that_is_not_its_own(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("notes.txt").write_text("not a database " * 100)
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "notes.txt")
    ran = graphtide("serve", "--port", "0")
    assert ran.code == 1
    assert "[api] service_db" in ran.err
    assert "Traceback" not in ran.err


def test_ctrl_c_meanwhile_waits_for_the_imports(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[Engine] = []

    def interrupted(engine: Engine) -> Callable[..., None]:
        signal.raise_signal(signal.SIGINT)
        imported.append(engine)
        return lambda *_, **__: pytest.fail("it was served")

    monkeypatch.setattr("forecasting.cli.serve._server", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ran = graphtide("serve", "--port", "0")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ran.code, imported) == (130, [Engine.LOCAL])


def test_serve_whose_processes_cannot_start_fails(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_JOBS__WORKERS", "0")
    ended = SimpleNamespace(run=lambda: None, ended_by=None)
    monkeypatch.setattr("forecasting.api.server.Supervisor", lambda *_, **__: ended)
    ran = graphtide("serve", "--port", "0", "--workers", "2")
    assert ran.code == 1
    assert "the service could not start" in ran.err
