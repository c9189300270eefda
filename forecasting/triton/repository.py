"""Writes a forecaster as a model of a Triton repository: `config.pbtxt`, and a version with weights and `model.py`."""

import shutil
import tempfile
from pathlib import Path

from infra.errors import GraphtideError, UsageError
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from models import checkpoint
from models.checkpoint import Checkpoint

CONFIG_NAME, MODEL_NAME, VERSION = "config.pbtxt", "model.py", "1"
# A day: an hourly graph that is asked for at each new step stays open.
IDLE_US = 86_400_000_000
MAX_SEQUENCES = 1024
_CONFIG = """\
# Forecasts of graph metrics. Triton's Python must have graphtide installed; docs/scale-out.md says how to call it.
name: "{name}"
backend: "python"
max_batch_size: 0
input [
  {{ name: "VALUES" data_type: TYPE_FP64 dims: [ -1, {metrics} ] }},
  {{ name: "HORIZON" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "BEGINS" data_type: TYPE_INT64 dims: [ 2 ] optional: true }},
  {{ name: "SEED" data_type: TYPE_INT64 dims: [ 1 ] optional: true }}
]
output [
  {{ name: "BEGIN" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "MEAN" data_type: TYPE_FP64 dims: [ -1, {metrics} ] }},
  {{ name: "QUANTILES" data_type: TYPE_FP64 dims: [ -1, {metrics}, {levels} ] }}
]
sequence_batching {{
  max_sequence_idle_microseconds: {idle_us}
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 }} ] }}
  ]
  oldest {{ max_candidate_sequences: {sequences} }}
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "max_sequences" value: {{ string_value: "{sequences}" }} }}
parameters {{ key: "metrics" value: {{ string_value: "{metric_names}" }} }}
parameters {{ key: "quantile_levels" value: {{ string_value: "{level_names}" }} }}
parameters {{ key: "model_digest" value: {{ string_value: "{digest}" }} }}
"""


def model_name(graph: str | None) -> str:
    """Return the name of a graph's model in a repository; that of the general model for None."""
    return "graphtide-general" if graph is None else f"graphtide-graph-{graph.replace(':', '-')}"


def export(found: Checkpoint, name: str, repository: Path) -> Path:
    """Write a model into a repository, whole or not at all.

    Args:
        found: the forecaster.
        name: of the model.
        repository: the folder of all models; made if it is not there.

    Returns:
        The folder of the model.

    Raises:
        UsageError: there is a model of that name already.
        GraphtideError: it cannot be written.
    """
    folder = repository / name
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"{folder} is there already, and is left as it is",
            fix="remove it, or name another folder: a server that runs must not see a model change under it",
        )
    config = _CONFIG.format(
        name=name,
        metrics=len(METRIC_NAMES),
        levels=len(QUANTILE_LEVELS),
        idle_us=IDLE_US,
        sequences=MAX_SEQUENCES,
        metric_names=",".join(METRIC_NAMES),
        level_names=",".join(f"{level:g}" for level in QUANTILE_LEVELS),
        digest=found.digest,
    )
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=repository) as temporary:
            part = Path(temporary) / name
            checkpoint.save(part / VERSION, found.net, found.card, precision=found.precision)
            shutil.copyfile(Path(__file__).with_name(MODEL_NAME), part / VERSION / MODEL_NAME)
            (part / CONFIG_NAME).write_text(config, encoding="utf-8")
            part.rename(folder)
    except OSError as error:
        raise GraphtideError(
            f"cannot write the model repository {repository}: {error.strerror or error}",
            fix="name a folder that can be written, on a disk with free space",
        ) from error
    return folder
