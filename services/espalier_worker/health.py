"""Health by progress: `/healthz`, `/readyz` and `/metrics`, and how late the event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from espalier_kit.clock import Clock
from espalier_kit.errors import Misconfigured
from espalier_worker.metrics import Metrics

log = logging.getLogger(__name__)

STALE_TRY_S = 60.0
"""Neither connected nor trying for so long: the reconnect loop is stuck."""
STRAY_S = 30.0
"""An attempt that goes on for so long after its end can only be stopped with the process."""
LAG_S = 5.0
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Facts:
    """What health is judged by; durations in seconds."""

    is_connected: bool
    is_draining: bool
    since_last_try_s: float
    oldest_stray_s: float


def problems(facts: Facts, *, lag_s: float) -> tuple[str, ...]:
    """Why the process should be restarted; none: it is alive."""
    found = []
    if not facts.is_connected and facts.since_last_try_s > STALE_TRY_S:
        found.append(f"no session and no try for {facts.since_last_try_s:.0f} s")
    if facts.oldest_stray_s > STRAY_S:
        found.append(f"an attempt ignores its end for {facts.oldest_stray_s:.0f} s")
    if lag_s > LAG_S:
        found.append(f"the event loop is {lag_s:.1f} s late")
    return tuple(found)


class LoopLag:
    """Measures by how much a short sleep is late."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self.last_s = 0.0

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(_TICK_S)
            self.last_s = max(0.0, self._clock.monotonic() - before - _TICK_S)
            self._metrics.loop_lag.set(self.last_s)


def app(facts: Callable[[], Facts], lag: LoopLag, metrics: Metrics) -> FastAPI:
    """The three routes."""
    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @web.get("/healthz")
    async def healthz() -> Response:
        found = problems(facts(), lag_s=lag.last_s)
        return Response("; ".join(found) or "ok", status_code=503 if found else 200, media_type="text/plain")

    @web.get("/readyz")
    async def readyz() -> Response:
        now = facts()
        is_ready = now.is_connected and not now.is_draining
        said = "ok" if is_ready else "draining" if now.is_draining else "no session with the coordinator"
        return Response(said, status_code=200 if is_ready else 503, media_type="text/plain")

    @web.get("/metrics")
    async def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return web


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is untyped here
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the program handles its own signals


def listen(host: str, port: int) -> socket.socket:
    """Where health will answer; port 0 takes any free one. Raises `Misconfigured` where the address cannot be had."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}", reason="AddressInUse") from error
    log.info("health and metrics", extra={"address": address_of(listener)})
    return listener


def address_of(listener: socket.socket) -> str:
    """HOST:PORT as it was taken."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(web: FastAPI, listener: socket.socket) -> None:
    """Serve until cancelled."""
    server = _Server(uvicorn.Config(web, log_config=None, access_log=False, lifespan="off"))
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        await server.shutdown(sockets=[listener])
        raise
