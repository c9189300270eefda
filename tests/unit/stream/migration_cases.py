"""Stores of every schema that there was, and the logs that they were written from.

`schemas/store-N.sql` is the dump of a store that the code of schema N wrote, with `{folder}` for the folder of the
logs: `town.ndjson`, followed up to its 120th line with 60 s out of order, and `club.ndjson`, read to its end with a
graph for each event type. A new schema brings its own: `python -m tests.unit.stream.migration_cases` writes it.
"""

import json
import random
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from stream.decoders.builder import DecodeOptions
from stream.sources.files import FileSource
from stream.sources.follow import FollowSource
from stream.sources.single import SinglePartition
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sqlite_file import APPLICATION_ID
from tests.unit.stream.ingest_cases import ingest_list

OUT_OF_ORDER_US = 60_000_000
DUMPS = Path(__file__).parent / "schemas"
BEGIN_S = 1_600_000_000
TOWN_LINES, CLUB_LINES, READ_LINES = 180, 60, 120


def log_lines(count: int, draw: random.Random) -> list[str]:
    """Return events of some days, a few of them late, and a line that is none."""
    now_s = BEGIN_S
    lines = []
    for _ in range(count):
        now_s += int(draw.expovariate(1 / 900))
        event = {
            "src": f"u{int(30 * draw.random() ** 2)}",
            "dst": f"u{int(30 * draw.random() ** 2)}",
            "ts": now_s - draw.choice((0,) * 19 + (9000,)),
            "type": draw.choice(("follow", "reply")),
        }
        lines.append(json.dumps(event))
    lines[5] = '{"src": "broken"'
    return lines


def write_logs(folder: Path) -> tuple[Path, list[str]]:
    """Write both logs, the longer one up to where the stores have read it; return it and the rest of its lines."""
    draw = random.Random(1)
    town, club = log_lines(TOWN_LINES, draw), log_lines(CLUB_LINES, draw)
    (folder / "town.ndjson").write_text("".join(f"{line}\n" for line in town[:READ_LINES]))
    (folder / "club.ndjson").write_text("".join(f"{line}\n" for line in club))
    return folder / "town.ndjson", town[READ_LINES:]


def write_store(path: Path, schema: int, logs: Path) -> None:
    """Write the store that the code of a schema wrote from the logs."""
    dump = (DUMPS / f"store-{schema}.sql").read_text().replace("{folder}", str(logs))
    connection = sqlite3.connect(path)
    connection.executescript(dump)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {schema}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def ingest_logs(folder: Path, store: Path) -> None:
    """Bring what there is of both logs into a store, from where it stands."""
    town = FollowSource(
        folder / "town.ndjson", DecodeOptions(graph="town"), poll_interval_s=0.001, stop=_stop_after(20)
    )
    ingest_list(SinglePartition(town), store, out_of_orderness_us=OUT_OF_ORDER_US)
    club = FileSource(folder / "club.ndjson", DecodeOptions(graph="club"))
    ingest_list(SinglePartition(club), store, split_by_type=True)


def _stop_after(looks: int) -> Callable[[], bool]:
    left = looks

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return stop


def write_dump() -> None:
    """Write the dump of a store of today's schema."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder)
        ingest_logs(folder, folder / "store.db")
        with closing(sqlite3.connect(folder / "store.db")) as connection:
            dump = "\n".join(connection.iterdump()).replace(str(folder.resolve()), "{folder}")
    (DUMPS / f"store-{STORE_SCHEMA}.sql").write_text(dump + "\n")


if __name__ == "__main__":
    write_dump()
