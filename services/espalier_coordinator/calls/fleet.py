"""Looking at the whole: workers, capacity, health; and telling a worker to leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.filters import check_status
from espalier_coordinator.calls.remote import unknown_worker
from espalier_coordinator.health import Health, problems
from espalier_coordinator.host import Host
from espalier_coordinator.standing import Fleet, fleet, overall, stats, worker_pictures
from espalier_coordinator.state import WorkerEntry
from espalier_coordinator.wire import stats_to_wire, worker_to_wire
from espalier_kit.errors import Conflict
from espalier_rpc.v1 import coordinator_pb2 as pb

STATUSES = frozenset({"idle", "busy", "draining", "unhealthy"})


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether all is well, and why not."""

    status: str
    message: str
    fleet: Fleet


class FleetCalls:
    """`now` is monotonic; a worker that is silent for longer than `timeout_s` is degraded."""

    def __init__(self, host: Host, health: Health, *, now: Callable[[], float], timeout_s: float) -> None:
        self._host = host
        self._health = health
        self._now = now
        self._timeout_s = timeout_s

    async def list_workers(self, caller: Identity, request: pb.ListWorkersRequest) -> pb.ListWorkersResponse:
        """The workers of the caller's namespaces that pass every filter."""
        if request.namespace:
            caller.require_namespace(request.namespace)
        check_status(request.status_filter, STATUSES, of="worker")
        tags = frozenset(request.tag_filter)
        found = worker_pictures(self._seen(caller), self._now(), timeout_s=self._timeout_s)
        return pb.ListWorkersResponse(workers=[
            worker_to_wire(w) for w in found
            if request.namespace in ("", w.namespace) and request.status_filter in ("", w.status)
            and tags <= frozenset(w.tags)
        ])

    async def drain(self, caller: Identity, request: pb.DrainWorkerRequest) -> pb.DrainWorkerResponse:
        """It finishes what it runs, hands the rest back and leaves."""
        worker = self._one(caller, request)
        caller.require_submit(_namespace(worker) or caller.namespace or "")
        await self._host.settle(self._host.engine.drain_worker(worker.key, request.reason or "somebody asked for it"))
        return pb.DrainWorkerResponse()

    async def stats(self, caller: Identity, _request: pb.GetClusterStatsRequest) -> pb.ClusterStats:
        """Sums over the caller's namespaces; over everything for an administrator."""
        jobs = [e for e in self._host.engine.jobs.values() if caller.may_see(e.job.namespace)]
        archived = [job for job in self._host.engine.archived.values() if caller.may_see(job.namespace)]
        return stats_to_wire(stats(jobs, archived, self._seen(caller)))

    async def health(self, _caller: Identity, _request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """Of the whole cluster, whoever asks."""
        found = self.standing()
        return pb.HealthCheckResponse(
            overall_status=found.status, message=found.message, epoch=self._host.engine.epoch,
            healthy_workers=found.fleet.healthy, degraded_workers=found.fleet.degraded,
            unhealthy_workers=found.fleet.unhealthy,
        )

    def standing(self) -> Standing:
        """Now."""
        engine = self._host.engine
        found = fleet(engine.workers.values(), self._now(), timeout_s=self._timeout_s)
        waiting = sum(engine.ready.depths().values())
        return Standing(*overall(found, problems(self._health.facts()), waiting), found)

    # ------------------------------------------------------------ inside

    def _seen(self, caller: Identity) -> list[WorkerEntry]:
        return [w for w in self._host.engine.workers.values() if may_see(caller, w)]

    def _one(self, caller: Identity, request: pb.DrainWorkerRequest) -> WorkerEntry:
        found = [
            w for w in self._seen(caller)
            if w.key.partition("/")[2] == request.worker_id and request.namespace in ("", _namespace(w))
        ]
        if not found:
            raise unknown_worker(request.worker_id)
        if len(found) > 1:
            raise Conflict(f"{len(found)} workers have the id {request.worker_id!r}: name the namespace",
                           reason="Ambiguous")
        return found[0]


def may_see(caller: Identity, worker: WorkerEntry) -> bool:
    """Its own namespace's workers, its pool's, and those that serve every namespace as far as they are one's own."""
    if caller.is_admin:
        return True
    namespace = _namespace(worker)
    return caller.may_see(namespace) if namespace else bool(caller.pool) and caller.pool == worker.profile.pool


def _namespace(worker: WorkerEntry) -> str:
    return (worker.hello.namespace or "") if worker.hello else worker.key.partition("/")[0].lstrip("*")


