"""A model that was exported for Triton answers as graphtide does, in a real Triton server.

The commands are those of docs/scale-out.md.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from forecasting.bench.servers.base import MissingServerError
from forecasting.engine import Engine
from forecasting.history import read_history
from forecasting.training import forecaster_of
from forecasting.triton.repository import export, model_name
from forecasting.triton.sequences import Sequences
from infra.errors import ModelError, UsageError
from infra.settings import Settings
from infra.steps import WEEK_US, step_start_us
from models import checkpoint, general_folder
from models.contract import FloatArray, History
from stream.store import open_reader
from tests.conftest import Ran, lacking
from tests.integration.serving import save_model
from tests.servers.triton import TritonServer

HORIZON = 1500


def general() -> checkpoint.Checkpoint:
    found = checkpoint.load(general_folder())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def history(toy_store: str) -> History:
    with open_reader(toy_store) as reader:
        return read_history(reader, "toy")


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    export(general(), model_name(None), folder / "repository")
    server = TritonServer(folder / "server", folder / "repository")
    try:
        server.start()
    except MissingServerError as missing:
        lacking("triton", str(missing))
    yield server
    server.discard()


def ask(server: TritonServer, sequence: int, values: FloatArray, horizon: int, **more: Any) -> httpx.Response:
    """Send a request with binary tensors: Triton's JSON rounds the last bit of a number."""
    begins = more.pop("begins", None)
    tensors: dict[str, np.ndarray] = {"VALUES": values, "HORIZON": np.array([horizon], dtype=np.int32)}
    if begins is not None:
        tensors["BEGINS"] = np.array(begins, dtype=np.int64)
    types = {"float64": "FP64", "int32": "INT32", "int64": "INT64"}
    head = {
        "parameters": {
            "sequence_id": sequence,
            "sequence_start": begins is not None,
            "binary_data_output": True,
            **more,
        },
        "inputs": [
            {
                "name": name,
                "datatype": types[str(one.dtype)],
                "shape": list(one.shape),
                "parameters": {"binary_data_size": one.nbytes},
            }
            for name, one in tensors.items()
        ],
    }
    body = json.dumps(head).encode()
    return httpx.post(
        f"{server.url}/v2/models/graphtide-general/infer",
        content=body + b"".join(one.tobytes() for one in tensors.values()),
        headers={"Inference-Header-Content-Length": str(len(body))},
        timeout=60,
    )


def outputs(answer: httpx.Response) -> dict[str, FloatArray]:
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    found, rest = {}, answer.content[length:]
    for one in json.loads(answer.content[:length])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        kind = np.float64 if one["datatype"] == "FP64" else np.int64
        found[one["name"]] = np.frombuffer(rest[:size], dtype=kind).reshape(one["shape"])
        rest = rest[size:]
    return found


def test_a_real_server_gives_our_answers(triton: TritonServer, toy_store: str, history: History) -> None:
    with Engine(Settings(store={"url": toy_store}, models={"directory": Path("none")})) as engine:  # type: ignore[arg-type]
        run = engine.forecast("toy", horizon_steps=HORIZON)
        chunks = [chunk.forecast for chunk in run.chunks]
    found = outputs(ask(triton, 1, history.values, HORIZON, begins=[history.step_us, history.start_us]))
    assert found["BEGIN"] == run.first_step_us
    np.testing.assert_array_equal(found["MEAN"], np.concatenate([chunk.mean for chunk in chunks]))
    np.testing.assert_array_equal(found["QUANTILES"], np.concatenate([chunk.quantiles for chunk in chunks]))


def test_a_sequence_goes_on_from_its_state(triton: TritonServer, history: History) -> None:
    begins = [history.step_us, history.start_us]
    whole = outputs(ask(triton, 2, history.values, 24, begins=begins))
    first = outputs(ask(triton, 3, history.values[:-5], 2, begins=begins))
    assert first["MEAN"].shape == (2, 18)
    assert first["BEGIN"] == whole["BEGIN"] - 5 * history.step_us
    later = outputs(ask(triton, 3, history.values[-5:], 24, sequence_end=True))
    assert later["BEGIN"] == whole["BEGIN"]
    np.testing.assert_allclose(later["QUANTILES"], whole["QUANTILES"], rtol=1e-4, atol=1e-4)
    gone = ask(triton, 3, history.values[:0], 24)
    assert gone.status_code >= 400


def test_a_wrong_request_gets_an_error_and_the_server_goes_on(triton: TritonServer, history: History) -> None:
    begins = [history.step_us, history.start_us]
    broken = history.values[:30].copy()
    broken[3, 2] = np.inf
    for values, horizon, start, message in (
        (broken, 24, begins, "not finite"),
        (history.values[:30], 40_000, begins, "HORIZON cannot be 40000"),
        (history.values[:30], 24, [0, 0], "BEGINS cannot be"),
    ):
        answer = ask(triton, 9, values, horizon, begins=start)
        assert answer.status_code >= 400
        assert message in answer.text
    assert ask(triton, 10, history.values, 1, begins=begins).status_code == 200


def test_states_are_bounded_and_ended(history: History) -> None:
    sequences = Sequences(forecaster_of(general()), most=2)
    for sequence in (1, 2, 3):
        sequences.begin(sequence, history.step_us, history.start_us)
    sequences.answer(3, history.values[:10], 1, 0)
    with pytest.raises(UsageError, match="sequence 1 is not open"):
        sequences.answer(1, history.values[:10], 1, 0)
    sequences.end(3)
    sequences.end(3)
    with pytest.raises(UsageError, match="sequence 3 is not open"):
        sequences.answer(3, history.values[:10], 1, 0)
    with pytest.raises(UsageError, match="BEGINS"):
        sequences.begin(4, 0, 0)
    with pytest.raises(ModelError, match="shape"):
        sequences.answer(2, history.values[:10, :3], 1, 0)


def test_weeks_begin_on_mondays(history: History) -> None:
    sequences = Sequences(forecaster_of(general()), most=2)
    monday_us = step_start_us(history.start_us, WEEK_US)
    sequences.begin(1, WEEK_US, monday_us)
    assert sequences.answer(1, history.values[:60], 1, 0)[0] == monday_us + 60 * WEEK_US
    with pytest.raises(UsageError, match="BEGINS"):
        sequences.begin(1, WEEK_US, monday_us - monday_us % WEEK_US)


@pytest.mark.parametrize("value", [-5.0, 1e308])
def test_values_that_no_metric_has_are_refused_and_do_no_harm(history: History, value: float) -> None:
    sequences = Sequences(forecaster_of(general()), most=2)
    for sequence in (1, 2):
        sequences.begin(sequence, history.step_us, history.start_us)
        sequences.answer(sequence, history.values[:50], 1, 0)
    with pytest.raises(UsageError, match="VALUES"):
        sequences.answer(1, np.full_like(history.values[:1], value), 1, 0)
    ours, undisturbed = (sequences.answer(sequence, history.values[50:60], 1, 0) for sequence in (1, 2))
    assert ours[0] == undisturbed[0]
    assert np.array_equal(ours[1], undisturbed[1])


def test_the_command_exports_and_refuses(graphtide: Callable[..., Ran], toy_store: str, tmp_path: Path) -> None:
    to = ("--to", "triton")
    ran = graphtide("export", "toy", tmp_path / "r", *to, "--store", toy_store)
    assert ran.code == 1
    assert "has no model of its own" in ran.err
    assert (
        "unknown" in (ran := graphtide("export", "toi", tmp_path / "r", *to, "--store", toy_store)).err
        or "toi" in ran.err
    )
    assert not (tmp_path / "r").exists()
    saved = save_model(toy_store, "toy", Path(".graphtide/models"))
    ran = graphtide("export", "toy", tmp_path / "r", *to, "--store", toy_store)
    assert ran.code == 0, ran.err
    (model,) = (tmp_path / "r").iterdir()
    assert sorted(path.name for path in model.rglob("*") if path.is_file()) == sorted(
        ["card.json", "config.pbtxt", "model.py", saved.card["weights"]]
    )
    assert saved.digest in (model / "config.pbtxt").read_text()
    before = (model / "config.pbtxt").stat().st_mtime_ns
    ran = graphtide("export", "toy", tmp_path / "r", *to, "--store", toy_store)
    assert ran.code == 2
    assert "is there already" in ran.err
    assert (model / "config.pbtxt").stat().st_mtime_ns == before
    assert graphtide("export", "toy", *to).code == 2
    assert forecaster_of(saved).name == "mamba2"
