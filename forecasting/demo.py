"""The tour in one run: events into a store, a model trained and scored, forecasts and a page, all in one folder.

Whatever interrupts it, what was committed stays, and the next run of the same demo goes on from there.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forecasting.demo_data import HORIZONS, DemoData, Report, Stage, needed_steps
from forecasting.demo_scores import score
from forecasting.engine import Engine, ForecastRun
from forecasting.export import FileFormat, write_forecast
from forecasting.history import read_history
from forecasting.ingestion import ingest_options
from forecasting.reports.outlook import Fan, Outlook, block_length
from forecasting.reports.page import ForecastPage, render
from forecasting.reports.standing import Standing
from forecasting.training import (
    checkpoint_folder,
    describe,
    forecaster_config,
    forecaster_of,
    start_of,
    train_graph,
    was_made_by,
)
from infra.errors import ModelError
from infra.settings import Settings
from infra.steps import format_duration
from infra.whole_file import whole_file
from models import checkpoint
from models.contract import History, PathChunk
from models.forecaster import MambaForecaster
from stream.ingest import ingest
from stream.progress import IngestProgress, IngestResult
from stream.store import open_reader

NEAR_STEPS, FAR_STEPS = 168, 36_500
# Scored on at most so many windows of the longest horizon, and on at most this share of the history.
MAX_WINDOWS, MAX_SCORED_SHARE = 8, 0.2
PAGE_NAME, CONFIG_NAME, SCORES_NAME = "index.html", "config.toml", "scores.json"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo did.

    Attributes:
        graph: the graph.
        ingested: what the store has.
        trained: False where the model of an earlier demo fitted.
        card: the model's card.
        standing: how the model compares with the floors.
        files: what was written, the page first.
        seconds: how long each part took.
    """

    graph: str
    ingested: IngestResult
    trained: bool
    card: dict[str, object]
    standing: Standing
    files: tuple[Path, ...]
    seconds: dict[str, float]


def demo_settings(folder: Path) -> dict[str, object]:
    """Return the settings, by `section.key`, that keep a demo in its folder."""
    return {"store.url": f"sqlite:///{folder / 'store.db'}", "models.directory": str(folder / "models")}


def run_demo(
    data: DemoData, folder: Path, settings: Settings, *, stage: Stage, say: Callable[[str], None]
) -> DemoResult:
    """Run the demo.

    Args:
        data: what it runs on.
        folder: where everything goes.
        settings: with those of `demo_settings`.
        stage: shows the progress of a part.
        say: told what a part found.

    Raises:
        GraphtideError: a part failed; what earlier parts committed stays.
    """
    clock = _Clock()
    ingested = _ingest(data, settings, stage)
    (found,) = ingested.graphs
    say(
        f"{'Already there' if ingested.unchanged else 'Ingested'}: {found.events:,} events of {found.nodes:,} nodes, "
        f"{found.snapshots:,} snapshots of {format_duration(found.step_us)}"
    )
    clock.lap("ingest")
    with open_reader(settings.store.url) as reader:
        history = read_history(reader, data.graph)
    scored_steps = _scored_steps(history, data.graph)
    model, trained = _model(history.part(0, len(history) - scored_steps), data.graph, settings, stage, say)
    forecaster = forecaster_of(model)
    clock.lap("train")
    where, is_new = score(
        history,
        forecaster,
        scored_steps=scored_steps,
        identity={**describe(history, data.graph), "model": model.digest},
        kept=folder / SCORES_NAME,
        seed=settings.forecast.seed,
        stage=stage,
    )
    if not is_new:
        say("Found its scores: not scored again")
    clock.lap("score")
    near_file, far_file = folder / f"{data.graph}-{NEAR_STEPS}.csv", folder / f"{data.graph}-{FAR_STEPS}.parquet"
    far, outlook = _forecast(data.graph, settings, len(history), near_file, far_file, stage)
    clock.lap("forecast")
    page = ForecastPage(
        graph=data.graph,
        source=data.about,
        history=history,
        outlook=outlook,
        model=far.model_name,
        card=far.card,
        held_out=_held_out(history, forecaster, settings.forecast.seed),
        standing=where,
        held_out_steps=scored_steps,
        files={
            near_file.name: f"the next {NEAR_STEPS} steps: mean and quantiles of every metric, long form",
            far_file.name: f"all {FAR_STEPS:,} steps, in the same form",
            SCORES_NAME: "all scores of the backtests",
            "store.db": "the snapshots",
            "models": "the checkpoint and its card",
            CONFIG_NAME: "settings that make the other commands work on this store",
        },
    )
    with whole_file(folder / PAGE_NAME) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    _write_config(folder)
    clock.lap("page")
    files = (folder / PAGE_NAME, near_file, far_file, folder / SCORES_NAME, folder / CONFIG_NAME)
    return DemoResult(data.graph, ingested, trained, model.card, where, files, clock.laps)


def _forecast(
    graph: str, settings: Settings, observed_steps: int, near_file: Path, far_file: Path, stage: Stage
) -> tuple[ForecastRun, Outlook]:
    """Write both forecasts; return the far one and what a page shows of it."""
    seed = settings.forecast.seed
    with Engine(settings) as engine:
        near = engine.forecast(graph, horizon_steps=NEAR_STEPS, seed=seed)
        write_forecast(near, near.chunks, near_file, FileFormat.CSV, horizon_steps=NEAR_STEPS, seed=seed)
        far = engine.forecast(graph, horizon_steps=FAR_STEPS, seed=seed)
        outlook = Outlook(
            first_us=far.first_step_us,
            step_us=far.step_us,
            near_steps=NEAR_STEPS,
            block_steps=block_length(far.step_us, observed_steps + FAR_STEPS),
        )
        with stage(f"Forecasting {FAR_STEPS:,} steps") as report:
            chunks = _watched(far.chunks, outlook, report)
            write_forecast(far, chunks, far_file, FileFormat.PARQUET, horizon_steps=FAR_STEPS, seed=seed)
    return far, outlook


def _ingest(data: DemoData, settings: Settings, stage: Stage) -> IngestResult:
    options = replace(ingest_options(settings), step_us=data.step_us)
    with stage(f"Ingesting {data.graph}") as report:

        def tell(state: IngestProgress) -> None:
            report(state.events, None, f"events, {state.snapshots:,} snapshots")

        return ingest(data.source, settings.store.url, options, tell)


def _scored_steps(history: History, graph: str) -> int:
    """Return how many steps at the end are kept from training: whole windows of the longest horizon."""
    needed = needed_steps(history.step_us)
    if len(history) < needed:
        raise ModelError(
            f"{graph} has {len(history)} steps of {format_duration(history.step_us)}, too few for a demo: "
            f"{needed} are needed to train on and to score",
            fix="take a longer log, such as --dataset sx-mathoverflow",
        )
    windows = int(len(history) * MAX_SCORED_SHARE) // max(HORIZONS)
    return max(HORIZONS) * max(1, min(MAX_WINDOWS, windows))


def _model(
    past: History, graph: str, settings: Settings, stage: Stage, say: Callable[[str], None]
) -> tuple[checkpoint.Checkpoint, bool]:
    """Return the model of an earlier demo if the same training on the same steps made it, else a new one."""
    folder = checkpoint_folder(settings.models.directory, graph)
    forecaster, (start, config) = forecaster_config(settings), start_of(settings)
    try:
        found = checkpoint.load(folder)
    except ModelError as error:
        say(f"note: the model of an earlier demo cannot be used: {error.message}")
        found = None
    if found is not None and was_made_by(found, past, graph, forecaster, config, start):
        say(f"Found the model of an earlier demo, trained on the same {len(past):,} steps: not trained again")
        return found, False
    with stage(f"Training on {len(past):,} steps") as report:
        trained = train_graph(
            past,
            graph,
            folder,
            forecaster,
            config,
            start=start,
            on_progress=lambda state: report(
                state.elapsed_s,
                config.budget_s,
                f"s, iteration {state.iteration}, validation loss {state.validation_loss:.4f}",
            ),
        )
    scores = trained.card["scores"]
    gain = 1 - scores["validation_loss"] / scores["untrained_validation_loss"]
    say(
        f"Trained on {len(past):,} steps: {scores['iterations']:,} iterations in {scores['elapsed_s']:.0f} s, "
        f"validation loss {gain:.0%} below the untrained"
    )
    return trained, True


def _held_out(history: History, model: MambaForecaster, seed: int) -> Fan:
    """Return a forecast of the last steps of the history, from the moment before them."""
    origin = len(history) - NEAR_STEPS
    outlook = Outlook(
        first_us=history.start_us + origin * history.step_us,
        step_us=history.step_us,
        near_steps=NEAR_STEPS,
        block_steps=NEAR_STEPS,
    )
    state = model.update(model.start(history.step_us, history.start_us), history.values[:origin])
    for chunk in model.rollout(state, NEAR_STEPS, seed=seed):
        outlook.add(chunk)
    return outlook.near()


def _watched(chunks: Iterator[PathChunk], outlook: Outlook, report: Report) -> Iterator[PathChunk]:
    for chunk in chunks:
        outlook.add(chunk.forecast)
        report(outlook.steps, FAR_STEPS, "steps")
        yield chunk


def _write_config(folder: Path) -> None:
    """Write settings with which every command works on the demo's store, wherever it is called."""
    lines = ["# Written by `graphtide demo`; pass it with --config to work on the demo's store and model."]
    for key, value in demo_settings(folder.resolve()).items():
        section, _, name = key.partition(".")
        # A JSON text is a TOML text.
        lines += ["", f"[{section}]", f"{name} = {json.dumps(value)}"]
    with whole_file(folder / CONFIG_NAME) as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


class _Clock:
    """Takes the time of parts that follow each other."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since_s = time.monotonic()

    def lap(self, name: str) -> None:
        now_s = time.monotonic()
        self.laps[name] = now_s - self._since_s
        self._since_s = now_s


def next_commands(graph: str, folder: Path, program: str) -> Sequence[tuple[str, str]]:
    """Return what to try next on the demo's store: what it does, and the command."""
    here = f"{program} --config {folder / CONFIG_NAME}"
    return (
        ("what is in the store", f"{here} graphs"),
        ("the last day, step by step", f"{here} snapshots {graph} --last 24"),
        ("the next month", f"{here} forecast {graph} --horizon 720 --metrics events,active_nodes,new_nodes"),
        ("every step ahead, as a file", f"{here} forecast {graph} --horizon 8760 --format csv --output year.csv"),
    )
