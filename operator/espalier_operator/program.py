"""The operator's life: stand by, take the Lease, read the cluster, reconcile until stopped, give the Lease back."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from espalier_api.names import OPERATOR_LEASE
from espalier_kit.artifacts import ArtifactStore
from espalier_kit.clock import Clock, SystemClock, wait_or_stop
from espalier_kit.errors import EspalierError, Forbidden, NotFound, Retryable
from espalier_kube.client import Client, connect
from espalier_kube.cluster import MODEL_SERVER, POD
from espalier_kube.lease import Election
from espalier_operator import reading
from espalier_operator.apply import Applier
from espalier_operator.authority import Authority
from espalier_operator.cache import Cache
from espalier_operator.doctor import Doctor, HttpProbe, Target
from espalier_operator.fence import FencedCluster
from espalier_operator.handlers import WatchLoop
from espalier_operator.health import HealthServer, LoopLag, Vitals
from espalier_operator.metrics import Metrics
from espalier_operator.observe import Observer
from espalier_operator.plan.kinds import JOB_KINDS
from espalier_operator.plan.modelserver import certificate_name
from espalier_operator.plan.policies import read_templates
from espalier_operator.queue import Key, WorkQueue
from espalier_operator.reconcile import Reconciler
from espalier_operator.report import Reporter
from espalier_operator.routing import open_jobs
from espalier_operator.settings import OperatorSettings
from espalier_operator.sources import SourceResolver
from espalier_operator.watching import Intake
from espalier_operator.work import Work
from espalier_operator.workers import work_off
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.client import CoordinatorClient, channel
from espalier_rpc.views import JobView

log = logging.getLogger(__name__)

RECONCILERS = 4
RETRY_S = 2.0
SWEEP_S = 60.0
UPKEEP_S = 3600.0
DRAIN_S = 8.0
AWAY_RECHECK_S = 7.0
"""After the coordinator went away: a little longer than a restart takes, then conditions tell it."""


async def run(settings: OperatorSettings, stop: asyncio.Event) -> None:
    """The whole program. Raises `Retryable` when the Lease is lost, so that the process ends and starts afresh."""
    clock, metrics = SystemClock(), Metrics()
    client = await connect(settings.kubeconfig, observer=metrics.api_call)
    election = _election(client, settings)
    leader = _Leader(settings, client, election, metrics, clock)
    health = HealthServer(metrics, leader.vitals, leader.refresh_metrics)
    port = await health.start(settings.host, settings.port)
    log.info("health page open", extra={"host": settings.host, "port": port})
    lag = asyncio.create_task(leader.lag.run(stop))
    try:
        if await election.acquire(stop):
            await leader.lead(stop)
    finally:
        lag.cancel()
        await election.release()
        await health.stop()
        await client.close()


def _election(client: Client, settings: OperatorSettings) -> Election:
    """Within one pod only one operator process lives at a time, so it may take its predecessor's Lease at once."""
    name = settings.pod_name
    identity = f"{name or 'operator'}_{uuid.uuid4().hex[:8]}"
    return Election(
        client, name=OPERATOR_LEASE, namespace=settings.namespace, identity=identity,
        supersedes=lambda holder: bool(name) and holder.rpartition("_")[0] == name,
    )


class _Leader:
    """Everything that lives while this process holds the Lease."""

    def __init__(
        self, settings: OperatorSettings, client: Client, election: Election, metrics: Metrics, clock: Clock
    ) -> None:
        self._settings, self._client, self._election = settings, client, election
        self._metrics, self._clock = metrics, clock
        self._cluster = FencedCluster(client, lambda: election.held, on_write=metrics.write)
        self._cache, self._queue = Cache(), WorkQueue(clock=clock)
        self._intake = Intake(self._cache, self._queue.add, clock)
        self._authority = Authority(self._cluster, settings, clock)
        self._reporter = Reporter(self._cluster, self._intake, clock)
        self._policies = read_templates(settings.policies_file)
        self._work: Work | None = None
        self.lag = LoopLag(clock)

    def vitals(self) -> Vitals:
        """For the health page."""
        return Vitals(
            is_leader=self._election.held, listed_s=self._intake.listed_s, blind_s=self._intake.blind_s,
            queue_oldest_s=self._queue.oldest_s, loop_lag_s=self.lag.seconds,
        )

    def refresh_metrics(self) -> None:
        """Gauges, just before they are read."""
        self._metrics.leader.set(self._election.held)
        self._metrics.queue_depth.set(self._queue.depth)
        self._metrics.queue_oldest_seconds.set(self._queue.oldest_s)
        self._metrics.loop_lag_seconds.set(self.lag.seconds)
        self._metrics.status_writes_max.set(self._reporter.most_writes)
        self._metrics.coordinator_away_seconds.set((self._work.away_s if self._work else None) or 0.0)

    async def lead(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until the Lease is lost."""
        keeper = asyncio.create_task(self._election.keep(stop))
        leading = asyncio.create_task(self._work_on(stop))
        try:
            await asyncio.wait({keeper, leading}, return_when=asyncio.FIRST_COMPLETED)
            if keeper.done() and not keeper.result():
                raise Retryable("another process holds the operator's Lease", reason="LeaseLost")
            await leading
        finally:
            for task in (leading, keeper):
                task.cancel()
            await asyncio.gather(leading, keeper, return_exceptions=True)

    async def _work_on(self, stop: asyncio.Event) -> None:
        if not await self._prepare(stop):
            return
        settings, ca_pem = self._settings, self._authority.ca_pem
        wire = channel(
            settings.coordinator, ca_pem=ca_pem, server_name=settings.coordinator_name, token=self._token
        )
        port = CoordinatorClient(wire)
        probe, web = HttpProbe(ca_pem), web_client(settings.coordinator_web, ca_pem=ca_pem)
        doctor = Doctor(probe, self._targets, self._add_server, self._clock)
        self._work = work = Work(port, on_view=self._add_view, on_away=self._add_jobs, clock=self._clock)

        def store_of(namespace: str) -> ArtifactStore:
            return HttpArtifacts(web, namespace=namespace, token=self._token, server_name=settings.coordinator_name)

        observer = Observer(
            cache=self._cache, cluster=self._cluster, work=work, authority=self._authority,
            sources=SourceResolver(self._cluster, store_of), probes=doctor, clock=self._clock,
        )
        self._intake.on_gone = [observer.forget, self._reporter.forget]
        if self._election.took_over:
            observer.took_over(f"{self._election.identity} after {self._election.previous_holder or 'one that left'}")
        reconciler = Reconciler(
            observer=observer,
            applier=Applier(
                self._cluster, self._cache, self._intake, self._authority, self._clock, policies=self._policies
            ),
            reporter=self._reporter, work=work, cluster=self._cluster, cache=self._cache, intake=self._intake,
            settings=settings, clock=self._clock,
        )
        watch = WatchLoop(self._intake.event, server=self._client.server, kubeconfig=settings.kubeconfig)
        watch.start()
        try:
            loops = (
                work.run(stop), doctor.run(stop), self._intake.run(self._cluster, stop), self._sweep(stop, work),
                self._upkeep(stop),
            )
            workers = (work_off(self._queue, reconciler.reconcile, self._metrics) for _ in range(RECONCILERS))
            await self._until_stopped(stop, watch, loops=tuple(loops), workers=tuple(workers))
        finally:
            await watch.stop()
            await probe.close()
            await web.aclose()
            await port.close()

    async def _until_stopped(
        self, stop: asyncio.Event, watch: WatchLoop, *, loops: tuple[Coroutine[Any, Any, None], ...],
        workers: tuple[Coroutine[Any, Any, None], ...],
    ) -> None:
        """Run until `stop` or a failure; then let the reconciles that have begun finish."""
        looping = [asyncio.create_task(part) for part in loops]
        working = [asyncio.create_task(part) for part in workers]
        ends = [asyncio.create_task(event.wait()) for event in (stop, watch.failed)]
        try:
            done, _ = await asyncio.wait([*looping, *working, *ends], return_when=asyncio.FIRST_COMPLETED)
            self._queue.close()
            for task in done:
                task.result()
            if watch.failed.is_set() and not stop.is_set():
                raise Retryable("the watch loop ended by itself", reason="WatchLoopEnded")
            await asyncio.wait(working, timeout=DRAIN_S)
        finally:
            for task in (*looping, *working, *ends):
                task.cancel()
            await asyncio.gather(*looping, *working, *ends, return_exceptions=True)

    async def _prepare(self, stop: asyncio.Event) -> bool:
        """Authority, the coordinator's certificate, the first list; tried until it works or `stop`."""
        steps: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self._authority.load, self._authority.ensure_coordinator, self._authority.ensure_metrics_api,
            lambda: self._intake.resync(self._cluster),
        )
        for step in steps:
            while not stop.is_set():
                try:
                    await step()
                    break
                except (Retryable, NotFound, Forbidden) as error:
                    log.warning("not ready yet", extra={"error": str(error)})
                    await wait_or_stop(stop, RETRY_S)
        return not stop.is_set()

    async def _sweep(self, stop: asyncio.Event, work: Work) -> None:
        """Work whose object is gone: what a finalizer would do, without blocking anybody's delete.

        And an APIService that came, or was applied again, since the last look.
        """
        while not await wait_or_stop(stop, SWEEP_S):
            try:
                await self._authority.ensure_metrics_api()
                await work.sweep(self._is_wanted)
            except EspalierError as error:
                log.warning("orphan sweep failed", extra={"error": str(error)})

    async def _upkeep(self, stop: asyncio.Event) -> None:
        """Renew certificates long before they end: the coordinator's here, model servers' when they are looked at."""
        while not await wait_or_stop(stop, UPKEEP_S):
            try:
                await self._authority.ensure_coordinator()
            except EspalierError as error:
                log.warning("coordinator's certificate not checked", extra={"error": str(error)})
            for server in self._cache.all(MODEL_SERVER):
                self._add_server((server["metadata"]["namespace"], server["metadata"]["name"]))

    def _is_wanted(self, view: JobView) -> bool:
        if view.kind not in JOB_KINDS:
            return True
        obj = self._cache.get(JOB_KINDS[view.kind], view.name, view.namespace)
        return obj is not None and obj["metadata"]["uid"] == view.uid

    def _targets(self) -> Iterator[Target]:
        for obj in self._cache.all(MODEL_SERVER):
            server = reading.model_server(obj)
            name, namespace = server.metadata.name, server.metadata.namespace
            for pod in self._cache.all(POD, namespace):
                address = (pod.get("status") or {}).get("podIP")
                if address and reading.belongs(pod, "ModelServer", name) and _is_alive(pod):
                    yield Target(pod["metadata"]["uid"], (namespace, name), address, certificate_name(server))

    def _add_server(self, server: tuple[str, str]) -> None:
        self._queue.add(Key("ModelServer", *server))

    def _add_view(self, view: JobView) -> None:
        if view.kind in JOB_KINDS:
            self._queue.add(Key(view.kind, view.namespace, view.name))

    def _add_jobs(self) -> None:
        """The coordinator came or went: look at every job now, and again when it has been away for a while."""
        for key in open_jobs(self._cache):
            self._queue.add(key)
            self._queue.add_after(key, AWAY_RECHECK_S)

    def _token(self) -> str:
        return self._settings.token_file.read_text().strip()


def _is_alive(pod: dict[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Failed", "Succeeded") and "deletionTimestamp" not in pod["metadata"]
