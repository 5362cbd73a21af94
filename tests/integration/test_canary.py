"""`espalier-worker --canary` against the real coordinator process, and what it says when something is wrong.

The health port for kubelets is looked at here too: same process, same second.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.coordinator_process import CoordinatorProcess
from espalier_coordinator.local import NAME


@pytest.fixture(scope="module")
def health_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, health_port: int) -> Iterator[CoordinatorProcess]:
    running = CoordinatorProcess(tmp_path_factory.mktemp("coordinator"), HEALTH_PORT=str(health_port))
    running.start()
    yield running
    running.close()


def canary(process: CoordinatorProcess, who: str, *, seconds: float = 30, port: int | None = None) -> tuple[int, str]:
    """Exit code, and all that it said."""
    variables = {
        "COORDINATOR": f"127.0.0.1:{port or process.grpc_port}", "COORDINATOR_NAME": NAME, "NAMESPACE": "default",
        "COORDINATOR_WEB": f"https://127.0.0.1:{process.http_port}", "ID": "canary",
        "CA_FILE": str(process.folder / "tls/ca.crt"), "TOKEN_FILE": str(process.folder / f"{who}.token"),
    }  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    done = subprocess.run(
        [sys.executable, "-m", "espalier_worker", "--canary", str(seconds)], capture_output=True, text=True,
        env=own | {f"ESPALIER_WORKER_{name}": value for name, value in variables.items()}, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_task_goes_all_the_way_and_nothing_of_it_stays(process: CoordinatorProcess) -> None:
    code, said = canary(process, "admin")
    assert code == 0, said
    assert "canary: submitted, run and read back in" in said


def test_a_caller_without_the_right_is_told_so(process: CoordinatorProcess) -> None:
    code, said = canary(process, "worker")
    assert code == 1
    assert "may not submit or steer jobs" in said


def test_a_coordinator_that_does_not_answer_is_a_sentence(process: CoordinatorProcess) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        code, said = canary(process, "admin", seconds=1, port=nobody.getsockname()[1])
    assert code == 1
    assert "canary: not done after 1 s" in said


async def asked(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service="espalier.v1.Coordinator")
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        return int(answer.status)


async def test_the_health_port_answers_a_kubelet(process: CoordinatorProcess, health_port: int) -> None:
    assert await asked(health_port) == health_pb2.HealthCheckResponse.SERVING


async def test_a_stopped_process_answers_no_probe(process: CoordinatorProcess, health_port: int) -> None:
    """What the probe asks is the process that serves: when that stands still, nothing answers for it."""
    process.send(signal.SIGSTOP)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
    finally:
        process.send(signal.SIGCONT)
    assert await asked(health_port) == health_pb2.HealthCheckResponse.SERVING
