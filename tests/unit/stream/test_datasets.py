"""The known logs: found on disk, fetched from a server, and refused where they are not what they should be."""

import bz2
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from infra.errors import GraphtideError, InputError, UsageError
from infra.steps import parse_duration_us
from stream.decoders.builder import DecodeOptions
from stream.sources.datasets import DATASETS, DatasetInfo, dataset, find, find_local
from stream.sources.download import Download, fetch, jodie_row, pick
from stream.sources.files import FileSource


@dataclass
class Site:
    """A server on the loopback; `pages` maps a path to status, body and how many bytes too many it promises."""

    address: str
    pages: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def serve(self, path: str, body: bytes, *, status: int = 200, missing: int = 0) -> None:
        self.pages[path] = (status, body, missing)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.requests.append(self.path)
            status, body, missing = here.pages.get(self.path, (404, b"", 0))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


LOG = b"".join(b"%d %d %d\n" % (i % 7, i % 11, 1_000_000_000 + i) for i in range(20_000))


def fetch_log(site: Site, target: Path, *, expected: bytes = LOG, path: str = "/log.txt", **options: object) -> None:
    download = Download(url=f"http://publisher.invalid{path}", **options)  # type: ignore[arg-type]
    fetch(download, target, sha256=sha256(expected), by_hand="do it by hand", mirror=site.address, timeout_s=5)


def nothing_is_left(folder: Path) -> bool:
    return [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_file_is_fetched_and_put_in_place(site: Site, tmp_path: Path) -> None:
    site.serve("/log.txt", LOG)
    target = tmp_path / "cache" / "log" / "log.txt"
    steps: list[tuple[int, int | None]] = []
    fetch(
        Download(url="http://publisher.invalid/log.txt"),
        target,
        sha256=sha256(LOG),
        by_hand="",
        mirror=site.address,
        progress=lambda done, expected: steps.append((done, expected)),
    )
    assert target.read_bytes() == LOG
    assert [path.name for path in target.parent.iterdir()] == ["log.txt"]
    assert steps[-1] == (len(LOG), len(LOG))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    site.serve("/log.txt", b"/moved.txt", status=302)
    site.serve("/moved.txt", LOG)
    fetch_log(site, tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_bytes() == LOG


@pytest.mark.parametrize(
    ("setup", "complaint"),
    [
        (lambda site: site.serve("/log.txt", LOG[:-1]), "wrong digest"),
        (lambda site: site.serve("/log.txt", b""), "wrong digest"),
        (lambda site: None, "answered 404"),
        (lambda site: site.serve("/log.txt", b"down", status=503), "answered 503"),
        (lambda site: site.serve("/log.txt", LOG, missing=100), "download failed: peer closed"),
    ],
    ids=["changed", "empty", "not-found", "server-error", "cut-connection"],
)
def test_failures_name_place_and_fix_and_leave_nothing(
    site: Site, tmp_path: Path, setup: Callable[[Site], None], complaint: str
) -> None:
    setup(site)
    with pytest.raises(InputError, match=complaint) as caught:
        fetch_log(site, tmp_path / "log" / "log.txt")
    assert caught.value.place == f"{site.address}/log.txt"
    assert caught.value.fix == "do it by hand"
    assert nothing_is_left(tmp_path)


def test_an_older_file_survives_a_failure(site: Site, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("older")
    with pytest.raises(InputError):
        fetch_log(site, tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "older"


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    nobody = Site("http://127.0.0.1:1")
    with pytest.raises(InputError, match="download failed"):
        fetch_log(nobody, tmp_path / "log.txt")
    assert nothing_is_left(tmp_path)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="download failed"):
        fetch_log(Site("no address"), tmp_path / "log.txt")


def test_too_much_is_refused(site: Site, tmp_path: Path) -> None:
    site.serve("/log.txt", LOG)
    with pytest.raises(InputError, match="more than 100,000 bytes"):
        fetch_log(site, tmp_path / "log.txt", max_bytes=100_000)
    assert nothing_is_left(tmp_path)


def test_a_place_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    site.serve("/log.txt", LOG)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GraphtideError, match="cannot write"):
        fetch_log(site, tmp_path / "file" / "log.txt")


# Archives and other layouts.


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.html", "about")
        archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        for entry, content in (("set/README", b"about"), (f"set/{name}", data)):
            member = tarfile.TarInfo(entry)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


SERVED_ROWS = b"% a comment\n% src dst weight time\n1,2,5,100\n3 4 6 200\n\n5\t6\t7\t300\n"


@pytest.mark.parametrize(
    ("path", "pack"),
    [
        ("/rows.zip", lambda data: zipped("rows.edges", data)),
        ("/rows.tar.bz2", lambda data: tarred("rows.edges", data)),
        ("/rows.csv.gz", gzip.compress),
        ("/rows.csv", lambda data: data),
    ],
)
def test_rows_are_taken_out_of_any_packing(
    site: Site, tmp_path: Path, path: str, pack: Callable[[bytes], bytes]
) -> None:
    site.serve(path, pack(SERVED_ROWS))
    layouts = (
        ({"row": pick(0, 1, 3)}, b"1 2 100\n3 4 200\n5 6 300\n"),
        ({"row": pick(0, 1, 3), "ends_with_newline": False}, b"1 2 100\n3 4 200\n5 6 300"),
        (
            {"row": pick(3, 0, separator=","), "header": "t,u", "line_end": "\r\n"},
            b"t,u\r\n100,1\r\n200,3\r\n300,5\r\n",
        ),
    )
    for options, expected in layouts:
        fetch_log(site, tmp_path / "rows.txt", expected=expected, path=path, member="rows.edges", **options)
        assert (tmp_path / "rows.txt").read_bytes() == expected


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        ("/rows.zip", zipped("other.edges", SERVED_ROWS), "holds no rows.edges"),
        ("/rows.tar.bz2", tarred("other.edges", SERVED_ROWS), "holds no rows.edges"),
        ("/rows.zip", zipped("rows.edges", SERVED_ROWS)[:-30], "damaged"),
        ("/rows.tar.bz2", tarred("rows.edges", SERVED_ROWS)[:-30], "damaged"),
        ("/rows.tar.bz2", bz2.compress(b"no tar"), "damaged"),
        ("/rows.tar.bz2", b"an error page", "damaged"),
        ("/rows.csv.gz", gzip.compress(SERVED_ROWS, mtime=0)[:-10], "damaged"),
        ("/rows.csv.gz", b"an error page", "damaged"),
        ("/rows.zip", b"", "damaged"),
    ],
)
def test_damaged_archives_are_refused(site: Site, tmp_path: Path, path: str, body: bytes, complaint: str) -> None:
    site.serve(path, body)
    with pytest.raises(InputError, match=complaint) as caught:
        fetch_log(site, tmp_path / "rows.txt", path=path, member="rows.edges", row=pick(0, 1, 3))
    assert caught.value.fix == "do it by hand"
    assert nothing_is_left(tmp_path)


def test_a_mismatch_of_another_layout_says_that_this_was_not_certain(site: Site, tmp_path: Path) -> None:
    site.serve("/rows.csv", SERVED_ROWS)
    with pytest.raises(InputError, match="copy in another layout"):
        fetch_log(site, tmp_path / "rows.txt", path="/rows.csv", row=pick(0, 1, 3), as_served=False)


def test_jodie_rows() -> None:
    row = jodie_row(first_item=100)
    assert row("user_id,item_id,timestamp,state_label,comma_separated_list_of_features") is None
    assert row("7,3,36.0,0,-0.17,0.2,0.0") == "7,103,36,0"
    assert row("7,3,36,1.0") == "7,103,36,1"


# Names and folders.


def small(monkeypatch: pytest.MonkeyPatch, *, as_served: bool = True) -> DatasetInfo:
    info = DatasetInfo(
        name="Small-log",
        title="a log for tests",
        publisher="us",
        page="http://publisher.invalid/small.html",
        download=Download(url="http://publisher.invalid/data/log.txt", as_served=as_served),
        file="log.txt",
        sha256=sha256(LOG),
        events=20_000,
        nodes=11,
        span="hours",
        citation="",
        licence="",
    )
    monkeypatch.setitem(DATASETS, info.name, info)
    return info


def test_folders_are_searched_in_order_before_anything_is_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = small(monkeypatch)
    places = [tmp_path / name / info.name / info.file for name in ("data", "more", "cache")]
    for place in reversed(places):
        place.parent.mkdir(parents=True)
        place.write_bytes(LOG)
        found = find(
            "small-LOG",
            folders=[tmp_path / "data", tmp_path / "more"],
            cache=tmp_path / "cache",
            mirror=site.address,
        )
        assert found == place
    assert site.requests == []


def test_what_is_nowhere_is_fetched_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = small(monkeypatch)
    site.serve("/copy/data/log.txt", LOG)
    for _ in range(2):
        found = find(info.name, folders=[tmp_path / "none"], cache=tmp_path / "cache", mirror=f"{site.address}/copy/")
        assert found == tmp_path / "cache" / "Small-log" / "log.txt"
    assert site.requests == ["/copy/data/log.txt"]


def test_another_file_under_the_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = small(monkeypatch)
    place = tmp_path / info.name / info.file
    place.parent.mkdir()
    place.write_bytes(LOG + b"1 2 3\n")
    with pytest.raises(InputError, match=r"is not the data set Small-log") as caught:
        find(info.name, folders=[tmp_path], cache=tmp_path / "cache")
    assert str(place) in caught.value.message
    assert caught.value.fix is not None


@pytest.mark.parametrize("as_served", [True, False])
def test_a_failed_download_says_where_the_file_can_be_put(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_served: bool
) -> None:
    info = small(monkeypatch, as_served=as_served)
    with pytest.raises(InputError, match="404") as caught:
        find(info.name, folders=[], cache=tmp_path / "cache", mirror=site.address)
    fix = str(caught.value.fix)
    assert "GRAPHTIDE_DATA_DIR" in fix
    assert (str(tmp_path / "cache" / "Small-log" / "log.txt") in fix) == as_served
    assert (info.page in fix) != as_served


@pytest.mark.parametrize(("name", "near"), [("sx-mathoverflw", "sx-mathoverflow"), ("zzz", "digg-reply")])
def test_an_unknown_name_gets_suggestions(name: str, near: str) -> None:
    with pytest.raises(UsageError, match="no data set is called") as caught:
        dataset(name)
    assert near in str(caught.value.fix)


# The entries themselves.


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_entries_are_complete(info: DatasetInfo) -> None:
    assert parse_duration_us(info.step) > 0
    assert len(info.sha256) == 64
    assert int(info.sha256, 16) > 0
    assert info.citation
    assert info.licence
    assert DecodeOptions(**info.read_options).time_unit == "s"
    assert info.download.as_served == (info.download.row is None)


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_files_on_disk_are_the_known_ones(info: DatasetInfo, data_dir: Path) -> None:
    path = find_local(info, [data_dir])
    assert path is not None
    events, rejected, nodes = 0, 0, set()
    for batch in FileSource(path, DecodeOptions(**info.read_options)).batches(None):
        events += len(batch.events)
        rejected += batch.rejected
        nodes |= {*batch.events.src.tolist(), *batch.events.dst.tolist()}
    assert (events, len(nodes), rejected) == (info.events, info.nodes, 0)


def served_layout(info: DatasetInfo, data: bytes) -> bytes:
    """Return the file of a data set in the dress that its publisher is believed to give it."""
    if info.download.as_served:
        return data
    rows = [line.replace(",", " ").split() for line in data.decode().splitlines() if line[0].isdigit()]
    if info.name == "jodie-wikipedia":
        head = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"
        lines = [f"{user},{int(item) - 8227},{time}.0,{label},-0.1,0.2" for user, item, time, label in rows]
        return (head + "\n".join(lines) + "\n").encode()
    if info.name == "bitcoin-otc":
        return gzip.compress(b"".join(",".join(row).encode() + b"\n" for row in rows))
    if info.name == "digg-reply":
        return tarred(str(info.download.member), b"% asym\n" + b"".join(" ".join(row).encode() + b"\n" for row in rows))
    if info.name == "wiki-elec":
        lines = [f"{src} {dst} 1 {time}" for src, dst, time in rows]
        return zipped(str(info.download.member), ("% asym\n" + "\n".join(lines)).encode())
    lines = [f"{src},{dst},{time},1" for src, dst, time in rows]
    return zipped(str(info.download.member), "\n".join(lines).encode())


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_each_is_fetched_from_its_publishers_layout(
    info: DatasetInfo, data_dir: Path, site: Site, tmp_path: Path
) -> None:
    original = data_dir / info.name / info.file
    path = info.download.url.partition("//")[2].partition("/")[2]
    site.serve(f"/{path}", served_layout(info, original.read_bytes()))
    found = find(info.name, folders=[], cache=tmp_path, mirror=site.address)
    assert found.read_bytes() == original.read_bytes()
