"""Probes: one try of each kind, counts, and the order startup, then liveness and readiness."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # the stubs lack it

from espalier_node.health import ProbeKind, Prober, Reports, first_verdict
from espalier_node.probes import Count, Outcome, attempt, port_number, schedule
from espalier_node.runtime import ExecResult
from tests.support.node import container, pod

HOST = "127.0.0.1"


async def no_command(_command: tuple[str, ...], _timeout_s: float) -> ExecResult:
    return ExecResult(0, "")


async def tried(action: dict[str, Any], execute: Any = no_command) -> Outcome:
    return await attempt(action, pod().main[0], address=HOST, timeout_s=2, execute=execute)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    status = b"500 No" if b"/bad" in request.splitlines()[0] else b"200 OK"
    writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_http_and_tcp() -> None:
    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await tried({"httpGet": {"path": "/ok", "port": port}})).is_success
        assert (await tried({"tcpSocket": {"port": port}})).is_success
        bad = await tried({"httpGet": {"path": "bad", "port": str(port)}})
    assert (bad.is_success, bad.message) == (False, "HTTP probe failed with statuscode: 500")
    assert not (await tried({"tcpSocket": {"port": free_port()}})).is_success
    assert not (await tried({"httpGet": {"port": free_port()}})).is_success


async def test_commands() -> None:
    async def failing(command: tuple[str, ...], _timeout_s: float) -> ExecResult:
        return ExecResult(1, " ".join(command))

    assert (await tried({"exec": {"command": ["a"]}})).is_success
    assert await tried({"exec": {"command": ["a", "b"]}}, failing) == Outcome(False, "a b")


async def test_grpc_health() -> None:
    server, servicer = grpc.aio.server(), health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        assert (await tried({"grpc": {"port": port}})).is_success
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not (await tried({"grpc": {"port": port}})).is_success
        assert "NOT_FOUND" in (await tried({"grpc": {"port": port, "service": "x"}})).message
    finally:
        await server.stop(None)


async def test_an_unknown_kind_fails_with_a_sentence() -> None:
    assert (await tried({"pray": {}})).message == "no probe of kind pray is known"


def test_ports_by_name() -> None:
    made = pod(container(ports=[{"name": "web", "containerPort": 80}])).main[0]
    assert [port_number(port, made) for port in (1, "2", "web", "no")] == [1, 2, 80, 0]


def test_a_verdict_needs_enough_tries_in_a_row() -> None:
    plan, count, verdicts = schedule({"failureThreshold": 2, "successThreshold": 2}), Count(), []
    for is_success in (True, True, False, True, False, False):
        count = count.after(Outcome(is_success))
        verdicts.append(count.verdict(plan))
    assert verdicts == [None, True, None, None, None, False]


class Watched:
    """A container under probes, with what they reported."""

    def __init__(self, **probes: Any) -> None:
        fast: dict[str, Any] = {}
        for name, extra in probes.items():
            fast[name] = {"exec": {"command": [name]}, "periodSeconds": 0.001, **extra}
        made = pod(container("main", **fast)).main[0]
        self.verdict = first_verdict(made, was_ready=False, was_started=False)
        self.ill: set[str] = set()
        self.tried: list[str] = []
        self.fatal: list[ProbeKind] = []
        self.moved = asyncio.Event()
        reports = Reports(self.moved.set, self.failed, self.killed)
        self.prober = Prober(made, self.verdict, address=HOST, execute=self.execute, reports=reports, running_s=0)

    async def execute(self, command: tuple[str, ...], _timeout_s: float) -> ExecResult:
        self.tried.append(command[0])
        self.moved.set()
        return ExecResult(int(command[0] in self.ill), "")

    async def failed(self, _kind: ProbeKind, _message: str) -> None:
        return

    async def killed(self, kind: ProbeKind) -> None:
        self.fatal.append(kind)
        self.moved.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        task = asyncio.create_task(self.prober.run())
        try:
            async with asyncio.timeout(5):
                while not is_so():
                    self.moved.clear()
                    await self.moved.wait()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_readiness_comes_and_goes() -> None:
    watched = Watched(readinessProbe={"failureThreshold": 1})
    assert (watched.verdict.is_started, watched.verdict.is_ready) == (True, False)
    await watched.until(lambda: watched.verdict.is_ready)
    watched.ill = {"readinessProbe"}
    await watched.until(lambda: not watched.verdict.is_ready)


async def test_nothing_else_is_tried_before_the_start_is_over() -> None:
    watched = Watched(startupProbe={"failureThreshold": 99}, livenessProbe={}, readinessProbe={})
    watched.ill = {"startupProbe"}
    await watched.until(lambda: len(watched.tried) > 5)
    assert set(watched.tried) == {"startupProbe"}
    assert not watched.verdict.is_started
    watched.ill = set()
    await watched.until(lambda: watched.verdict.is_ready)
    assert watched.verdict.is_started


@pytest.mark.parametrize("kind", ["startup", "liveness"])
async def test_a_fatal_probe_ends_the_container(kind: ProbeKind) -> None:
    watched = Watched(**{f"{kind}Probe": {"failureThreshold": 2}})
    watched.ill = {f"{kind}Probe"}
    await watched.until(lambda: watched.fatal == [kind])
    assert len(watched.tried) == 2


def test_an_adopted_run_keeps_what_was_reported_of_it() -> None:
    made = pod(container(readinessProbe={"exec": {}}, startupProbe={"exec": {}})).main[0]
    assert first_verdict(made, was_ready=True, was_started=True).is_ready
    assert not first_verdict(made, was_ready=True, was_started=False).is_ready
