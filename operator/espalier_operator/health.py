"""`/healthz` (is there progress?), `/readyz`, `/metrics` on the metrics port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import generate_latest

from espalier_kit.clock import Clock, wait_or_stop
from espalier_operator.metrics import Metrics

LISTED_LIMIT_S = 200.0
"""Three missed resync lists."""
BLIND_LIMIT_S = 90.0
QUEUE_LIMIT_S = 120.0
LAG_LIMIT_S = 5.0
LAG_PERIOD_S = 1.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What health is judged by, in seconds. `listed_s` is None before the first list and in a standby."""

    is_leader: bool = False
    listed_s: float | None = None
    blind_s: float = 0.0
    queue_oldest_s: float = 0.0
    loop_lag_s: float = 0.0


def problems(vitals: Vitals) -> tuple[str, ...]:
    """Why the process is not healthy; empty if it is."""
    found: list[str] = []
    if vitals.loop_lag_s > LAG_LIMIT_S:
        found.append(f"the event loop is {vitals.loop_lag_s:.0f} s late")
    if vitals.is_leader and vitals.listed_s is not None and vitals.listed_s > LISTED_LIMIT_S:
        found.append(f"no list of the API server for {vitals.listed_s:.0f} s")
    if vitals.is_leader and vitals.blind_s > BLIND_LIMIT_S:
        found.append(f"a watch has missed a change for {vitals.blind_s:.0f} s")
    if vitals.is_leader and vitals.queue_oldest_s > QUEUE_LIMIT_S:
        found.append(f"the oldest key has waited {vitals.queue_oldest_s:.0f} s")
    return tuple(found)


class LoopLag:
    """How late the event loop wakes up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until `stop`."""
        due = self._clock.monotonic() + LAG_PERIOD_S
        while not await wait_or_stop(stop, LAG_PERIOD_S):
            now = self._clock.monotonic()
            self.seconds, due = max(0.0, now - due), now + LAG_PERIOD_S


class HealthServer:
    """Serves while the program runs."""

    def __init__(self, metrics: Metrics, vitals: Callable[[], Vitals], refresh: Callable[[], None]) -> None:
        self._metrics, self._vitals, self._refresh = metrics, vitals, refresh
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        app = web.Application()
        app.add_routes([
            web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._export)
        ])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        vitals = self._vitals()
        found = problems(vitals)
        body = {
            "problems": found, "leader": vitals.is_leader, "listed_s": vitals.listed_s, "blind_s": vitals.blind_s,
            "queue_oldest_s": vitals.queue_oldest_s, "loop_lag_s": vitals.loop_lag_s,
        }
        return web.Response(text=json.dumps(body), status=503 if found else 200, content_type="application/json")

    async def _readyz(self, _request: web.Request) -> web.Response:
        """Ready: a standby, or a leader that has seen the cluster once."""
        vitals = self._vitals()
        ready = not vitals.is_leader or vitals.listed_s is not None
        return web.Response(text="ready" if ready else "reading the cluster", status=200 if ready else 503)

    async def _export(self, _request: web.Request) -> web.Response:
        self._refresh()
        return web.Response(body=generate_latest(self._metrics.registry), content_type="text/plain")
