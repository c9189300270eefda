"""Keys: what they allow, what is kept of them, how they end."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from forecasting.bookkeeping.base import Connection
from forecasting.keys import ANYONE, Key, KeyRing, Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError, UsageError


@pytest.fixture
def file(service_db: Path | str) -> Iterator[ServiceFile]:
    with ServiceFile(service_db) as opened:
        yield opened


def test_a_key_has_its_scope_and_sees_its_graphs_only(file: ServiceFile) -> None:
    key, _ = Keys(file).create("k", Scope.WRITE, ["toy", "shop.*"])
    assert Scope.READ < key.scope < Scope.ADMIN
    assert key.sees("toy")
    assert key.sees("shop.eu")
    for graph in ("toy2", "to", "shop", "*", ""):
        assert not key.sees(graph), graph
    assert Keys(file).create("all", Scope.READ, ["*"])[0].sees("*")


def caller_of(ring: KeyRing, token: str | None) -> Key | None:
    return asyncio.run(ring.caller(token))


def test_no_secret_is_in_the_file_which_its_owner_alone_can_read(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "service.db"
    with ServiceFile(place) as file:
        _, token = Keys(file).create("k", Scope.READ, ["toy"])
        secret = token.split("_", 2)[2]
        content = b"".join(path.read_bytes() for path in place.parent.iterdir())
    assert secret.encode() not in content
    assert place.stat().st_mode & 0o077 == 0


def test_without_keys_anyone_is_welcome_and_after_the_last_nobody(file: ServiceFile) -> None:
    keys = Keys(file)
    assert caller_of(KeyRing(keys, refresh_s=0), None) is ANYONE
    _, token = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=0)
    caller = caller_of(ring, token)
    assert caller is not None
    assert caller.name == "k"
    for wrong in (None, "", "x", token[:-1], token + "x", token[:-1] + ("A" if token[-1] != "A" else "B")):
        assert caller_of(ring, wrong) is None
    keys.revoke("k")
    assert caller_of(ring, token) is None
    assert caller_of(ring, None) is None


@pytest.mark.parametrize("change", [Keys.rotate, Keys.revoke])
def test_a_key_that_was_just_revoked_is_not_changed(
    file: ServiceFile, monkeypatch: pytest.MonkeyPatch, change: Callable[[Keys, str], object]
) -> None:
    keys, transaction = Keys(file), file.transaction
    keys.create("k", Scope.READ, ["toy"])

    def after_another() -> AbstractContextManager[Connection]:
        monkeypatch.setattr(file, "transaction", transaction)
        keys.revoke("k")
        return transaction()

    monkeypatch.setattr(file, "transaction", after_another)
    with pytest.raises(UsageError, match="no valid key"):
        change(keys, "k")


def test_rotation_ends_the_old_token(file: ServiceFile) -> None:
    keys = Keys(file)
    _, old = keys.create("k", Scope.READ, ["toy"])
    key, new = keys.rotate("k")
    ring = KeyRing(keys, refresh_s=0)
    assert caller_of(ring, old) is None
    found = caller_of(ring, new)
    assert found is not None
    assert found.id == key.id


def test_whoever_was_let_in_may_go_on_until_the_key_or_its_secret_ends(file: ServiceFile) -> None:
    keys = Keys(file)
    _, old = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=0)
    before = caller_of(ring, old)
    assert before is not None
    assert asyncio.run(ring.holds(before))
    _, new = keys.rotate("k")
    after = caller_of(ring, new)
    assert after is not None
    assert not asyncio.run(ring.holds(before))
    assert asyncio.run(ring.holds(after))
    assert "digest" not in repr(before)
    assert before == after, "it is the same key still"
    keys.revoke("k")
    assert not asyncio.run(ring.holds(after))


def test_an_unknown_id_with_the_secret_of_another_is_refused(file: ServiceFile) -> None:
    keys = Keys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    assert caller_of(KeyRing(keys, refresh_s=0), f"gt_{'0' * 12}_{token.split('_', 2)[2]}") is None


def test_keys_are_read_again_only_when_old(file: ServiceFile) -> None:
    keys = Keys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=3600)
    assert caller_of(ring, token) is not None
    keys.revoke("k")
    assert caller_of(ring, token) is not None


class SlowKeys(Keys):
    """Keys that answer when they are let, and count how often they were asked."""

    def __init__(self, file: ServiceFile) -> None:
        super().__init__(file)
        self.go_on = threading.Event()
        self.asked = 0
        self.error: StoreError | None = None

    def valid(self) -> list[Key]:
        self.asked += 1
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error
        return super().valid()


def test_keys_that_are_slow_to_read_hold_up_nobody_else_and_are_read_once(file: ServiceFile) -> None:
    keys = SlowKeys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=3600)

    async def ask() -> None:
        waiting = [asyncio.create_task(ring.caller(token)) for _ in range(3)]
        # The loop goes on; had it been held up, nothing would ever let the keys answer.
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await asyncio.sleep(0)
        keys.go_on.set()
        callers = await asyncio.gather(*waiting[1:])
        assert [caller and caller.name for caller in callers] == ["k", "k"]

    asyncio.run(ask())
    assert keys.asked == 1


def test_keys_that_cannot_be_read_are_an_error_for_all_who_wait_and_asked_for_again(file: ServiceFile) -> None:
    keys = SlowKeys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    keys.go_on.set()
    keys.error = StoreError("away")
    ring = KeyRing(keys, refresh_s=3600)

    async def ask() -> None:
        failed = await asyncio.gather(ring.caller(token), ring.caller(token), return_exceptions=True)
        assert [type(error) for error in failed] == [StoreError, StoreError]
        assert keys.asked == 1
        keys.error = None
        assert await ring.caller(token) is not None

    asyncio.run(ask())


def test_mistakes_are_named(file: ServiceFile) -> None:
    keys = Keys(file)
    keys.create("k", Scope.READ, ["toy"])
    for name, graphs in (("k", ["toy"]), ("", ["toy"]), ("a\nb", ["toy"]), ("x", []), ("x", ["T oy"]), ("x", ["a*b"])):
        with pytest.raises(UsageError):
            keys.create(name, Scope.READ, graphs)
    keys.revoke("k")
    for end in (keys.revoke, keys.rotate):
        with pytest.raises(UsageError, match="no valid key"):
            end("k")
    with pytest.raises(UsageError, match="is revoked") as refused:
        keys.create("k", Scope.READ, ["toy"])
    # What is advised can be done.
    assert "rotate" not in str(refused.value)


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        ServiceFile(path)
    assert path.read_bytes() == before
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(StoreError):
        ServiceFile(tmp_path / "text")
