"""The command line: what a person and a program get from it, on stdout and stderr, and its exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra.errors import StoreError
from infra.schema import METRIC_NAMES
from stream.store import open_reader
from tests.conftest import Ran

Cli = Callable[..., Ran]
COMMANDS = ("ingest", "graphs", "snapshots", "train", "forecast", "backtest", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(graphtide: Cli, command: str) -> None:
    ran = graphtide(command, "--help")
    assert ran.code == 0
    assert f"Example: graphtide {command}" in " ".join(ran.out.split())


def test_help_lists_the_commands_in_order(graphtide: Cli) -> None:
    ran = graphtide("--help")
    places = [ran.out.index(f" {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_graphs(graphtide: Cli, toy_store: str) -> None:
    (found,) = json.loads(graphtide("graphs", "--json", "--store", toy_store).out)
    assert found["graph"] == "toy"
    assert found["step"] == "1h"
    assert found["first_step"].startswith("2021-01-04T")
    assert found["events"] > 1000
    table = graphtide("graphs", "--store", toy_store)
    assert table.code == 0
    assert f"{found['events']:,}" in table.out


def test_snapshots_in_every_format_agree(graphtide: Cli, toy_store: str) -> None:
    call = ("snapshots", "toy", "--store", toy_store, "--last", 30, "--format")
    rows = list(csv.DictReader(io.StringIO(graphtide(*call, "csv").out)))
    assert list(rows[0]) == ["step_start", "revision", *METRIC_NAMES]
    as_json = json.loads(graphtide(*call, "json").out)
    assert graphtide(*call, "parquet", "--output", "x.parquet").code == 0
    frame = pq.read_table("x.parquet").to_pandas()
    assert len(rows) == len(as_json["rows"]) == len(frame) == 30
    for row, other, (_, third) in zip(rows, as_json["rows"], frame.iterrows(), strict=True):
        assert row["step_start"] == other["step_start"] == third["step_start"].strftime("%Y-%m-%dT%H:%M:%SZ")
        assert int(row["events"]) == other["events"] == third["events"]
        assert float(row["transitivity"]) == other["transitivity"] == third["transitivity"]


def test_snapshots_by_range_and_metric(graphtide: Cli, toy_store: str) -> None:
    ran = graphtide(
        *("snapshots", "toy", "--store", toy_store, "--format", "csv", "--metrics", "new_nodes,events"),
        *("--start", "2021-01-05", "--end", "2021-01-05T03:00+01:00"),
    )
    lines = ran.out.splitlines()
    assert lines[0] == "step_start,revision,new_nodes,events"
    assert [line.split(",")[0] for line in lines[1:]] == ["2021-01-05T00:00:00Z", "2021-01-05T01:00:00Z"]


def test_table_on_a_pipe_is_not_cut(graphtide: Cli, toy_store: str) -> None:
    ran = graphtide("snapshots", "toy", "--store", toy_store, "--last", 2, "--metrics", ",".join(METRIC_NAMES))
    lines = ran.out.splitlines()
    assert lines[0].split() == ["step_start", *METRIC_NAMES]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("snapshots", "tou"), "did you mean toy?"),
        (("snapshots", "toy", "--metrics", "event"), "did you mean events?"),
        (("snapshots", "toy", "--start", "yesterday"), "2016-03-06"),
        (("snapshots", "toy", "--start", "2021-01-05", "--end", "2021-01-04"), "--end 2021-01-04 is not after"),
        (("snapshots", "toy", "--output", "x"), "--format csv"),
        (("forecast", "toy", "--metrics", "event"), "did you mean events?"),
        (("forecast", "toy", "--quantiles", "0.55"), "0.025, 0.1"),
        (("forecast", "toy", "--quantiles", "half"), "not a number"),
    ],
)
def test_wrong_names_are_corrected(graphtide: Cli, toy_store: str, arguments: tuple[str, ...], said: str) -> None:
    ran = graphtide(*arguments, "--store", toy_store)
    assert ran.code in {1, 2}
    assert said in ran.err
    assert ran.out == ""


def test_unexpected_error_is_one_line_with_a_hint(
    graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("stream.store.open_reader", broken)
    ran = graphtide("graphs", "--store", toy_store)
    assert ran.code == 1
    assert "ZeroDivisionError" in ran.err
    assert "GRAPHTIDE_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.setenv("GRAPHTIDE_DEBUG", "1")
    from forecasting.cli import main  # noqa: PLC0415

    with pytest.raises(ZeroDivisionError):
        main(["graphs", "--store", toy_store])


def test_interrupt_ends_with_130_and_says_how_to_go_on(
    graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forecasting.engine.Engine.forecast", interrupted)
    ran = graphtide("forecast", "toy", "--store", toy_store, "--format", "csv", "--output", "x.csv")
    assert ran.code == 130
    assert "run the same command again" in ran.err
    assert not Path("x.csv").exists()


def test_reader_that_leaves_early_is_no_error(toy_store: str, tmp_path: Path) -> None:
    program = f"{sys.executable} -c 'from forecasting.cli import main; main()'"
    call = f"{program} snapshots toy --store {toy_store} --format csv"
    command = ["bash", "-c", f"set -o pipefail; {call} | head -n 1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0
    assert run.stdout.startswith("step_start,")
    assert run.stderr == ""


def test_doctor_reports_as_json(graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)
    ran = graphtide("doctor", "--json")
    report = json.loads(ran.out)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert ran.code == 0
    assert report["ok"]
    assert findings["store"]["status"] == "ok"
    assert "1 graphs" in findings["store"]["found"]
    assert {"python", "torch", "gpu", "cpu", "compiler", "sqlite", "settings", "disk"} <= set(findings)


def test_doctor_names_the_kernels(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "reference")
    findings = json.loads(graphtide("doctor", "--json").out)["findings"]
    (chosen,) = [f["found"] for f in findings if f["name"] == "kernels" and f["status"] == "ok"]
    assert chosen.startswith("reference")
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "abacus")
    ran = graphtide("doctor", "--json")
    assert ran.code == 1
    assert "abacus" in ran.out


def test_doctor_fails_where_a_command_would(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.db").write_text("no store")
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", "sqlite:///other.db")
    ran = graphtide("doctor", "--json")
    assert ran.code == 1
    assert not json.loads(ran.out)["ok"]
    assert "other.db" in graphtide("doctor").out


def test_doctor_warns_of_an_old_sqlite(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, status in (((3, 51, 2), "warn"), ((3, 51, 3), "ok")):
        monkeypatch.setattr("sqlite3.sqlite_version_info", version)
        findings = json.loads(graphtide("doctor", "--json").out)["findings"]
        assert next(finding for finding in findings if finding["name"] == "sqlite")["status"] == status


@pytest.mark.parametrize("arguments", [("--help",), ("ingest", "--help"), ("graphs",)])
def test_reading_and_ingesting_never_import_torch_or_pandas(
    toy_store: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code = (
        "import sys, atexit; "
        "atexit.register(lambda: sys.stderr.write(' '.join({'torch', 'pandas'} & set(sys.modules)) + '|')); "
        "from forecasting.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ) | {"GRAPHTIDE_STORE__URL": toy_store},
        check=True,
    )
    assert run.stderr.endswith("|")
    assert "torch" not in run.stderr
    assert "pandas" not in run.stderr


def follow(log: Path, folder: Path, *flags: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
    # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{code}\nfrom forecasting.cli import main; main()",
            "ingest",
            log,
            "--graph",
            "g",
            "--follow",
            *flags,
        ],
        cwd=folder,
        env=environment | {"GRAPHTIDE_INGEST__POLL_INTERVAL_S": "0.05"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def snapshots_closed(folder: Path) -> int:
    try:
        with open_reader(f"sqlite:///{folder}/.graphtide/store.db") as reader:
            return sum(graph.snapshots for graph in reader.graphs())
    except StoreError:
        return 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_follower_goes_on_where_it_stood(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    log = tmp_path / "growing.txt"
    closed = 0
    for part in range(2):
        with log.open("a") as file:
            file.writelines(f"a{hour} b {1254189600 + 3600 * (10 * part + hour)}\n" for hour in range(10))
        running = follow(log, tmp_path)
        try:
            # The last step stays open: more of it may come.
            while snapshots_closed(tmp_path) < 10 * part + 9:
                assert running.poll() is None, running.communicate()[1]
                time.sleep(0.05)
        finally:
            running.send_signal(sent)
            out, err = running.communicate(timeout=60)
        assert running.returncode == code, err
        assert "Traceback" not in err
        if sent is signal.SIGINT:
            assert "the same command goes on from there" in err
            assert f"{10 * (part + 1)} events" in out
        closed = snapshots_closed(tmp_path)
    assert closed == 19


def test_a_rotated_log_is_followed_where_that_is_asked_for(tmp_path: Path, graphtide: Cli) -> None:
    log = tmp_path / "growing.txt"
    log.write_text("".join(f"a{hour} b {1254189600 + 3600 * hour}\n" for hour in range(10)))
    running = follow(log, tmp_path, "--restart-if-replaced")
    try:
        while snapshots_closed(tmp_path) < 9:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
        # The writer still has the old file open.
        with log.open("a") as file:
            old = log.rename(tmp_path / "growing-1.txt")
            file.writelines(f"a b {1254189600 + 3600 * hour}\n" for hour in range(10, 13))
        while snapshots_closed(tmp_path) < 12:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
        (new := tmp_path / "new.txt").write_text("".join(f"c b {1254189600 + 3600 * hour}\n" for hour in range(12, 20)))
        new.replace(log)
        while snapshots_closed(tmp_path) < 19:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
    finally:
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    assert "21 events" in out
    # What was followed does not count again under the name that the rotation gave it.
    store = f"sqlite:///{tmp_path}/.graphtide/store.db"
    again = graphtide("ingest", old, "--graph", "g", "--backfill", "--store", store)
    assert again.code == 1
    assert "growing-1.txt was read before with --follow" in again.err
    # Without the flag it is refused, and the message says so.
    new.write_text("x y 1254189600\n")
    new.replace(log)
    refused = follow(log, tmp_path)
    assert "--restart-if-replaced" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
