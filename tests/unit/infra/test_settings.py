"""Settings: file, environment and flags in their order; every mistake named with its place and its mending."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.configuration import Flag, load_settings
from infra.errors import UsageError
from infra.settings import Settings

ROOT = Path(__file__).parents[3]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def refused(config: Path, flags: dict[str, Flag] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(config=config, flags=flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_packaged_file_and_model_agree_on_every_default() -> None:
    written = tomllib.loads((ROOT / "config.toml").read_text())
    assert written == Settings().model_dump(mode="json")


def test_every_setting_has_a_line_of_why() -> None:
    lines = (ROOT / "config.toml").read_text().splitlines()
    assignments = [index for index, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert assignments
    for index in assignments:
        assert lines[index - 1].startswith("# "), f"config.toml line {index + 1} has no comment before it"


def test_packaged_file_is_found_where_none_stands_beside_the_call(clean_environment: Path) -> None:
    loaded = load_settings()
    assert loaded.file == ROOT / "config.toml"
    assert loaded.values == Settings()


def test_file_beside_the_call_wins_and_may_be_partial(clean_environment: Path) -> None:
    write(clean_environment, "[forecast]\nhorizon = 24\n")
    loaded = load_settings()
    assert loaded.file == Path("config.toml")
    assert loaded.values.forecast.horizon == 24
    assert loaded.values.forecast.seed == Settings().forecast.seed


def test_environment_overrides_file_and_flag_overrides_both(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(clean_environment, "[forecast]\nhorizon = 24\nseed = 5\n")
    monkeypatch.setenv("GRAPHTIDE_FORECAST__HORIZON", "48")
    monkeypatch.setenv("GRAPHTIDE_BACKTEST__HORIZONS", "1, 12")
    loaded = load_settings().values
    assert (loaded.forecast.horizon, loaded.forecast.seed, loaded.backtest.horizons) == (48, 5, (1, 12))
    flagged = load_settings(flags={"forecast.horizon": Flag("--horizon", "72")}).values
    assert (flagged.forecast.horizon, flagged.forecast.seed) == (72, 5)


def test_format_of_the_users_own_is_read(clean_environment: Path) -> None:
    text = "[formats.orders]\nsrc = 'a.b'\ndst = ['c', 'd[0]']\nts = '@timestamp'\nwhere = { k = [1, true, 'x'] }\n"
    orders = load_settings(config=write(clean_environment, text)).values.formats["orders"]
    assert (orders.src, orders.dst, orders.where) == ("a.b", ["c", "d[0]"], {"k": [1, True, "x"]})
    assert orders.time_unit == "auto"


def test_plain_data_dir_names_the_data_folder(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_DATA_DIR", "/somewhere")
    assert load_settings().values.data.directory == Path("/somewhere")
    monkeypatch.setenv("GRAPHTIDE_DATA__DIRECTORY", "/elsewhere")
    assert load_settings().values.data.directory == Path("/elsewhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[store]\nurll = 'x'\n", ["store.urll", "line 2", "did you mean url?"]),
        ("\n[stroe]\nurl = 'x'\n", ["[stroe]", "line 2", "did you mean store?"]),
        ("store = 3\n", ["[store] is not a section", "line 1"]),
        ("[forecast]\nhorizon = 36501\n", ["forecast.horizon cannot be 36501", "line 2", "from 1 to 36500"]),
        ("[forecast]\n\nhorizon = 'abc'\n", ["forecast.horizon cannot be 'abc'", "line 3", "from 1 to 36500"]),
        ("[forecast]\nhorizon = true\n", ["forecast.horizon cannot be True", "line 2"]),
        ("[training]\nbudget_s = 0\n", ["training.budget_s cannot be 0", "line 2", "above 0"]),
        ("[ingest]\nstep = 'soon'\n", ["ingest.step cannot be 'soon'", "line 2", "15m"]),
        ("[ingest]\nallowed_lateness_s = 9223370000000\n", ["cannot be 9223370000000", "from 0 to 1000000000000"]),
        ("[backtest]\nhorizons = [1, 0]\n", ["backtest.horizons cannot be 0", "line 2"]),
        ("[forecaster]\nheaddim = 48\n", ["forecaster.headdim cannot be 48", "line 2", "divisor of twice d_model"]),
        ("[store\n", ["not valid TOML", "line 1"]),
        ("[formats.o]\nsrc='a'\ndst='b'\ntss='c'\nts='d'\n", ["formats.o.tss", "line 4", "did you mean ts?"]),
        ("[formats.o]\nsrc='a'\ndst='b'\n", ["formats.o.ts is missing", "write ts"]),
        ("[formats.o]\nsrc='a'\ndst=3\nts='c'\n", ["formats.o.dst cannot be 3", "line 3"]),
        ("[formats.o]\nsrc='a'\ndst='b'\nts='c'\ntime_unit='m'\n", ["formats.o.time_unit", "line 5", "s, ms, us"]),
        ("[formats.o]\nsrc='a'\ndst='b'\nts='c'\nwhere='x'\n", ["formats.o.where", "line 5", "a table"]),
        (
            "[alerts.rules.a]\nkind='forecast'\ngraph='t'\nmetric='evnts'\n",
            ["alerts.rules.a.metric cannot be 'evnts'", "line 4", "one of events, active_nodes"],
        ),
        (
            "[alerts.rules.a]\nkind='forecast'\ngraph='t'\nprobability=1.0\n",
            ["alerts.rules.a.probability cannot be 1.0", "line 4", "a number above 0", "below 1"],
        ),
        (
            "[alerts.rules.a]\nkind='stale'\ngraph='t'\nafter='soon'\n",
            ["alerts.rules.a.after cannot be 'soon'", "line 4", "a duration"],
        ),
        ("[alerts.rules.a]\ngraph='t'\n", ["alerts.rules.a.kind is missing", "line 1", "write kind"]),
        (
            "[alerts.rules.a]\nkind='stale'\ngraph='t'\nprobabilty=0.5\n",
            ["alerts.rules.a.probabilty", "line 4", "did you mean probability?"],
        ),
        (
            "[alerts.rules.a]\nkind='surprise'\ngraph='t'\nleads=[0]\n",
            ["alerts.rules.a.leads", "line 4", "from 1 to 168"],
        ),
        ("[reports.targets.t]\nkind='fax'\n", ["reports.targets.t.kind cannot be 'fax'", "line 2", "one of folder"]),
        ("[formats.'Ö']\nsrc='a'\ndst='b'\nts='c'\n", ["[formats] is not as it has to be", "'Ö'", "a name of"]),
    ],
)
def test_mistake_in_the_file_is_named_with_its_line(clean_environment: Path, text: str, said: list[str]) -> None:
    message = refused(write(clean_environment, text))
    assert "config.toml" in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GRAPHTIDE_BACKTEST__HORIZON", "1", "did you mean GRAPHTIDE_BACKTEST__HORIZONS?"),
        ("GRAPHTIDE_STOER__URL", "x", "did you mean GRAPHTIDE_STORE__URL?"),
        ("GRAPHTIDE_NOPE__X", "1", "write GRAPHTIDE_SECTION__KEY with a section of these: store, ingest, "),
        ("GRAPHTIDE_SERVER__PORT", "1", "write GRAPHTIDE_SECTION__KEY"),
        ("GRAPHTIDE_X__Y__Z", "1", "write GRAPHTIDE_SECTION__KEY"),
        ("GRAPHTIDE_TRACING__NOPE", "1", "known here: GRAPHTIDE_TRACING__ENDPOINT, GRAPHTIDE_TRACING__SERVICE_NAME"),
        ("GRAPHTIDE_STORE_URL", "x", "did you mean GRAPHTIDE_STORE__URL?"),
        ("GRAPHTIDE_FORECAST__HORIZON", "-4", "environment, GRAPHTIDE_FORECAST__HORIZON"),
    ],
)
def test_mistake_in_the_environment_names_the_variable(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert said in refused(ROOT / "config.toml")


def test_names_that_an_orchestrator_adds_are_no_mistake(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("GRAPHTIDE_PORT", "tcp://10.0.0.1:8000")
    assert load_settings().values == Settings()


def test_mistake_in_a_flag_names_the_flag(clean_environment: Path) -> None:
    message = refused(ROOT / "config.toml", {"forecast.horizon": Flag("--horizon", "abc")})
    assert message.splitlines()[0] == "--horizon cannot be 'abc'"
    assert "from 1 to 36500" in message


def test_unreadable_file_is_said(clean_environment: Path) -> None:
    assert "No such file" in refused(clean_environment / "absent.toml")
    (clean_environment / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(clean_environment / "binary.toml")


def test_wheel_finds_its_own_file(clean_environment: Path) -> None:
    """As installed: `infra/config.toml` beside the module, no checkout around it."""
    package = clean_environment / "site" / "infra"
    shutil.copytree(ROOT / "infra", package)
    (package / "config.toml").write_bytes((ROOT / "config.toml").read_bytes())
    code = "from infra.configuration import load_settings; print(load_settings().file)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
    # Without `site`, so that the import hook of an editable installation does not lead back to the checkout.
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=clean_environment,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(package.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str((package / "config.toml").resolve())
