"""The general model is tried before the first request; where it cannot be used, the service answers without it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forecasting.api import service, warming
from forecasting.api.service import Service
from infra.settings import Settings
from models import futures
from models.checkpoint import CARD_NAME
from models.contract import PathChunk


def test_nobody_is_answered_before_the_model_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def warm_up() -> None:
        # Longer than the first look at a store that is not there.
        time.sleep(0.3)
        tried.append(True)

    monkeypatch.setattr(service, "warm_up", warm_up)
    settings = Settings(
        store={"url": f"sqlite:///{tmp_path}/store.db"},
        api={"service_db": tmp_path / "service.db"},  # type: ignore[arg-type]
    )

    async def run() -> None:
        async with Service.running(settings):
            assert tried

    asyncio.run(run())


def test_warming_up_forecasts_with_the_general_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def roll_out(*given: Any, **more: Any) -> Iterator[PathChunk]:
        asked.append(given[0].name)
        return futures.roll_out(*given, **more)

    monkeypatch.setattr(warming, "roll_out", roll_out)
    warming.warm_up()
    assert asked == ["mamba2-general"]
    assert not caplog.records


@pytest.mark.parametrize("card", [None, "{", "{}"])
def test_a_general_model_that_cannot_be_used_is_told_of_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, card: str | None
) -> None:
    if card is not None:
        (tmp_path / CARD_NAME).write_text(card)
    monkeypatch.setattr(warming, "general_folder", lambda: tmp_path)
    warming.warm_up()
    # That there is none is said by /health.
    assert ["cannot be used" in record.message for record in caplog.records] == ([] if card is None else [True])
