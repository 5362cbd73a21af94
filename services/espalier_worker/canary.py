"""`--canary`: one task through the coordinator, as its submitter, its worker and its reader. What `helm test` runs.

It proves the way that every job takes: the name resolves, TLS holds, the token is known, the task is stored and
granted, its result is stored once and can be read.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import suppress

import httpx

from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError, Permanent, Retryable
from espalier_kit.execution import Context, Result, Task, TaskSpec
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.views import JobRequest, JobView, TaskView
from espalier_worker.door import Door
from espalier_worker.executors import GivenExecutors
from espalier_worker.metrics import Metrics
from espalier_worker.settings import WorkerSettings
from espalier_worker.worker import Identity, Worker

TYPE = "espalier.canary"
_AGAIN_S = 0.5


async def run(settings: WorkerSettings, timeout_s: float, stop: asyncio.Event, clock: Clock) -> int:
    """Returns the exit code; says in one sentence what went wrong, or how long it took."""
    began = clock.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            await _sing(Door(settings.model_copy(update={"transport": "session"}), clock), settings, stop, clock)
    except TimeoutError:
        print(f"canary: not done after {timeout_s:.0f} s", file=sys.stderr)  # noqa: T201 - what a person waits for
        return 1
    except EspalierError as error:
        print(f"canary: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"canary: submitted, run and read back in {clock.monotonic() - began:.2f} s")  # noqa: T201
    return 0


async def _sing(door: Door, settings: WorkerSettings, stop: asyncio.Event, clock: Clock) -> None:
    word, uid = secrets.token_hex(8), f"canary-{secrets.token_hex(8)}"
    client = door.connect()
    assert isinstance(client, CoordinatorClient), "the transport is session"
    request = JobRequest(
        uid, settings.namespace, "canary", "Canary", (TaskSpec("sing", TYPE, {"word": word}),), retries=0
    )
    try:
        await _submit(client, request, clock)
        async with door.web() as http:
            await _work(door, http, uid, settings, stop, clock)
        check(await client.get(uid), await client.tasks(uid), word)
    finally:
        with suppress(EspalierError):
            await client.delete(uid)
        await client.close()


async def _submit(client: CoordinatorClient, request: JobRequest, clock: Clock) -> None:
    """A coordinator that starts or moves is waited for: the caller's timeout ends it."""
    while True:
        try:
            await client.submit(request)
            return
        except Retryable:
            await clock.sleep(_AGAIN_S)


async def _work(
    door: Door, http: httpx.AsyncClient, uid: str, settings: WorkerSettings, stop: asyncio.Event, clock: Clock
) -> None:
    identity = Identity(
        worker_id=f"{settings.id}-{uid}", job_uid=uid, capacity=1, prefetch=0, at_most=1, namespace=settings.namespace
    )
    worker = Worker(
        identity, connect=door.connect, executors=GivenExecutors({TYPE: echo}), clock=clock, metrics=Metrics(),
        artifacts=lambda namespace: door.artifacts(http, namespace),
    )
    await worker.run(stop)


async def echo(task: Task, context: Context) -> Result:
    """The canary's task."""
    return Result({"word": task.payload["word"]})


def check(job: JobView, tasks: tuple[TaskView, ...], word: str) -> None:
    """Raise `Permanent` unless the one task is done, once, with its own result."""
    if len(tasks) != 1 or tasks[0].state != "done":
        states = ", ".join(f"{task.key} {task.state} {task.message}".strip() for task in tasks) or "none"
        raise Permanent(f"the job is {job.state}, its tasks: {states}", reason="CanaryFailed")
    if tasks[0].attempts != 1 or (tasks[0].value or {}).get("word") != word:
        raise Permanent(
            f"the task was tried {tasks[0].attempts} times and its result is not what was sent", reason="CanaryFailed"
        )
