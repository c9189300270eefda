"""Keys: what they allow, what is kept of them, how they end."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from forecasting.keys import ANYONE, KeyRing, Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError, UsageError


@pytest.fixture
def file(service_db: Path | str) -> Iterator[ServiceFile]:
    with ServiceFile(service_db) as opened:
        yield opened


def test_a_key_allows_its_scope_on_its_graphs_only(file: ServiceFile) -> None:
    key, _ = Keys(file).create("k", Scope.WRITE, ["toy", "shop.*"])
    assert key.allows(Scope.READ, "toy")
    assert key.allows(Scope.WRITE, "shop.eu")
    assert not key.allows(Scope.ADMIN, "toy")
    for graph in ("toy2", "to", "shop", "*", ""):
        assert not key.allows(Scope.READ, graph), graph
    assert Keys(file).create("all", Scope.READ, ["*"])[0].sees("*")


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
    assert KeyRing(keys, refresh_s=0).caller(None) is ANYONE
    _, token = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=0)
    caller = ring.caller(token)
    assert caller is not None
    assert caller.name == "k"
    for wrong in (None, "", "x", token[:-1], token + "x", token[:-1] + ("A" if token[-1] != "A" else "B")):
        assert ring.caller(wrong) is None
    keys.revoke("k")
    assert ring.caller(token) is None
    assert ring.caller(None) is None


def test_rotation_ends_the_old_token(file: ServiceFile) -> None:
    keys = Keys(file)
    _, old = keys.create("k", Scope.READ, ["toy"])
    key, new = keys.rotate("k")
    ring = KeyRing(keys, refresh_s=0)
    assert ring.caller(old) is None
    found = ring.caller(new)
    assert found is not None
    assert found.id == key.id


def test_an_unknown_id_with_the_secret_of_another_is_refused(file: ServiceFile) -> None:
    keys = Keys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    assert KeyRing(keys, refresh_s=0).caller(f"gt_{'0' * 12}_{token.split('_', 2)[2]}") is None


def test_keys_are_read_again_only_when_old(file: ServiceFile) -> None:
    keys = Keys(file)
    _, token = keys.create("k", Scope.READ, ["toy"])
    ring = KeyRing(keys, refresh_s=3600)
    assert ring.caller(token) is not None
    keys.revoke("k")
    assert ring.caller(token) is not None


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
