"""What may work beside ingestion on what it commits: the projection, the delivery of dead letters."""

from typing import Protocol

from stream.store.writer import StoreWriter


class Companion(Protocol):
    """Works beside ingestion on what it commits, such as a projection, and has its own progress committed with it."""

    def has_news(self) -> bool:
        """Return whether there is anything to commit."""
        ...

    def commit(self, writer: StoreWriter) -> None:
        """Change the store by what is new, inside a transaction."""
        ...

    def committed(self) -> None:
        """Be told that a transaction was committed."""
        ...
