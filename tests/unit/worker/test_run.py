"""One attempt: every way it can end."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from espalier_kit.errors import NotFound, Retryable
from espalier_kit.execution import (
    MAX_INLINE_BYTES,
    Context,
    EvaluatorFault,
    Executor,
    PlatformFault,
    Result,
    Task,
    TaskSpec,
    UserFault,
)
from espalier_rpc.views import ResultOutcome, TaskReport
from espalier_worker import messages
from espalier_worker.context import Abort, AttemptContext
from espalier_worker.executors import GivenExecutors
from espalier_worker.run import MAX_CHILDREN_BYTES, Runner, fault_report, result_report
from espalier_worker.worker import level_of

TASK = Task(
    id="t1", job_uid="j", job_name="class", namespace="course", key="k", type="test", payload={}, inputs={}, attempt=2,
    deadline=datetime(2026, 1, 1, tzinfo=UTC),
)


class NoStore:
    async def put(self, data: Any) -> str:
        raise AssertionError

    async def get(self, sha256: str) -> bytes:
        raise AssertionError

    def stream(self, sha256: str) -> Any:
        raise AssertionError


def context() -> AttemptContext:
    return AttemptContext(TASK, artifacts=NoStore(), endpoints=tuple)


def runner(executor: Executor, *, grace_s: float = 0.05) -> Runner:
    return Runner(GivenExecutors({"test": executor}), grace_s=grace_s)


async def run(runner: Runner, lent: AttemptContext | None = None, *, timeout_s: float = 5.0) -> TaskReport:
    """Its report; it is told once."""
    told = asyncio.get_running_loop().create_future()
    runner.start(TASK, lent or context(), timeout_s=timeout_s, ended=lambda _, report: told.set_result(report))
    report = await told
    assert isinstance(report, TaskReport)
    return report


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (UserFault("no notebook", reason="NoNotebook"), "userFault", "NoNotebook"),
        (EvaluatorFault("sums differ", reason="BundleRejected"), "evaluatorFault", "BundleRejected"),
        (PlatformFault("disk full", reason="DiskFull"), "platformFault", "DiskFull"),
        (Retryable("store away"), "platformFault", "Unavailable"),
        (NotFound("no such artifact", reason="NotFound"), "platformFault", "NotFound"),
        (KeyError("x"), "platformFault", "KeyError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_whose_fault_it_is(error: Exception, outcome: str, reason: str) -> None:
    async def executor(task: Task, context: Context) -> Result:
        raise error

    report = await run(runner(executor))
    assert (report.outcome, report.reason, report.task_id, report.attempt) == (outcome, reason, "t1", 2)
    assert report.message


async def test_success() -> None:
    async def executor(task: Task, context: Context) -> Result:
        return Result(value={"n": 1}, tallies={"graded": 1}, children=(TaskSpec(key="c", type="test"),))

    report = await run(runner(executor))
    assert (report.outcome, report.value, dict(report.tallies)) == ("done", b'{"n":1}', {"graded": 1})
    assert [child.key for child in report.children] == ["c"]


async def test_an_executor_is_looked_for_once() -> None:
    class Counted(GivenExecutors):
        found = 0

        def find(self, type_: str) -> Executor:
            self.found += 1
            return super().find(type_)

    async def executor(task: Task, context: Context) -> Result:
        return Result()

    executors = Counted({"test": executor})
    counted = Runner(executors)
    reports = [await run(counted) for _ in range(3)]
    assert ([r.outcome for r in reports], executors.found) == (["done"] * 3, 1)


async def test_what_is_abandoned_ends_and_tells_nobody() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def executor(task: Task, context: Context) -> Result:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    told: list[TaskReport] = []
    attempt = runner(executor).start(TASK, context(), timeout_s=5, ended=lambda _, report: told.append(report))
    await started.wait()
    attempt.abandon()
    await asyncio.gather(attempt.work, return_exceptions=True)
    assert (ended.is_set(), attempt.work.cancelled(), told) == (True, True, [])


async def test_an_attempt_that_ended_is_gone_without_the_collector() -> None:
    async def executor(task: Task, context: Context) -> Result:
        return Result()

    told = asyncio.get_running_loop().create_future()
    attempt = runner(executor).start(TASK, context(), timeout_s=5, ended=lambda _, report: told.set_result(report))
    left = weakref.ref(attempt)
    gc.disable()
    try:
        del attempt
        await told
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("outcome", "seconds", "level"),
    [("done", 0.1, "DEBUG"), ("done", 1.0, "INFO"), ("userFault", 0.1, "INFO"), ("cancelled", 0.1, "INFO")],
)
def test_only_short_successes_pass_in_silence(outcome: ResultOutcome, seconds: float, level: str) -> None:
    assert logging.getLevelName(level_of(TaskReport("t", 1, outcome, execution_s=seconds))) == level


async def test_deadline_cancels_the_executor() -> None:
    ended = asyncio.Event()

    async def executor(task: Task, context: Context) -> Result:
        try:
            await asyncio.Event().wait()
        finally:
            assert context.cancelled.is_set()
            ended.set()
        raise AssertionError

    report = await run(runner(executor), timeout_s=0.02)
    assert (report.outcome, report.reason) == ("platformFault", "Deadline")
    assert ended.is_set()


@pytest.mark.parametrize(
    ("reason", "outcome", "said"),
    [(Abort.CANCELLED, "cancelled", "Cancelled"), (Abort.DRAINED, "cancelled", "WorkerStopped")],
)
async def test_abort(reason: Abort, outcome: str, said: str) -> None:
    async def executor(task: Task, context: Context) -> Result:
        await asyncio.Event().wait()
        raise AssertionError

    lent = context()
    running = asyncio.create_task(run(runner(executor), lent))
    lent.abort(reason)
    report = await running
    assert (report.outcome, report.reason) == (outcome, said)


async def test_executor_that_ignores_its_end_is_a_stray_until_it_ends() -> None:
    release = asyncio.Event()

    async def executor(task: Task, context: Context) -> Result:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Result()

    stubborn = runner(executor)
    report = await run(stubborn, timeout_s=0.02)
    assert report.reason == "Deadline"
    assert stubborn.oldest_stray_s() > 0
    release.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=5)
    await asyncio.sleep(0)  # one turn of the loop, in which the stray is forgotten
    assert stubborn.oldest_stray_s() == 0


async def test_sys_exit_ends_the_attempt_and_not_the_worker() -> None:
    async def executor(task: Task, context: Context) -> Result:
        raise SystemExit(3)

    report = await run(runner(executor))
    assert (report.outcome, report.reason) == ("platformFault", "SystemExit")


async def test_unknown_type_names_the_known_ones() -> None:
    report = await run(Runner(GivenExecutors({})))
    assert (report.outcome, report.reason) == ("platformFault", "UnknownTaskType")
    assert "'test'" in report.message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"text": "x" * MAX_INLINE_BYTES}, "ValueTooLarge"),
        ({"text": b"bytes"}, "BadResult"),
        ({"text": "x" * (MAX_INLINE_BYTES - len('{"text":""}'))}, ""),
    ],
    ids=["one byte over", "no JSON", "just fits"],
)
def test_values_are_small_json(value: dict[str, Any], reason: str) -> None:
    assert result_report(TASK, Result(value=value)).reason == reason


def test_children_fit_into_one_message() -> None:
    child = TaskSpec(key="c", type="t", payload={"text": "x" * MAX_CHILDREN_BYTES})
    assert result_report(TASK, Result(children=(child,))).reason == "ChildrenTooLarge"


def test_results_travel_in_messages_of_bounded_size() -> None:
    reports = [replace(result_report(TASK, Result(value={"t": "x" * 60_000})), task_id=str(n)) for n in range(150)]
    sent = list(messages.results(reports))
    assert [r.lease.task_id for m in sent for r in m.results.results] == [str(n) for n in range(150)]
    assert len(sent) == 3
    assert max(m.ByteSize() for m in sent) < messages.MAX_RESULTS_BYTES + 1000


def test_anything_but_a_result_is_a_bug() -> None:
    assert result_report(TASK, None).reason == "BadResult"


def test_long_messages_are_cut() -> None:
    assert len(fault_report(TASK, ValueError("x" * 100_000)).message) <= 2000


async def test_progress_is_told_once_and_bounded() -> None:
    lent = context()
    await lent.progress(1.5, "done")
    assert lent.take_progress() == (1.0, "done")
    assert lent.take_progress() is None
