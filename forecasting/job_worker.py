"""The process that computes long-range forecasts: one job at a time, chunk by chunk, behind whatever else runs here.

Run as `python -m forecasting.job_worker`; `forecasting.job_processes` does.
"""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from forecasting import job_chunks
from forecasting.api.bodies import provenance
from forecasting.jobs import Job, Jobs, LostJobError
from forecasting.live import LiveState, LiveStates
from forecasting.resolving import no_forecast
from forecasting.service_file import ServiceFile
from forecasting.store_patience import StorePatience
from forecasting.tracing import Tracing, open_tracing, spans
from forecasting.worker_process import lease, run_worker, work_off
from infra.errors import GraphtideError, ModelError, StoreError, UsageError
from infra.settings import Settings
from infra.steps import check_end
from models.futures import roll_out

IDLE_WAIT_S = 0.02
_log = logging.getLogger(__name__)


class StoppedError(GraphtideError):
    """The process is to end; the job goes back into the queue."""


def work(settings: Settings, worker: str, stop: threading.Event) -> None:
    """Compute jobs until `stop` is set.

    Args:
        settings: all of them.
        worker: name of this process, different from all others.
        stop: asked between chunks and while there is nothing to do.

    Raises:
        StoreError: the service's file cannot be opened.
    """
    with (
        open_tracing(settings.tracing, "jobs") as tracing,
        ServiceFile(settings.api.service_db) as file,
        LiveStates(
            StorePatience.of(settings, stop).for_background,
            settings.models.directory,
            max_graphs=settings.api.max_live_graphs,
        ) as states,
    ):
        jobs = Jobs(file, settings.jobs)

        def run(job: Job) -> None:
            with tracing.span("job", {"graphtide.job": job.id, "graphtide.graph": job.graph}):
                _run(jobs, job, states, settings, _Watch(stop, tracing))

        work_off(jobs, run, worker, stop, idle_s=lambda: max(IDLE_WAIT_S, file.look_s))


@dataclass(slots=True)
class _Watch:
    """What is looked at while a job is computed.

    Attributes:
        stop: set where the process is to end.
        tracing: makes spans of the chunks.
        lost: set where the lease is lost.
    """

    stop: threading.Event
    tracing: Tracing
    lost: threading.Event = field(default_factory=threading.Event)


def _run(jobs: Jobs, job: Job, states: LiveStates, settings: Settings, watch: _Watch) -> None:
    problem = None
    try:
        with lease(lambda: jobs.renew(job), LostJobError, settings.jobs.lease_s / 3) as watch.lost:
            _forecast(jobs, job, states, settings.jobs.chunk_steps, watch)
    except LostJobError as ended:
        _log.info("%s", ended.message)
        return
    except StoppedError:
        # `work` puts it back on its way out.
        return
    except ModelError as error:
        _log.warning("the forecast %s failed: %s", job.id, error.message)
        problem = "no forecast could be made from this state"
    except _GroundMovedError as error:
        problem = error.message
    except UsageError as error:
        # Asked for when fewer steps were closed.
        problem = f"{error.message}: {error.fix}"
    except StoreError:
        # A store that is away comes back, a graph that is away does not.
        info = states.catalog().get(job.graph)
        if info is not None and info.snapshots > 0:
            raise
        problem = f"the store has no snapshots of {job.graph!r} any more"
    with suppress(LostJobError):
        jobs.finish(job, problem)


def _forecast(jobs: Jobs, job: Job, states: LiveStates, chunk_steps: int, watch: _Watch) -> None:
    """Compute a job from where it stands to its end; where the model makes no first chunk, a floor answers."""
    if job.steps_done > 0:
        live, chunk_steps = _same_ground(job, states)
        _compute(jobs, job, live, chunk_steps, watch)
        return
    live = states.state_of(job.graph)
    check_end(job.request.horizon, live.next_step_us, live.step_us)
    _begin(jobs, job, live, chunk_steps)
    try:
        _compute(jobs, job, live, chunk_steps, watch)
    except ModelError as error:
        # A floor has no weights.
        if live.model_digest is None or jobs.kept_digests(job):
            raise
        _log.warning("the model of %s made no forecast: the floor answers: %s", job.graph, error.message)
        floor = states.degrade(job.graph, no_forecast(job.graph))
        _begin(jobs, job, floor, chunk_steps)
        _compute(jobs, job, floor, chunk_steps, watch)


class _GroundMovedError(GraphtideError):
    """A job that has chunks cannot go on as it began."""


def _begin(jobs: Jobs, job: Job, live: LiveState, chunk_steps: int) -> None:
    place = {"first_step_us": live.next_step_us, "step_us": live.step_us, "chunk_steps": chunk_steps}
    jobs.begin(job, provenance(live, seed=job.request.seed) | place)


def _same_ground(job: Job, states: LiveStates) -> tuple[LiveState, int]:
    """Return the state that an interrupted job began from, and its chunk length.

    Raises:
        _GroundMovedError: that state cannot be had any more.
        StoreError: the store cannot be read.
    """
    ground = job.ground or {}
    live = states.state_of(job.graph)
    model = ground["model"], ground["model_digest"]
    if live.snapshots != ground["snapshots"] or (live.model.name, live.model_digest) != model:
        # Where the model made no forecast and the floor answered, the floor goes on.
        failed = no_forecast(job.graph)
        floor_for = failed if ground["degraded_reason"] == failed else None
        live = states.state_at(job.graph, ground["snapshots"], floor_for=floor_for)
    if live.digest != ground["snapshot_digest"]:
        raise _GroundMovedError("snapshots were revised after the forecast was interrupted: ask for it again")
    if (live.model.name, live.model_digest) != model:
        raise _GroundMovedError("the model was replaced after the forecast was interrupted: ask for it again")
    return live, ground["chunk_steps"]


def _compute(jobs: Jobs, job: Job, live: LiveState, chunk_steps: int, watch: _Watch) -> None:
    """Roll out and keep the chunks that are not kept yet.

    Those that are kept are computed again: the sample paths of the totals hang together from the first step on. They
    have to come out as they were, which is checked.
    """
    request, kept = job.request, jobs.kept_digests(job)
    chunks = roll_out(
        live.model,
        live.state,
        request.horizon,
        n_paths=request.paths,
        chunk_steps=chunk_steps,
        seed=request.seed,
    )
    for chunk in spans(watch.tracing, "chunk", chunks):
        if watch.stop.is_set():
            raise StoppedError("put back")
        if watch.lost.is_set():
            raise LostJobError("the lease is lost")
        body = job_chunks.pack(chunk, request.metrics, request.quantiles)
        before = kept.get(chunk.first_step)
        if before is None:
            jobs.keep(job, chunk.first_step, len(chunk), body)
        elif before != job_chunks.digest(body):
            raise _GroundMovedError("the forecast did not come out as before it was interrupted: ask for it again")


def main() -> None:
    """Work as told on stdin, until stdin ends."""
    run_worker(work)


if __name__ == "__main__":
    main()
