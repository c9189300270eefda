"""Items made by another thread come in their order, with their errors, and no further than asked for."""

import threading
from collections.abc import Iterator

import pytest

from infra.ahead import ahead


def test_all_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def made() -> Iterator[int | None]:
        for number in range(50):
            threads.add(threading.get_ident())
            yield None if number == 7 else number

    assert list(ahead(made())) == [*range(7), None, *range(8, 50)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_comes_where_it_happened() -> None:
    def made() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    items = ahead(made())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no second"):
        next(items)


def test_who_stops_early_costs_one_item_at_most() -> None:
    made: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = ahead(counted())
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 3
