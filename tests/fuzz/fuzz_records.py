"""Fuzz a decoder with atheris: `python -m tests.fuzz.fuzz_records FORMAT [--runs N] [--seed N]`.

FORMAT is one of the formats of records, `avro` (framed), `orders` (a format of a user), or `file:FORMAT` for a
decoder of files; `all` runs each in a process of its own. A failure ends with libFuzzer's report and the bytes in a
file `crash-…`. Needs `pip install atheris`, on Linux or macOS.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

import atheris

# An editable installation has an importer of its own, whose modules atheris cannot follow: it would fuzz blindly.
sys.meta_path.sort(key=lambda finder: finder is not PathFinder)

with atheris.instrument_imports(include=["stream"]):
    from tests.fuzz.invariants import (
        FILE_FORMATS,
        FORMATS,
        as_bytes,
        check_file,
        check_records,
        decoder,
        outcome,
        records_of,
    )
from tests.fuzz.samples import samples  # noqa: E402

_FILE = "file:"
# A decoder is used for this many inputs before a fresh one takes over, so that what it keeps stays small.
_USES = 1000
# One input in so many is decoded by fresh decoders too, which takes most of the time.
_COMPARED = 8


def main() -> int:
    """Run what the command line says."""
    targets = [*FORMATS, *(_FILE + name for name in FILE_FORMATS)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("format", choices=[*targets, "all"])
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of each format")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations; 0 takes another each time")
    arguments = parser.parse_args()
    if arguments.format == "all":
        given = ["--runs", str(arguments.runs), "--seed", str(arguments.seed)]
        ended = [subprocess.call([sys.executable, "-m", "tests.fuzz.fuzz_records", name, *given]) for name in targets]
        return max(ended)
    with tempfile.TemporaryDirectory() as corpus:
        _write_samples(arguments.format, Path(corpus))
        options = [f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-max_len=4096", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, corpus], _target(arguments.format))
        atheris.Fuzz()
    return 0


def _write_samples(name: str, folder: Path) -> None:
    of_file = name.startswith(_FILE)
    records = samples("ndjson") + samples("json") if of_file else samples(name)
    texts = [record.value or b"" if of_file else as_bytes(record) for record in records]
    if of_file:
        texts += [b"src,dst,ts\na,b,1\nc,d,2\n", b"a b 1\nc d 2\n", b"src\tdst\tts\na\tb\t2026-01-01\n"]
    for at, text in enumerate(texts):
        (folder / f"sample-{at}").write_bytes(text)


class _Target:
    def __init__(self, name: str) -> None:
        self._name = name
        self._uses = 0
        self._used = decoder(name)

    def __call__(self, data: bytes) -> None:
        self._uses += 1
        if self._uses % _USES == 0:
            self._used = decoder(self._name)
        records = records_of(data)
        if self._uses % _COMPARED:
            outcome(records, self._used)
        else:
            check_records(records, self._name, self._used)


def _target(name: str):  # type: ignore[no-untyped-def]  # atheris is untyped
    if name.startswith(_FILE):
        file_format = name.removeprefix(_FILE)
        return lambda data: check_file(data, file_format)
    return _Target(name)


if __name__ == "__main__":
    sys.exit(main())
