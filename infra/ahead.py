"""Computing what comes next on another core while what came is still being used."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items in their order, the next one made by a thread of its own meanwhile.

    It pays where items are made by what lets other threads run (numpy, torch). At most one item is made in vain when
    the caller stops early.
    """
    made, end = iter(items), object()
    with ThreadPoolExecutor(1, "graphtide-ahead") as thread:
        coming = thread.submit(next, made, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, made, end)
            yield item  # type: ignore[misc]
