"""Real coordinator processes on a real PostgreSQL server: killed, stopped, deposed, their server gone; nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio
import pytest

from bench.coordinator_process import CoordinatorProcess, Reachable, stub
from bench.load import TYPE, Book, NoOpWorker, submit, view, work
from espalier_rpc.v1 import coordinator_pb2 as pb
from tests.support.postgres import PostgresServer, running_server

DEADLINE_S = 90.0
TAKEOVER_S = 15.0
TASKS = 6_000


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


class Service:
    """What a Kubernetes Service does: connections go to the one that is ready."""

    def __init__(self, *processes: CoordinatorProcess) -> None:
        self._processes = processes
        self.active = processes[0]

    def channel(self, who: str) -> grpc.aio.Channel:
        self.active = next((p for p in self._processes if p is not self.active and p.is_listening), self.active)
        return self.active.channel(who)


@pytest.fixture
def pair(server: PostgresServer, tmp_path: Path) -> Iterator[tuple[CoordinatorProcess, CoordinatorProcess]]:
    """An active coordinator and a standby, on one database."""
    url = server.new_database()
    first, second = CoordinatorProcess(tmp_path, DATABASE=url), CoordinatorProcess(tmp_path, DATABASE=url)
    try:
        first.start()
        second.spawn()
        yield first, second
    finally:
        first.close()
        second.close()


@contextmanager
def started(server: PostgresServer, folder: Path) -> Iterator[CoordinatorProcess]:
    process = CoordinatorProcess(folder, DATABASE=server.new_database())
    try:
        process.start()
        yield process
    finally:
        process.close()


@asynccontextmanager
async def load(process: Reachable) -> AsyncIterator[Book]:
    """Six workers work on a job of `TASKS`; at the end it is complete and nothing of it lost or counted twice."""
    await submit(process, "job", [pb.TaskSpec(key=str(n), type=TYPE, payload=b"{}") for n in range(TASKS)])
    book = Book()
    workers = [NoOpWorker(process, book, name=f"w{n}", job_uid="job", window=20) for n in range(6)]
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(work(workers))
        yield book
    done = await view(process, "job")
    assert (done.state, done.counts.done, done.tallies["n"]) == ("complete", TASKS, TASKS)
    assert len(book.executions) == TASKS
    async with process.channel("admin") as channel:
        told = await stub(channel).ListTasks(pb.ListTasksRequest(job_uid="job"))
    assert len({t.id for t in told.tasks}) == len(told.tasks) == TASKS


async def acked(book: Book, count: int) -> None:
    await book.acked_after.setdefault(count, asyncio.Event()).wait()


async def until(condition: Callable[[], bool], what: str, timeout_s: float = TAKEOVER_S) -> float:
    """Seconds until it holds."""
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < timeout_s, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - started_at


def readiness(process: CoordinatorProcess) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(process.folder / "tls" / "ca.crt"))
    url = f"https://localhost:{process.http_port}/readyz"
    try:
        with urllib.request.urlopen(url, context=context, timeout=5) as told:
            return told.status, told.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


async def test_killed_under_load_nothing_is_lost(server: PostgresServer, tmp_path: Path) -> None:
    with started(server, tmp_path) as process:
        async with load(process) as book:
            for number in (1, 2):
                await acked(book, number * TASKS // 4)
                process.kill()
                await asyncio.to_thread(process.start)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["shut down", "crashed"])
async def test_a_server_that_goes_away_under_load_is_waited_for(
    server: PostgresServer, tmp_path: Path, how: signal.Signals
) -> None:
    with started(server, tmp_path) as process:
        async with load(process) as book:
            await acked(book, TASKS // 3)
            await asyncio.to_thread(server.stop, how)
            try:
                at = book.acked
                await until(lambda: "commit refused" in process.log.read_text(), "the coordinator noticing")
                assert book.acked - at < 2_000  # what was committed and on its way; nothing more
            finally:
                await asyncio.to_thread(server.start)
        assert "taken over" not in process.log.read_text()


async def test_the_leader_killed_under_load_is_replaced_by_the_standby(
    pair: tuple[CoordinatorProcess, CoordinatorProcess]
) -> None:
    first, second = pair
    await until(lambda: readiness(second) == (503, "standby: another coordinator is active"), "a standby")
    assert readiness(first) == (200, "ok")
    assert not second.is_listening
    async with load(Service(first, second)) as book:
        await acked(book, TASKS // 3)
        first.kill()
        killed_at = time.monotonic()
        await until(lambda: second.is_listening, "takeover")
        at = book.acked
        await acked(book, at + 1)
        took_s = time.monotonic() - killed_at
    assert took_s < TAKEOVER_S
    assert readiness(second) == (200, "ok")
    print(f"takeover after kill -9: {took_s:.1f} s to the first result acknowledged")


async def test_a_leader_that_stands_still_is_replaced_and_ends_with_a_sentence_when_it_goes_on(
    pair: tuple[CoordinatorProcess, CoordinatorProcess]
) -> None:
    first, second = pair
    async with load(Service(first, second)) as book:
        await acked(book, TASKS // 3)
        first.send(signal.SIGSTOP)
        try:
            took_s = await until(lambda: second.is_listening, "takeover")
        finally:
            first.send(signal.SIGCONT)
        assert await asyncio.to_thread(first.wait) == 1
    assert "error: another coordinator has taken over this database" in first.log.read_text()
    print(f"takeover after SIGSTOP: {took_s:.1f} s")


async def test_terminated_the_leader_hands_over_and_a_standby_leaves_at_once(
    pair: tuple[CoordinatorProcess, CoordinatorProcess]
) -> None:
    first, second = pair
    await until(lambda: readiness(second)[0] == 503, "a standby")
    assert await asyncio.to_thread(first.stop) == 0
    await until(lambda: second.is_listening, "takeover", 5.0)
    first.spawn()
    await until(lambda: readiness(first)[0] == 503, "a standby")
    assert await asyncio.to_thread(first.stop) == 0


async def test_what_no_database_can_hold_is_refused_or_replaced(server: PostgresServer, tmp_path: Path) -> None:
    """One result that could never be written would stop everybody's."""
    with started(server, tmp_path) as process:
        async with process.channel("admin") as channel:
            for request in (pb.SubmitJobRequest(uid="a\0", namespace="default", name="a"),
                            pb.SubmitJobRequest(uid="a", namespace="default", name="a",
                                                tasks=[pb.TaskSpec(key="a\0", type=TYPE)])):
                with pytest.raises(grpc.aio.AioRpcError, match="character NUL"):
                    await stub(channel).SubmitJob(request)
        await submit(process, "job", [pb.TaskSpec(key="a", type=TYPE, payload=b'{"text": "\\u0000"}')])
        async with process.channel("worker") as channel:
            call = stub(channel).Session()
            await call.write(pb.WorkerMessage(hello=pb.Hello(worker_id="w", capacity=1, types=[TYPE])))
            await call.write(pb.WorkerMessage(want=pb.Want(n=1)))
            async with asyncio.timeout(DEADLINE_S):
                while not (message := await call.read()).HasField("tasks"):
                    pass
                result = pb.TaskResult(lease=message.tasks.tasks[0].lease, outcome="done", message="a\0b", value=b"\0")
                await call.write(pb.WorkerMessage(results=pb.Results(results=[result])))
                while not (await call.read()).HasField("ack"):
                    pass
            call.cancel()
        async with process.channel("admin") as channel:
            (told,) = (await stub(channel).ListTasks(pb.ListTasksRequest(job_uid="job"))).tasks
    assert (told.message, told.value) == ("a\ufffdb", b"\0")


@pytest.mark.parametrize(("url", "words"), [
    ("mysql://h/d", "ESPALIER_COORDINATOR_DATABASE: Value error, expected postgresql://"),
    ("postgresql://me:secret@h/d?colour=red", "no URL that PostgreSQL understands"),
], ids=["another database", "unknown parameter"])
def test_a_wrong_database_is_a_sentence_without_the_password(tmp_path: Path, url: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "espalier_coordinator", "--local", str(tmp_path)],
        env={**os.environ, "ESPALIER_COORDINATOR_DATABASE": url, "ESPALIER_COORDINATOR_HOST": "127.0.0.1"},
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert done.returncode == 78
    assert words in done.stderr
    assert "secret" not in done.stderr
