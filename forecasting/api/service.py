"""What the routes of one process share: the followed store, the model thread, keys, jobs, reports, alerts, meters."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

import torch
from fastapi import Depends, Request

from forecasting.alerts.records import DELIVERIES as ALERT_DELIVERIES
from forecasting.alerts.records import Alerts
from forecasting.alerts.rulebook import RuleBook
from forecasting.api.alert_meters import AlertMeters
from forecasting.api.bodies import Digits
from forecasting.api.cache import AnswerCache
from forecasting.api.computing import Computing
from forecasting.api.draining import told_of_the_end
from forecasting.api.following import Following
from forecasting.api.gpu_meters import GpuMeters, open_nvml
from forecasting.api.problems import Problem, near_names, unavailable
from forecasting.api.rates import Rates
from forecasting.api.redis_store import RedisStore
from forecasting.api.report_pdf import Printing
from forecasting.api.scoring import Scoring
from forecasting.api.scraped import Scraped
from forecasting.api.shared_cache import SharedCache
from forecasting.api.store_access import StoreAccess
from forecasting.api.subscriptions import Subscriptions
from forecasting.api.telemetry import Telemetry
from forecasting.api.warming import warm_up
from forecasting.jobs import Jobs
from forecasting.keys import ALL_GRAPHS, Key, KeyRing, Keys, Scope
from forecasting.reports.deliveries import Deliveries
from forecasting.reports.records import Reports
from forecasting.reports.schedules import Schedules
from forecasting.rollouts import Rollouts
from forecasting.service_file import ServiceFile
from forecasting.store_patience import StorePatience
from forecasting.tracing import Tracing, open_tracing
from infra.breaker import Breaker
from infra.errors import StoreError
from infra.settings import Settings
from stream.spool.file import Spool
from stream.store.base import GraphInfo

# Rollouts that are kept at once, besides the encoded answers: one for each of the busiest graphs.
KEPT_ROLLOUTS = 16
# Steps rolled out at once: as many as are asked for unless a request says otherwise, so that a new state answers soon.
ROLLOUT_BLOCK_STEPS = 24
_log = logging.getLogger(__name__)


class Service:
    """One serving process; made by `running`, which starts and stops what it holds.

    Args:
        settings: all of them.
        file: keys and jobs.
        spool: where events are kept; None where none are taken.
        tracing: makes spans.
    """

    def __init__(self, settings: Settings, file: ServiceFile, spool: Spool | None, tracing: Tracing) -> None:
        api = settings.api
        self.settings = settings
        self.telemetry = Telemetry()
        self.file = file
        self.spool = spool
        self.tracing = tracing
        self.jobs = Jobs(file, settings.jobs)
        self.reports = Reports(file, settings.reports, settings.jobs)
        self.printing = Printing(self.reports, settings.reports)
        self.schedules = Schedules(file, settings.reports)
        self.deliveries = Deliveries(file, settings.reports, lease_s=settings.jobs.lease_s)
        self.rules = RuleBook(file)
        self.alerts = Alerts(file, keep_s=settings.alerts.keep_s)
        self.alert_deliveries = Deliveries(
            file, settings.reports, lease_s=settings.jobs.lease_s, queue=ALERT_DELIVERIES
        )
        self.telemetry.registry.register(AlertMeters(self.rules, self.alerts))
        self.keyring = KeyRing(Keys(file), refresh_s=api.poll_interval_s)
        self.rates = Rates(per_s=api.rate_per_s, burst=api.rate_burst)
        self.patience = StorePatience.of(settings)
        self.store = StoreAccess(self.patience.for_requests, deadline_s=api.deadline_s, tracing=tracing)
        cache = AnswerCache(max_bytes=api.cache_mb << 20, lifetime_s=api.cache_lifetime_s)
        self.computing = Computing(
            cache,
            queue_size=api.queue_size,
            deadline_s=api.deadline_s,
            telemetry=self.telemetry,
            shared=_shared_cache(settings, self.telemetry, tracing),
            tracing=tracing,
        )
        self.subscriptions = Subscriptions(
            self.store,
            max_all=api.max_streams,
            max_per_key=api.max_streams_per_key,
            telemetry=self.telemetry,
        )
        self.following = Following(
            self.patience.for_background,
            settings.models.directory,
            max_graphs=api.max_live_graphs,
            poll_interval_s=api.poll_interval_s,
            telemetry=self.telemetry,
            scoring=Scoring(self.telemetry, seed=settings.forecast.seed),
            is_away=lambda: self.patience.is_away,
            tracing=tracing,
            on_new_state=cache.forget,
            on_look=self.subscriptions.looked,
        )
        self.telemetry.registry.register(Scraped(lambda: self.following.graphs, file))
        if (nvml := open_nvml()) is not None:
            self.telemetry.registry.register(GpuMeters(nvml))
        self.rollouts = Rollouts(
            block_steps=min(ROLLOUT_BLOCK_STEPS, api.short_max_steps),
            max_steps=api.short_max_steps,
            keep=KEPT_ROLLOUTS,
        )
        self.digits = Digits(KEPT_ROLLOUTS)

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings) -> AsyncIterator["Service"]:
        """Yield a service that follows its store and has forecast once.

        Until then nobody is answered, so that who is told that it is ready need not wait for torch and the model.

        Raises:
            StoreError: the service's file or the spool cannot be opened; a store that cannot be read is waited for.
        """
        # Requests share the cores; a rollout is too small to share out.
        torch.set_num_threads(1)
        async with AsyncExitStack() as stack:
            file = stack.enter_context(ServiceFile(settings.api.service_db))
            spool = stack.enter_context(Spool(settings.spool.path)) if settings.api.ingestion else None
            tracing = stack.enter_context(open_tracing(settings.tracing, "serve"))
            service = cls(settings, file, spool, tracing)
            stack.push_async_callback(service.store.close)
            stack.push_async_callback(service.computing.close)
            if service.computing.shared is not None:
                # Said at once: it may be no outage but a wrong password.
                await service.computing.shared.look()
            warming = asyncio.create_task(asyncio.to_thread(warm_up))
            await stack.enter_async_context(service.following)
            await warming
            stack.callback(service.patience.stop.set)
            stack.enter_context(told_of_the_end(service.subscriptions.drain))
            yield service

    def graph(self, caller: Key, name: str, scope: Scope = Scope.READ) -> GraphInfo:
        """Return a graph that the caller may use.

        Raises:
            Problem: 404 where there is none or the key is not for it, which shall look the same; 403 where the scope
                is too small; 503 where the store was never read.
        """
        info = self.following.graphs.get(name) if caller.sees(name) else None
        if info is None:
            if not self.following.graphs and self.following.store_error is not None:
                raise unavailable("store-unavailable", "the store cannot be read yet")
            near = near_names(name, (known for known in self.following.graphs if caller.sees(known)))
            meant = f"; did you mean {' or '.join(near)}?" if near else "; GET /v1/graphs lists those there are"
            raise Problem(404, "unknown-graph", f"there is no graph {name[:200]!r}{meant}", near=near)
        require(caller, scope)
        return info

    async def lets_stay(self, caller: Key) -> bool:
        """Tell whether a caller who was let in may go on: streams end with their key."""
        try:
            return await self.keyring.holds(caller)
        except StoreError as error:
            # Whoever was let in stays while keys cannot be read.
            _log.warning("API keys cannot be read: %s", error.message)
            return True


def _shared_cache(settings: Settings, telemetry: Telemetry, tracing: Tracing) -> SharedCache | None:
    chosen = settings.cache
    if not chosen.redis_url:
        return None
    return SharedCache(
        RedisStore(chosen),
        lifetime_s=settings.api.cache_lifetime_s,
        timeout_s=chosen.timeout_s,
        breaker=Breaker(failures=chosen.failures, pause_s=chosen.pause_s),
        telemetry=telemetry,
        tracing=tracing,
    )


def require(caller: Key, scope: Scope, graph: str | None = None) -> None:
    """Refuse a caller whose key does not allow `scope`, with `graph` if that is given.

    Raises:
        Problem: 403.
    """
    if caller.scope < scope or (graph is not None and not caller.sees(graph)):
        of = " of all graphs" if graph == ALL_GRAPHS else ""
        detail = (
            f"this needs a key with scope {scope.name.lower()}{of}; {caller.name!r} has {caller.scope.name.lower()}"
        )
        raise Problem(403, "forbidden", detail)


def the_service(request: Request) -> Service:
    """Return the service of this process."""
    service: Service = request.app.state.service
    return service


def the_caller(request: Request) -> Key:
    """Return whose request this is; the gate has put it there."""
    caller: Key = request.scope["graphtide.caller"]
    return caller


ServiceHere = Annotated[Service, Depends(the_service)]
CallerHere = Annotated[Key, Depends(the_caller)]
