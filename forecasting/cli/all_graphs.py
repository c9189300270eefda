"""The graphs of a command that was given no names: all of the store that are long enough for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from infra.errors import GraphtideError, ModelError, StoreError, UsageError

if TYPE_CHECKING:
    from infra.settings import Settings
    from models.contract import History


def all_long_enough(
    settings: "Settings", aim: str, check: "Callable[[History, str], object]", tell: Callable[[str], None]
) -> "dict[str, History]":
    """Return the histories that pass, and tell of each other graph why it is left out: a young one holds up no other.

    Args:
        settings: where the store is.
        aim: what they are for, as `train on`.
        check: raises what is wrong with a history, given the graph too.
        tell: told a line at a time.

    Raises:
        StoreError: the store has no graph, or none with a closed step.
        ModelError, UsageError: all are too short; as `check` raises it.
    """
    from forecasting.history import read_history  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    histories: dict[str, History] = {}
    kind: type[GraphtideError] = StoreError
    with open_reader(settings.store.url, settings.influxdb) as reader:
        infos = reader.graphs()
        if not infos:
            raise StoreError(f"the store has no graph to {aim}", fix="ingest events first: graphtide ingest")
        for info in infos:
            if not info.snapshots:
                tell(f"{info.name}: left out: it has no closed step yet")
                continue
            history = read_history(reader, info.name)
            try:
                check(history, info.name)
            except (ModelError, UsageError) as error:
                kind = type(error)
                tell(f"{info.name}: left out: {error.message}; {error.fix}")
            else:
                histories[info.name] = history
    if not histories:
        raise kind(f"no graph of the store is long enough to {aim}", fix="see above what each of them lacks")
    return histories
