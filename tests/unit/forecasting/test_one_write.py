"""What is written leaves in order, the head with its body, and nothing waits longer than a turn of the loop."""

import asyncio
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from forecasting.api.one_write import Pairing


class Wire(asyncio.Transport):
    """Notes what leaves, a list a system call."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.is_closed = True


def test_the_head_leaves_with_the_body() -> None:
    async def answer() -> Wire:
        wire = Wire()
        pairing = Pairing(wire, asyncio.get_running_loop())
        pairing.write(b"head")
        assert wire.sent == []
        pairing.write(b"body")
        assert wire.sent == [b"headbody"]
        await asyncio.sleep(0)
        return wire

    assert asyncio.run(answer()).sent == [b"headbody"]


@given(writes=st.lists(st.one_of(st.binary(max_size=3), st.none())), closes=st.booleans())
def test_all_leaves_in_order_within_a_turn(writes: list[bytes | None], closes: bool) -> None:
    async def answer() -> Wire:
        wire = Wire()
        pairing = Pairing(wire, asyncio.get_running_loop())
        written = b""
        for data in writes:
            if data is None:
                await asyncio.sleep(0)
                assert b"".join(wire.sent) == written
            else:
                pairing.write(data)
                written += data
        if closes:
            pairing.close()
        await asyncio.sleep(0)
        return wire

    wire = asyncio.run(answer())
    assert b"".join(wire.sent) == b"".join(data for data in writes if data)
    assert wire.is_closed == closes
