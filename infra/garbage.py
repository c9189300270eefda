"""Python's search for cycles of dead objects, made rarer for work that makes many objects and few cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Fewer cost time, more leave dead batches in memory: frames of kafka-python's exceptions hold them in cycles.
OBJECTS = 10_000


@contextmanager
def rare_collections(objects: int = OBJECTS) -> Iterator[None]:
    """Search only when `objects` more were made than freed, and never among those that are there already.

    By itself Python searches after 700, and then goes through all records of a batch again and again.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(objects, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
