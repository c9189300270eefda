"""Which schemas of a store this version can use, and what to do about others."""

from infra.errors import StoreError
from stream.store.sql.tables import STORE_SCHEMA


def check_schema(schema: int, name: str) -> None:
    """Make sure that a store has the schema of this version.

    Raises:
        StoreError: it has another one; the message says whether to migrate the store or to upgrade.
    """
    if schema > STORE_SCHEMA:
        raise newer(name, schema, STORE_SCHEMA)
    if schema < STORE_SCHEMA:
        raise StoreError(
            f"the store {name} has schema {schema}; this version of graphtide keeps schema {STORE_SCHEMA}",
            fix="bring it to that schema, with a backup: graphtide store migrate",
        )


def newer(name: str, schema: int, ours: int) -> StoreError:
    """Return the StoreError of a store that a newer version has written."""
    return StoreError(
        f"the store {name} has schema {schema}; this version of graphtide keeps schema {ours}",
        fix="upgrade graphtide, or name another store with --store",
    )
