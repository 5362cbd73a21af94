"""Health for a kubelet's gRPC probe, on a port of its own.

A kubelet's probe speaks no TLS, and the coordinator's gRPC speaks nothing else: grpc.health.v1 alone, in plain text,
says whether the server behind TLS takes work, and nothing more (docs/adr/0008-probes-of-a-tls-server.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from espalier_coordinator.health import Health, unready
from espalier_coordinator.settings import CoordinatorSettings
from espalier_rpc.server import HealthPort, Server

PERIOD_S = 1.0


@asynccontextmanager
async def health_port(settings: CoordinatorSettings, server: Server, health: Health) -> AsyncIterator[None]:
    """Answer until the end; nothing where no port is set. Raises `Misconfigured` where it cannot be had."""
    if not settings.health_port:
        yield
        return
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = HealthPort(f"{host}:{settings.health_port}", server)
    await port.start()
    following = asyncio.create_task(_follow(server, health), name="grpc-health")
    try:
        yield
    finally:
        following.cancel()
        await port.stop()


async def _follow(server: Server, health: Health) -> None:
    """gRPC health says what `/readyz` says. A server that leaves has said so itself, and is not contradicted."""
    while True:
        await asyncio.sleep(PERIOD_S)
        await server.set_serving(not unready(health.facts()))
