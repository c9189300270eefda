"""Settings on their way to a process beside the service: all of them, but for the secrets."""

import json

import pytest

from forecasting.worker_process import without_secrets
from infra.settings import Settings
from stream.store.influx.address import TOKEN_VARIABLE, address_of_url


def test_a_worker_finds_the_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "right")
    settings = Settings(
        influxdb={"token": "right", "timeout_s": 3},  # type: ignore[arg-type]
        cache={"redis_password": "hidden"},  # type: ignore[arg-type]
    )
    told = json.dumps(without_secrets(settings))
    assert "right" not in told
    assert "hidden" not in told
    assert "*" not in told.replace('["*"]', "")
    there = Settings(**json.loads(told))
    assert address_of_url("influxdb://h:1/o/b", there.influxdb).token == "right"
    assert there.influxdb.timeout_s == 3


def test_everything_else_arrives() -> None:
    settings = Settings(api={"port": 1}, jobs={"chunk_steps": 7})  # type: ignore[arg-type]
    assert Settings(**json.loads(json.dumps(without_secrets(settings)))) == settings
