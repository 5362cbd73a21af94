"""A real worker and a real coordinator, killed in the middle of a job: nothing is lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from espalier_kit.digest import sha256
from espalier_kit.errors import EXIT_STOPPED, EspalierError, Forbidden, Retryable
from espalier_kit.execution import TaskSpec
from espalier_kit.retry import Backoff
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.client import CoordinatorClient, channel
from espalier_rpc.views import JobRequest, JobView

ROOT = Path(__file__).parents[2]
NAME = "espalier-coordinator.local.svc"
PARENTS, CHILDREN = 20, 3
TOTAL = PARENTS * (1 + CHILDREN)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Programs:
    """One coordinator and one worker on loopback, started and killed at will."""

    folder: Path
    grpc: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start_coordinator(self) -> None:
        await self._start("coordinator", ["espalier_coordinator", "--local", str(self.folder)], {
            "ESPALIER_COORDINATOR_HOST": "127.0.0.1", "ESPALIER_COORDINATOR_GRPC_PORT": str(self.grpc),
            "ESPALIER_COORDINATOR_HTTP_PORT": str(self.web), "ESPALIER_COORDINATOR_LEASE_S": "4",
            "ESPALIER_COORDINATOR_HEARTBEAT_S": "0.3",
        })

    async def start_worker(self, *, name: str = "worker", job_uid: str = "") -> None:
        health = free_port() if name != "worker" else self.health
        await self._start(name, ["tests.support.worker_process"], {
            "ESPALIER_WORKER_COORDINATOR": f"127.0.0.1:{self.grpc}",
            "ESPALIER_WORKER_COORDINATOR_WEB": f"https://127.0.0.1:{self.web}",
            "ESPALIER_WORKER_COORDINATOR_NAME": NAME, "ESPALIER_WORKER_CA_FILE": str(self.folder / "tls" / "ca.crt"),
            "ESPALIER_WORKER_TOKEN_FILE": str(self.folder / "worker.token"), "ESPALIER_WORKER_NAMESPACE": "default",
            "ESPALIER_WORKER_ID": name, "ESPALIER_WORKER_PORT": str(health),
            "ESPALIER_WORKER_JOB_UID": job_uid,
        })

    async def kill(self, program: str, number: signal.Signals = signal.SIGKILL) -> int:
        process = self.running.pop(program)
        process.send_signal(number)
        return await asyncio.wait_for(process.wait(), 30)

    async def exit_code(self, program: str) -> int:
        return await asyncio.wait_for(self.running.pop(program).wait(), 30)

    def client(self) -> CoordinatorClient:
        ca_pem, token = (self.folder / "tls" / "ca.crt").read_text(), (self.folder / "admin.token").read_text()
        address = f"127.0.0.1:{self.grpc}"
        return CoordinatorClient(channel(address, ca_pem=ca_pem, server_name=NAME, token=lambda: token))

    async def _start(self, program: str, arguments: list[str], settings: dict[str, str]) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self.running[program] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *arguments, cwd=ROOT, env={**os.environ, **settings}, stderr=log
            )


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    started = Programs(tmp_path)
    await started.start_coordinator()
    yield started
    for program, process in tuple(started.running.items()):
        if process.returncode is None:
            await started.kill(program)


async def persist(attempt: Callable[[], asyncio.Future[JobView]], *, timeout_s: float = 20.0) -> JobView:
    """Until the coordinator answers."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await attempt()
            except (EspalierError, FileNotFoundError):
                await asyncio.sleep(0.1)


async def submit(programs: Programs, request: JobRequest) -> JobView:
    async def attempt() -> JobView:
        client = programs.client()
        try:
            return await client.submit(request)
        finally:
            await client.close()

    return await persist(attempt)


async def until(programs: Programs, predicate: Callable[[JobView], bool], *, timeout_s: float = 60.0) -> JobView:
    """Watch, across restarts of the coordinator, until a view of the job satisfies `predicate`."""
    last: JobView | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                client = programs.client()
                try:
                    async with aclosing(client.watch()) as views:
                        async for last in views:
                            if predicate(last):
                                return last
                except EspalierError:
                    await asyncio.sleep(0.1)
                finally:
                    await client.close()
    except TimeoutError:
        logs = {p: (programs.folder / f"{p}.log").read_text()[-3000:] for p in ("coordinator", "worker")}
        raise AssertionError(f"last seen: {last}; {logs}") from None


def class_of(diary: Path, *, seconds: float) -> JobRequest:
    payload = {"diary": str(diary), "seconds": seconds, "children": CHILDREN}
    tasks = tuple(TaskSpec(key=f"p{n}", type="test.parent", payload=payload) for n in range(PARENTS))
    return JobRequest(uid="job-1", namespace="default", name="class", kind="GradingJob", tasks=tasks)


async def test_kill_coordinator_then_worker(programs: Programs, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    await submit(programs, class_of(diary, seconds=0.1))
    await programs.start_worker(job_uid="job-1")
    await until(programs, lambda job: job.counts.done >= TOTAL // 5)
    await programs.kill("coordinator")
    await programs.start_coordinator()
    await until(programs, lambda job: job.counts.done >= TOTAL // 2)
    await programs.kill("worker")
    await programs.start_worker(job_uid="job-1")
    job = await until(programs, lambda job: job.is_final)

    assert (job.state, job.counts.done, job.counts.total) == ("complete", TOTAL, TOTAL)
    assert job.tallies["ended"] == TOTAL
    attempts = [line.split()[:2] for line in diary.read_text().splitlines()]
    assert {key for key, _ in attempts} == {f"p{n}{c}" for n in range(PARENTS) for c in ("", "/0", "/1", "/2")}
    by_attempt = Counter((key, attempt) for key, attempt in attempts)
    assert max(by_attempt.values()) <= 2, "an attempt that a killed worker never reported runs again at most once"
    assert await programs.exit_code("worker") == 0, "a dedicated worker leaves when its job has ended"


async def test_coordinator_restart_alone_repeats_nothing(programs: Programs, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    await submit(programs, class_of(diary, seconds=0.2))
    await programs.start_worker(job_uid="job-1")
    for part in (1, 2, 3):
        await until(programs, lambda job, part=part: job.counts.done >= TOTAL * part // 4)
        await programs.kill("coordinator")
        await programs.start_coordinator()
    job = await until(programs, lambda job: job.is_final)
    assert (job.counts.done, job.tallies["ended"], job.lost_leases) == (TOTAL, TOTAL, 0)
    assert len(diary.read_text().splitlines()) == TOTAL


async def test_terminated_worker_drains_and_its_successor_goes_on(programs: Programs, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    await submit(programs, class_of(diary, seconds=0.1))
    await programs.start_worker(job_uid="job-1")
    await until(programs, lambda job: job.counts.done >= 8)
    assert await programs.kill("worker", signal.SIGTERM) == EXIT_STOPPED, "its index of the Job is not complete"
    await programs.start_worker()
    job = await until(programs, lambda job: job.is_final)
    assert (job.counts.done, job.tallies["ended"], job.lost_leases) == (TOTAL, TOTAL, 0)
    assert len(diary.read_text().splitlines()) == TOTAL, "what ran was finished, what had not started was handed back"


async def test_a_frozen_worker_that_comes_back_changes_nothing(programs: Programs, tmp_path: Path) -> None:
    await submit(programs, class_of(tmp_path / "diary", seconds=0.1))
    await programs.start_worker(job_uid="job-1")
    await until(programs, lambda job: job.counts.done >= 8)
    programs.running["worker"].send_signal(signal.SIGSTOP)
    await programs.start_worker(name="other", job_uid="job-1")
    job = await until(programs, lambda job: job.is_final)
    assert job.lost_leases > 0
    programs.running["worker"].send_signal(signal.SIGCONT)
    assert await programs.exit_code("worker") == 0
    client = programs.client()
    again = await client.get("job-1")
    await client.close()
    assert (again.counts, again.tallies["ended"]) == (job.counts, TOTAL)
    assert again.counts.done == TOTAL


async def test_artifacts_of_the_namespace(programs: Programs) -> None:
    task = TaskSpec(key="s", type="test.store", payload={"text": "kept"})
    await submit(programs, JobRequest(uid="job-2", namespace="default", name="x", kind="GradingJob", tasks=(task,)))
    await programs.start_worker()
    job = await until(programs, lambda job: job.is_final)
    outcome = job.outcome("s")
    assert outcome is not None, job
    assert outcome.value == {"sha256": sha256(b"kept"), "text": "kept"}


async def test_a_coordinator_of_another_name_is_not_believed(programs: Programs) -> None:
    await submit(programs, JobRequest(uid="job-2", namespace="default", name="x", kind="GradingJob", tasks=()))
    ca_pem = (programs.folder / "tls" / "ca.crt").read_text()
    address = f"127.0.0.1:{programs.grpc}"
    client = CoordinatorClient(channel(address, ca_pem=ca_pem, server_name="somebody.else.svc", token=lambda: "x"))
    with pytest.raises(Retryable):
        await client.list()
    await client.close()
    async with web_client(f"https://127.0.0.1:{programs.web}", ca_pem=ca_pem) as http:
        store = HttpArtifacts(
            http, namespace="default", token=lambda: "x", server_name="somebody.else.svc", backoff=Backoff(0.01, 0.01)
        )
        with pytest.raises(Retryable, match="CERTIFICATE_VERIFY_FAILED"):
            await store.put(b"secret")


async def test_an_unknown_token_is_refused(programs: Programs) -> None:
    await submit(programs, JobRequest(uid="job-2", namespace="default", name="x", kind="GradingJob", tasks=()))
    ca_pem = (programs.folder / "tls" / "ca.crt").read_text()
    client = CoordinatorClient(
        channel(f"127.0.0.1:{programs.grpc}", ca_pem=ca_pem, server_name=NAME, token=lambda: "guessed")
    )
    with pytest.raises(Forbidden) as caught:
        await client.list()
    assert caught.value.reason == "Unauthenticated"
    await client.close()


async def test_health_readiness_and_metrics(programs: Programs, tmp_path: Path) -> None:
    await submit(programs, class_of(tmp_path / "diary", seconds=0.0))
    await programs.start_worker()
    await until(programs, lambda job: job.is_final)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{programs.health}", trust_env=False) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        scraped = (await http.get("/metrics")).text
    assert f'espalier_worker_attempts_total{{outcome="done",reason="",type="test.parent"}} {PARENTS}.0' in scraped
