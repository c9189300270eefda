"""Marks among the enabled projections: where each writes to, and the identity of the store.

They stand as names in the table `projections`, so that they are copied and backed up with it; no projection has such a
name, and none is noted for.
"""

import secrets
from collections.abc import Iterable

PROJECTIONS = "SELECT name FROM projections ORDER BY name"
_SIGN = "@"
_STORE = "store" + _SIGN


def is_mark(name: str) -> bool:
    """Tell whether a name is a mark, and no projection."""
    return _SIGN in name


def place_mark(projection: str, place: str = "") -> str:
    """Return the mark of a projection that writes to a place; what all of the projection's begin with without one."""
    return f"{projection}{_SIGN}{place}"


def new_store_mark() -> str:
    """Return the mark of a new identity of a store."""
    return _STORE + secrets.token_hex(8)


def store_id_of(names: Iterable[str]) -> str:
    """Return the identity among names, "" if there is none."""
    return next((name.removeprefix(_STORE) for name in names if name.startswith(_STORE)), "")
