"""The ways from each schema of a store to the next, one file each, in order.

A step is written once and then left alone: it says in its own words what the schemas were, and takes nothing from the
code that goes on changing. All steps of a migration are one transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream.store.migrations import to_2
from stream.store.migrations.running import Execute


@dataclass(frozen=True, slots=True)
class Step:
    """The way from one schema to the next.

    Attributes:
        to: the schema that it leads to, one above the schema that it begins with.
        sqlite, postgres: changes the tables, inside a transaction; None where no such store ever had that schema.
    """

    to: int
    sqlite: Callable[[Execute], None] | None
    postgres: Callable[[Execute], None] | None


# PostgreSQL came with schema 2.
STEPS: Sequence[Step] = (Step(2, to_2.migrate_sqlite, None),)
