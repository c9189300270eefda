"""Answers of InfluxDB that break off: told as a failure of the server or the connection, tried again, never taken."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tenacity import wait_none

from infra.errors import StoreError
from stream.store.influx.address import InfluxAddress
from stream.store.influx.patience import Patience
from stream.store.influx.points import FACT_FIELDS
from stream.store.influx.reader import InfluxSnapshots

NONE = b"\r\n"
HEADER = f",result,table,{','.join(FACT_FIELDS)},graph\r\n".encode()
ROWS = [f",_result,0,{','.join('7' for _ in FACT_FIELDS)},{graph}\r\n".encode() for graph in ("town", "toy")]
WHOLE = b"".join((HEADER, *ROWS, b"\r\n"))
ERROR = b'\r\nerror,reference\r\n"out of memory, as secret\nsaid",897\r\n'

BROKEN = {
    "in a line": (WHOLE[: -len(ROWS[1])], "closed in the middle of the answer"),
    "between lines": (HEADER + ROWS[0], "closed in the middle of the answer"),
    "before the first line": (b"", "closed in the middle of the answer"),
    "by an error": (HEADER + ROWS[0] + ERROR, 'it failed while it answered: "out of memory, as … said",897'),
    "by an error of another form": (
        HEADER + ROWS[0] + b"\r\n,error,reference\r\n,out of memory,\r\n\r\n",
        "it failed while it answered: out of memory",
    ),
    "by an error at once": (ERROR.lstrip(), 'it failed while it answered: "out of memory'),
}


class Answering:
    """An HTTP server that gives `answers` one after another, then the last again.

    Their ends are those of the connections, as behind proxies that pass on no length.
    """

    def __init__(self) -> None:
        self.answers = [NONE]
        self.asked = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(fake.answers[min(fake.asked, len(fake.answers) - 1)])
                fake.asked += 1

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def influx() -> Iterator[Answering]:
    fake = Answering()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


@pytest.fixture
def reader(influx: Answering) -> Iterator[InfluxSnapshots]:
    address = InfluxAddress(url=influx.url, org="o", bucket="b", token="secret", timeout_s=5)
    with InfluxSnapshots(address, Patience(3, wait_none())) as reader:
        influx.asked = 0
        yield reader


@pytest.mark.parametrize("how", BROKEN)
def test_an_answer_that_breaks_off_is_asked_for_again(influx: Answering, reader: InfluxSnapshots, how: str) -> None:
    broken, said = BROKEN[how]
    influx.answers = [broken, WHOLE]
    assert [info.name for info in reader.graphs()] == ["town", "toy"]
    assert influx.asked == 2
    influx.answers, influx.asked = [broken], 0
    with pytest.raises(StoreError) as caught:
        reader.graphs()
    assert caught.value.message.startswith(f"cannot read bucket 'b' of InfluxDB at {influx.url}: ")
    assert said in caught.value.message
    assert influx.asked == 3


def test_what_is_foreign_is_said_at_once(influx: Answering, reader: InfluxSnapshots) -> None:
    influx.answers = [b",result,table,some,error,reference\r\n,_result,0,1,2,3\r\n\r\n"]
    with pytest.raises(StoreError, match="something else than was written"):
        reader.graphs()
    assert influx.asked == 1
