"""The contract of every store, over SQLite."""

from pathlib import Path

import pytest

from tests.unit.stream import outgoing_contract, store_contract


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


class TestOutbox(outgoing_contract.OutboxContract):
    pass


class TestDeadLetters(outgoing_contract.DeadLetterContract):
    pass


class TestErasure(outgoing_contract.ErasureContract):
    pass
