"""Whether what waits in a spool mentions a node that is to be erased: ingestion would bring the name back."""

from pathlib import Path

from stream.spool.file import Spool
from stream.store.mention import Mention

_PAGE_RECORDS = 10_000


def waiting_mentions(path: Path, mention: Mention) -> int:
    """Return how many requests that wait in the spool at `path`, which need not be there, mention a name.

    Raises:
        StoreError: the file cannot be read, or is no spool.
    """
    if not path.exists():
        return 0
    found = number = 0
    with Spool(path) as spool:
        while requests := spool.waiting(number, _PAGE_RECORDS):
            found += sum(mention.among(*request.records) for request in requests)
            number = requests[-1].number
    return found
