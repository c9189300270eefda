"""What each peer does for a request: the forecast from the live state of a graph, and its bytes."""

import importlib
import os
import sys
from pathlib import Path

import torch

from forecasting.api.bodies import Digits, Layout, forecast_body
from forecasting.live import LiveStates
from infra.schema import METRIC_NAMES
from models.futures import roll_out
from stream.store import open_reader

STORE, MODELS, GRAPH, PORT = "BENCH_STORE", "BENCH_MODELS", "BENCH_GRAPH", "BENCH_PORT"
STEPS = 24
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MAX_BATCH = 32
BATCH_WAIT_S = 0.002


def _find_kernels() -> None:
    """Let this interpreter find the compiled kernels.

    An editable installation finds them by a hook that its own environment runs, and no peer's.
    """
    for hook in {path.stem for folder in sys.path for path in Path(folder).glob("_editable_*graphtide*.py")}:
        importlib.import_module(hook)


class Work:
    """A graph at its last step, and what is asked of it; told by the environment where it is."""

    def __init__(self) -> None:
        _find_kernels()
        torch.set_num_threads(1)
        states = LiveStates(lambda: open_reader(os.environ[STORE]), Path(os.environ[MODELS]), max_graphs=1)
        self._live = states.state_of(os.environ[GRAPH])
        states.close()

    def bodies(self, count: int) -> list[bytes]:
        """Return the answers to requests that came together: one call of the model, and the bytes of each."""
        live = self._live
        chunk = next(iter(roll_out(live.model, live.state, STEPS, n_paths=0, chunk_steps=STEPS, seed=0)))
        asked = {"layout": Layout.SERIES, "metrics": METRIC_NAMES, "levels": LEVELS, "seed": 0, "digits": Digits(1)}
        return [forecast_body(live, chunk, **asked) for _ in range(count)]  # type: ignore[arg-type]
