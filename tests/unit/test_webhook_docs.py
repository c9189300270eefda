"""The receiver that `docs/webhooks.md` shows takes what Graphtide signs, and nothing else."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting.reports.targets.webhook import signature
from tests.docs_blocks import blocks_of

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
BODY = b'{"graph": "town"}'


@pytest.fixture(scope="module")
def is_genuine() -> Callable[[str, str, bytes], bool]:
    (block,) = [block for block in blocks_of(PAGE.read_text()) if block.file_name]
    names: dict[str, object] = {}
    exec(block.text, names)
    found = names["is_genuine"]
    assert callable(found)
    return found


def test_what_was_signed_is_genuine(is_genuine: Callable[[str, str, bytes], bool]) -> None:
    assert is_genuine("secret", signature("secret", int(time.time()), BODY), BODY)


def test_what_was_not_is_refused(is_genuine: Callable[[str, str, bytes], bool]) -> None:
    now = int(time.time())
    good = signature("secret", now, BODY)
    assert not is_genuine("another", good, BODY)
    assert not is_genuine("secret", good, BODY + b" ")
    assert not is_genuine("secret", signature("secret", now - 3600, BODY), BODY)
    for header in ("", "t=", "t=x,v1=y", f"t={now}", f"t={now},v1=", "v1=00", good.replace("v1=", "v2=")):
        assert not is_genuine("secret", header, BODY), header
