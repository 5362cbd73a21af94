"""The coordinator's port: handing work over, and the last view of every job.

`Work` follows the coordinator's watch, remembers what was pushed, and knows how long it has not answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from espalier_kit.clock import Clock, SystemClock, wait_or_stop
from espalier_kit.errors import EspalierError, NotFound, Retryable
from espalier_operator.plan.models import endpoints_digest
from espalier_operator.plan.outcome import WorkAction
from espalier_rpc.views import JobList, JobRequest, JobUpdate, JobView

log = logging.getLogger(__name__)

RECONNECT_S = 1.0


class WorkPort(Protocol):
    """The calls of `espalier_rpc.client.CoordinatorClient` that the operator makes; errors by meaning."""

    async def submit(self, job: JobRequest) -> JobView: ...

    async def update(self, update: JobUpdate) -> JobView: ...

    async def list(self, namespace: str = "") -> JobList: ...

    async def delete(self, uid: str) -> None: ...

    def watch(self) -> AsyncIterator[JobView]: ...


class Work:
    """Views by job uid. `on_view` is called with each change, `on_away` when the coordinator comes or goes."""

    def __init__(
        self, port: WorkPort, *, on_view: Callable[[JobView], None], on_away: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        self._port = port
        self._on_view, self._on_away = on_view, on_away
        self._clock = clock or SystemClock()
        self._views: dict[str, JobView] = {}
        self._pushed: dict[str, tuple[str, str]] = {}
        self._away_since: float | None = None
        self.is_synced = False

    def view(self, uid: str) -> JobView | None:
        """The last view of a job."""
        return self._views.get(uid)

    def views_named(self, kind: str, namespace: str, name: str) -> tuple[JobView, ...]:
        """Views of all jobs that had that name; more than one where an object was deleted and made again."""
        return tuple(v for v in self._views.values() if (v.kind, v.namespace, v.name) == (kind, namespace, name))

    @property
    def away_s(self) -> float | None:
        """Seconds since the coordinator stopped answering; None while it answers."""
        return None if self._away_since is None else self._clock.monotonic() - self._away_since

    def pushed(self, uid: str) -> str:
        """Digest of the endpoints that the present coordinator process got from us; empty if none."""
        view, known = self._views.get(uid), self._pushed.get(uid)
        return known[1] if view is not None and known is not None and known[0] == view.epoch else ""

    async def perform(self, action: WorkAction) -> None:
        """Carry one wish out. Raises `Retryable` while the coordinator is away."""
        try:
            view = await (self._port.submit(action) if isinstance(action, JobRequest) else self._port.update(action))
        except NotFound:
            if isinstance(action, JobRequest):
                raise  # of what it names, e.g. its template
            self._views.pop(action.uid, None)
            raise Retryable(f"the coordinator does not know job {action.uid}; it is handed over again") from None
        except Retryable as error:
            self._lost(str(error))
            raise
        self._take(view)
        if action.endpoints is not None:
            self._pushed[action.uid] = (view.epoch, endpoints_digest(action.endpoints))

    async def forget(self, uid: str) -> None:
        """Delete a job at the coordinator. Raises `Retryable` while it is away."""
        await self._port.delete(uid)
        self._views.pop(uid, None)
        self._pushed.pop(uid, None)

    async def sweep(self, wanted: Callable[[JobView], bool]) -> int:
        """Delete every job that nobody wants any more; returns how many."""
        listed = await self._port.list()
        orphans = [view for view in listed.jobs if not wanted(view)]
        for view in orphans:
            log.info("orphaned job deleted", extra={"uid": view.uid, "namespace": view.namespace, "job": view.name})
            await self.forget(view.uid)
        return len(orphans)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the coordinator until `stop`."""
        while not stop.is_set():
            try:
                await self._follow()
            except EspalierError as error:
                self._lost(str(error))
            await wait_or_stop(stop, RECONNECT_S)

    async def _follow(self) -> None:
        listed = await self._port.list()
        known = {view.uid for view in listed.jobs}
        for uid in self._views.keys() - known:
            self._views.pop(uid)
        for view in listed.jobs:
            self._take(view)
        self._found()
        async for view in self._port.watch():
            self._found()
            self._take(view)

    def _take(self, view: JobView) -> None:
        if self._views.get(view.uid) != view:
            self._views[view.uid] = view
            self._on_view(view)

    def _lost(self, why: str) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            log.warning("coordinator away", extra={"error": why})
            self._on_away()

    def _found(self) -> None:
        first, self.is_synced = not self.is_synced, True
        if self._away_since is not None or first:
            log.info("coordinator answers", extra={"away_s": round(self.away_s or 0.0, 1)})
            self._away_since = None
            self._on_away()
