"""The contract of every store, over SQLite."""

from pathlib import Path

import pytest

from tests.unit.stream import store_contract


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


class TestSources(store_contract.SourceContract):
    pass


class TestDictionary(store_contract.DictionaryContract):
    pass


class TestSteps(store_contract.StepContract):
    pass


class TestEventIds(store_contract.EventIdContract):
    pass


class TestOutbox(store_contract.OutboxContract):
    pass
