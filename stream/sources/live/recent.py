"""Which messages came last: what a server repeats after a reconnection is told from what is new."""

import hashlib
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Iterable

DIGEST_BYTES = 8


class Recent:
    """The identities of the last messages, as digests of 64 bits.

    Two of some thousand identities share a digest with a probability of about 10^-13.

    Args:
        limit: how many are remembered.
        text: those of an earlier run, as `text()` gave them.
        at_us: a time that none of those is after.

    Raises:
        ValueError: the text is none that `text()` gave.
    """

    def __init__(self, limit: int, text: str = "", at_us: int = 0) -> None:
        self._limit = limit
        digests = b64decode(text, validate=True)
        if len(digests) % DIGEST_BYTES:
            raise ValueError("not a whole number of digests")
        each = (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
        self._at_us: OrderedDict[bytes, int] = OrderedDict((digest, at_us) for digest in each)
        self.forgotten_us = -1
        self._forget()

    def __len__(self) -> int:
        return len(self._at_us)

    def add(self, identity: Iterable[bytes], at_us: int = 0) -> bool:
        """Remember a message by the parts of its identity; return whether it is new.

        The oldest one is forgotten where there are too many; `forgotten_us` is the latest time of all forgotten.
        """
        digest = hashlib.blake2b(b"\0".join(identity), digest_size=DIGEST_BYTES).digest()
        if digest in self._at_us:
            return False
        self._at_us[digest] = at_us
        self._forget()
        return True

    def text(self) -> str:
        """Return the digests, the oldest first, as text."""
        return b64encode(b"".join(self._at_us)).decode()

    def _forget(self) -> None:
        while len(self._at_us) > self._limit:
            _, at_us = self._at_us.popitem(last=False)
            self.forgotten_us = max(self.forgotten_us, at_us)
