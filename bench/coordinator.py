"""Durable tasks a second through a real coordinator, with and without a kill -9 in the middle."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import worker_processes
from bench.coordinator_process import CoordinatorProcess
from bench.curve import best, curve
from bench.load import PIECES, TYPE, Book, NoOpWorker, submit, view, work
from bench.peers.comparison import compare
from bench.runner import Figure, Options, Result, Scenario, machine, repeat
from espalier_rpc.v1 import coordinator_pb2 as pb

UID, WARMUP = "bench", "warm-up"
WARMUP_TASKS = 200
LOOK_S = 0.01
PAYLOAD = b'{"text":"' + b"x" * 180 + b'"}'
TASKS = 60_000
QUICK_TASKS = 5_000
PEER_TASKS, QUICK_PEER_TASKS = 15_000, 300
"""Of each, ours and theirs, where the coordinator stands beside task queues; the slowest takes some 15 s."""
CURVE_TASKS, QUICK_CURVE_TASKS = 20_000, 1_000
"""Of each point of the curve."""
SHAPES = ((16, 16), (8, 100), (64, 4))
"""(sessions, tasks in flight in each)."""
SESSIONS_BESIDE_PEERS = (8, 100)


async def measure(*, tasks: int, sessions: int, window: int, kill: bool) -> Mapping[str, float]:
    """One run from an empty database. Raises where a result was lost or counted twice."""
    with tempfile.TemporaryDirectory() as folder:
        process = CoordinatorProcess(Path(folder))
        process.start()
        try:
            return await _measure(process, tasks=tasks, sessions=sessions, window=window, kill=kill)
        finally:
            process.close()


async def _measure(
    process: CoordinatorProcess, *, tasks: int, sessions: int, window: int, kill: bool
) -> Mapping[str, float]:
    specs = _specs(tasks)
    started = time.monotonic()
    await submit(process, UID, specs)
    submitted = time.monotonic()
    book = Book()
    workers = [NoOpWorker(process, book, name=f"w{n}", job_uid=UID, window=window) for n in range(sessions)]
    away_s = 0.0
    async with asyncio.TaskGroup() as group:
        group.create_task(work(workers))
        if kill:
            away_s = await _kill_in_the_middle(process, book, tasks)
    seconds = book.last_ack - submitted
    done = await view(process, UID)
    if done.counts.done != tasks or done.tallies["n"] != tasks:
        raise RuntimeError(f"{tasks} tasks: {done.counts.done} done, {done.tallies['n']:.0f} results counted")
    return {
        "submitted": tasks / (submitted - started), "rate": tasks / seconds, "away": away_s,
        "again": sum(book.executions.values()) - tasks, "lost": tasks - done.counts.done,
        "doubled": done.tallies["n"] - tasks,
    }


async def protocol_only(*, tasks: int) -> float:
    """Tasks per second from the first submission to the last ack, from an empty database: what peers are set against.

    As with them the workers are there, and warm, before the first task is.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = CoordinatorProcess(Path(folder))
        process.start()
        try:
            return await _beside_peers(process, tasks)
        finally:
            process.close()


async def _beside_peers(process: CoordinatorProcess, tasks: int) -> float:
    book = Book()
    sessions, window = SESSIONS_BESIDE_PEERS
    workers = [NoOpWorker(process, book, name=f"w{n}", window=window) for n in range(sessions)]
    working = asyncio.create_task(work(workers))
    await _warm_up(process, book, sessions)
    specs, last = _specs(tasks), book.acked_after.setdefault(book.acked + tasks, asyncio.Event())
    started = time.monotonic()
    await submit(process, UID, specs, batch=PIECES)
    await last.wait()
    working.cancel()
    if (done := (await view(process, UID)).counts.done) != tasks:
        raise RuntimeError(f"{tasks} tasks: {done} done")
    return tasks / (book.last_ack - started)


async def _warm_up(process: CoordinatorProcess, book: Book, sessions: int) -> None:
    """Until every session is there and the first tasks are acked."""
    acked = book.acked_after.setdefault(WARMUP_TASKS, asyncio.Event())
    await submit(process, WARMUP, _specs(WARMUP_TASKS))
    await acked.wait()
    while True:
        if (await view(process, WARMUP)).workers == sessions:
            return
        await asyncio.sleep(LOOK_S)


def _specs(count: int) -> list[pb.TaskSpec]:
    return [pb.TaskSpec(key=str(n), type=TYPE, payload=PAYLOAD) for n in range(count)]


async def _kill_in_the_middle(process: CoordinatorProcess, book: Book, tasks: int) -> float:
    """kill -9 once half of the results are acked; returns seconds from the kill to the next ack."""
    half = book.acked_after.setdefault(tasks // 2, asyncio.Event())
    await half.wait()
    killed = time.monotonic()
    process.kill()
    next_ack = book.acked_after.setdefault(book.acked + 1, asyncio.Event())
    await asyncio.to_thread(process.start)
    await next_ack.wait()
    return time.monotonic() - killed


def run(options: Options) -> Result:
    """All shapes without a kill, the first with one, the curve once, then beside task queues."""
    tasks, peer_tasks, points = (
        (QUICK_TASKS, QUICK_PEER_TASKS, QUICK_CURVE_TASKS) if options.quick else (TASKS, PEER_TASKS, CURVE_TASKS)
    )
    warmup, n = (0, 1) if options.quick else (1, 5)
    shapes = {shape: _shape(*shape, tasks, warmup=warmup, n=n) for shape in SHAPES}
    metrics = {_called(*shape): figures["rate"] for shape, figures in shapes.items()}
    metrics |= {"bulk submit": shapes[SHAPES[0]]["submitted"], **_killed(tasks, n=n)}
    picture = curve(
        lambda sessions, window: once(tasks=points, sessions=sessions, window=window, kill=False)()["rate"]
    )
    top = best(picture)
    metrics[f"best of the curve, measured again: {_called(*top)}"] = _shape(*top, points, warmup=0, n=n)["rate"]
    against = compare(
        lambda: worker_processes.measure(tasks=peer_tasks, payload=PAYLOAD),
        lambda: asyncio.run(protocol_only(tasks=peer_tasks)), tasks=peer_tasks, n=n, warmup=0,
    )
    note = (f"{tasks} tasks with payloads of {len(PAYLOAD)} bytes over TLS on loopback, SQLite with synchronous=FULL; "
            "a task counts when its Ack, which follows the commit, has arrived. The load runs on the same machine and "
            f"speaks the protocol only. Each point of the curve is one run of {points} tasks. Peers: results stored, "
            "Redis with appendfsync always, JetStream with sync always, tasks acknowledged after they ran; "
            f"{against.note}")
    return Result("coordinator", machine(), options.seed, warmup, n, metrics | dict(against.metrics),
                  ratios=against.ratios, peers=against.peers, note=note, pictures={"curve": picture})


def once(*, tasks: int, sessions: int, window: int, kill: bool) -> Callable[[], Mapping[str, float]]:
    """One run, to be repeated."""
    return lambda: asyncio.run(measure(tasks=tasks, sessions=sessions, window=window, kill=kill))


def _shape(sessions: int, window: int, tasks: int, *, warmup: int, n: int) -> dict[str, Figure]:
    return repeat(once(tasks=tasks, sessions=sessions, window=window, kill=False), warmup=warmup, n=n,
                  units={"rate": "tasks/s", "submitted": "tasks/s"})


def _called(sessions: int, window: int) -> str:
    return f"{sessions} sessions x {window} in flight"


def _killed(tasks: int, *, n: int) -> dict[str, Figure]:
    sessions, window = SHAPES[0]
    figures = repeat(once(tasks=tasks, sessions=sessions, window=window, kill=True), warmup=0, n=n, units={
        "rate": "tasks/s", "away": "s", "again": "tasks", "lost": "tasks", "doubled": "tasks",
    })
    return {
        f"{sessions} x {window}, kill -9 and restart in the middle": figures["rate"],
        "from kill -9 to the next ack": figures["away"],
        "executed again after the kill": figures["again"],
        "lost": figures["lost"], "doubled": figures["doubled"],
    }


SCENARIO = Scenario("coordinator", "Durable tasks per second, with kill -9 and restart in the middle", run)
