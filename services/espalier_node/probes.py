"""Probes: one try of each kind, and the pure count of successes and failures that turns tries into a verdict."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from espalier_kit.errors import EspalierError
from espalier_node.podspec import ContainerSpec
from espalier_node.runtime import ExecResult

MESSAGE_CHARACTERS = 512
Execute = Callable[[tuple[str, ...], float], Awaitable[ExecResult]]
"""Run a command in the container: (command, timeout in seconds)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One try."""

    is_success: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often, how patient; Kubernetes' defaults."""

    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int


@dataclass(frozen=True, slots=True)
class Count:
    """Tries in a row with the same outcome."""

    is_success: bool = False
    times: int = 0

    def after(self, outcome: Outcome) -> Count:
        return Count(outcome.is_success, self.times + 1 if outcome.is_success == self.is_success else 1)

    def verdict(self, schedule: Schedule) -> bool | None:
        """True or False once enough tries agree; None before that."""
        needed = schedule.success_threshold if self.is_success else schedule.failure_threshold
        return self.is_success if self.times >= needed else None


def schedule(probe: Mapping[str, Any]) -> Schedule:
    """The probe's own figures over the defaults."""
    return Schedule(
        initial_delay_s=float(probe.get("initialDelaySeconds", 0)),
        period_s=float(probe.get("periodSeconds", 10)),
        timeout_s=float(probe.get("timeoutSeconds", 1)),
        success_threshold=int(probe.get("successThreshold", 1)),
        failure_threshold=int(probe.get("failureThreshold", 3)),
    )


async def attempt(
    action: Mapping[str, Any], container: ContainerSpec, *, address: str, timeout_s: float, execute: Execute
) -> Outcome:
    """Try a probe or a lifecycle hook once. Never raises: what went wrong is the message."""
    try:
        if "exec" in action:
            return await _command(tuple(action["exec"].get("command") or ()), timeout_s, execute)
        if "httpGet" in action:
            return await _http(action["httpGet"], container, address, timeout_s)
        if "tcpSocket" in action:
            target = action["tcpSocket"]
            return await _tcp(target.get("host") or address, port_number(target["port"], container), timeout_s)
        if "grpc" in action:
            return await _grpc(f"{address}:{action['grpc']['port']}", action["grpc"].get("service") or "", timeout_s)
        if "sleep" in action:
            await asyncio.sleep(float(action["sleep"]["seconds"]))
            return Outcome(True)
    except (EspalierError, httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        return Outcome(False, _said(error))
    return Outcome(False, f"no probe of kind {', '.join(action)} is known")


def port_number(port: int | str, container: ContainerSpec) -> int:
    """A port by number or by the name that the container gives it; 0 where there is no such name."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    return next((int(p["containerPort"]) for p in container.raw.get("ports") or () if p.get("name") == port), 0)


async def _command(command: tuple[str, ...], timeout_s: float, execute: Execute) -> Outcome:
    result = await execute(command, timeout_s)
    return Outcome(result.exit_code == 0, result.output[-MESSAGE_CHARACTERS:])


async def _http(get: Mapping[str, Any], container: ContainerSpec, address: str, timeout_s: float) -> Outcome:
    scheme = str(get.get("scheme", "HTTP")).lower()
    host, port = get.get("host") or address, port_number(get["port"], container)
    headers = [("User-Agent", "kube-probe/espalier"), *((h["name"], h["value"]) for h in get.get("httpHeaders") or ())]
    # As a kubelet's: a probe does not verify the certificate, and proxies of the environment are not for it.
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=timeout_s) as client:
        path = str(get.get("path") or "/")
        answer = await client.get(f"{scheme}://{host}:{port}/{path.removeprefix('/')}", headers=headers)
    if 200 <= answer.status_code < 400:
        return Outcome(True)
    return Outcome(False, f"HTTP probe failed with statuscode: {answer.status_code}")


async def _tcp(host: str, port: int, timeout_s: float) -> Outcome:
    _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout_s)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(True)


async def _grpc(target: str, service: str, timeout_s: float) -> Outcome:
    """The standard health protocol. Imported late: most nodes never need gRPC's megabytes."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(target) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.aio.AioRpcError as error:
            return Outcome(False, f"gRPC health check: {error.code().name}: {error.details()}")
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Outcome(is_serving, "" if is_serving else f"gRPC health status {answer.status}")


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:MESSAGE_CHARACTERS]
