"""Leader election over a `coordination.k8s.io` Lease: 15 s lease, 10 s to renew it, a try every 2 s.

A holder is judged by this machine's own clock (how long its record has not changed), never by timestamps of others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from espalier_kit.clock import Clock, SystemClock, wait_or_stop
from espalier_kit.errors import Conflict, EspalierError, NotFound
from espalier_kube.cluster import LEASE, Cluster, Object
from espalier_kube.objects import metadata, micro_timestamp, typed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds. A holder that could not renew for `renew_s` must stop writing; others wait `lease_s`."""

    lease_s: int = 15
    renew_s: float = 10.0
    retry_s: float = 2.0


class Election:
    """One candidate. `held` is true only while this process may write; `took_over` says that somebody had it before.

    `supersedes` says of a holder's identity whether it is surely dead (an earlier process of this very container):
    its lease is then taken over at once.
    """

    def __init__(
        self, cluster: Cluster, *, name: str, namespace: str, identity: str, durations: Durations | None = None,
        clock: Clock | None = None, supersedes: Callable[[str], bool] = lambda _holder: False,
    ) -> None:
        self._cluster = cluster
        self._name, self._namespace, self.identity = name, namespace, identity
        self._durations = durations or Durations()
        self._clock = clock or SystemClock()
        self._supersedes = supersedes
        self._renewed_at: float | None = None
        self._seen: tuple[str, float] | None = None
        self.took_over = False
        self.previous_holder = ""

    @property
    def held(self) -> bool:
        """Whether the lease is ours and fresh enough to write under."""
        return self._renewed_at is not None and self._clock.monotonic() - self._renewed_at < self._durations.renew_s

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Try until the lease is ours; False if `stop` came first. `previous_holder` then names who had it."""
        while not stop.is_set():
            if await self._attempt():
                log.info("lease acquired", extra={"identity": self.identity, "previous": self.previous_holder})
                return True
            await wait_or_stop(stop, self._durations.retry_s)
        return False

    async def keep(self, stop: asyncio.Event) -> bool:
        """Renew until `stop` (returns True) or until the lease is lost (returns False)."""
        while not await wait_or_stop(stop, self._durations.retry_s):
            if not await self._attempt() and not self.held:
                self._renewed_at = None
                log.error("lease lost", extra={"identity": self.identity})
                return False
        return True

    async def release(self) -> None:
        """Give the lease back, so that the next holder need not wait."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        try:
            lease = await self._cluster.get(LEASE, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._cluster.replace(lease)
        except EspalierError as error:
            log.warning("lease not released", extra={"error": str(error)})

    async def _attempt(self) -> bool:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._durations.renew_s / 2):
                won = await self._try_once()
        except Conflict:
            return False
        except (EspalierError, TimeoutError) as error:
            log.warning("lease attempt failed", extra={"error": repr(error)})
            return False
        self._renewed_at = started if won else None
        return won

    async def _try_once(self) -> bool:
        try:
            lease = await self._cluster.get(LEASE, self._name, self._namespace)
        except NotFound:
            spec = self._record(transitions=0, acquired=None)
            await self._cluster.create(typed(LEASE, metadata(self._name, self._namespace), spec=spec))
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder == self.identity:
            transitions, acquired = spec.get("leaseTransitions") or 0, spec.get("acquireTime")
            lease["spec"] = self._record(transitions=transitions, acquired=acquired)
            await self._cluster.replace(lease)
            return True
        if not self._may_take(lease, holder):
            return False
        lease["spec"] = self._record(transitions=(spec.get("leaseTransitions") or 0) + 1, acquired=None)
        await self._cluster.replace(lease)
        self.took_over, self.previous_holder = True, holder
        return True

    def _may_take(self, lease: Object, holder: str) -> bool:
        if not holder or self._supersedes(holder):
            return True
        record, now = lease["metadata"]["resourceVersion"], self._clock.monotonic()
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, now)
            return False
        duration = (lease.get("spec") or {}).get("leaseDurationSeconds") or self._durations.lease_s
        return now - self._seen[1] > float(duration)

    def _record(self, *, transitions: int, acquired: str | None) -> Object:
        now = micro_timestamp(self._clock.now())
        return {
            "holderIdentity": self.identity, "leaseDurationSeconds": self._durations.lease_s,
            "acquireTime": acquired or now, "renewTime": now, "leaseTransitions": transitions,
        }
