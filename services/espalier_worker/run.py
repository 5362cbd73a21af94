"""Running one attempt: its deadline, its cancellation, and every way it can end as one `TaskReport`."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from espalier_kit.digest import canonical_json
from espalier_kit.errors import EspalierError
from espalier_kit.execution import (
    MAX_INLINE_BYTES,
    EvaluatorFault,
    Executor,
    PlatformFault,
    Result,
    Task,
    UserFault,
)
from espalier_rpc.views import ResultOutcome, TaskReport
from espalier_worker.context import Abort, AttemptContext
from espalier_worker.executors import Executors

GRACE_S = 5.0
"""What a cancelled executor may take to tidy up."""
MAX_CHILDREN_BYTES = 32 * 1024 * 1024
"""Half of what one message can carry."""
_MAX_MESSAGE = 2000

Ended = Callable[[Task, TaskReport], None]
"""Hears how an attempt ended."""


class Runner:
    """Calls executors. An executor that ignores its cancellation is left behind as a stray, which health reports."""

    def __init__(self, executors: Executors, *, grace_s: float = GRACE_S) -> None:
        self._executors = executors
        self._found: dict[str, Executor] = {}
        self._grace_s = grace_s
        self._strays: dict[asyncio.Task[Result], float] = {}

    def oldest_stray_s(self) -> float:
        """For how long the oldest stray has gone on past its end, in seconds; 0 without one."""
        return max((time.monotonic() - since for since in self._strays.values()), default=0.0)

    def start(self, task: Task, context: AttemptContext, *, timeout_s: float, ended: Ended) -> Attempt:
        """Run to the end, the deadline or the abort, whichever is first; `ended` is told once, in the event loop."""
        work = asyncio.get_running_loop().create_task(self._call(task, context))
        return Attempt(task, context, work, timeout_s=timeout_s, grace_s=self._grace_s, ended=ended,
                       stray=self._left_behind)

    async def _call(self, task: Task, context: AttemptContext) -> Result:
        executor = self._found.get(task.type)
        if executor is None:  # the first of its type may have to be imported, which takes a while
            executor = self._found[task.type] = await asyncio.to_thread(self._executors.find, task.type)
        try:
            return await executor(task, context)
        except SystemExit as error:  # it would end the whole worker
            raise PlatformFault(f"the executor called sys.exit({error.code})", reason="SystemExit") from error

    def _left_behind(self, work: asyncio.Task[Result]) -> None:
        self._strays[work] = time.monotonic()
        work.add_done_callback(self._forget)

    def _forget(self, work: asyncio.Task[Result]) -> None:
        self._strays.pop(work, None)
        _ = work.cancelled() or work.exception()  # seen: the attempt's end is already decided


class Attempt:
    """An executor at work, and what may end it early. Its timer runs to the deadline, then to the end of the grace."""

    def __init__(
        self, task: Task, context: AttemptContext, work: asyncio.Task[Result], *, timeout_s: float, grace_s: float,
        ended: Ended, stray: Callable[[asyncio.Task[Result]], None],
    ) -> None:
        self.context = context
        self.work = work
        self._task = task
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._ended = ended
        self._stray = stray
        self._started = time.monotonic()
        self._is_stopped = False
        self._timer = work.get_loop().call_later(timeout_s, self._stop)
        work.add_done_callback(self._done)
        context.when_aborted(self._stop)

    def abandon(self) -> None:
        """The whole worker ends: stop it, and tell nobody."""
        self._let_go()
        self.work.cancel()

    def _stop(self) -> None:
        """The deadline has passed, or it is to stop: ask once, and wait for as long as the grace is."""
        if self._is_stopped or self.work.done():
            return
        self._is_stopped = True
        self._timer.cancel()
        self._timer = self.work.get_loop().call_later(self._grace_s, self._leave)
        self.context.cancelled.set()
        self.work.cancel()

    def _leave(self) -> None:
        if self.work.done():
            return
        self.context.log.error("executor ignores its cancellation")
        self._let_go()
        self._stray(self.work)
        self._tell()

    def _let_go(self) -> None:
        """Nothing calls it back any more: it goes with its payload and its result, not with the next collection."""
        self._timer.cancel()
        self.work.remove_done_callback(self._done)
        self.context.when_aborted(None)

    def _done(self, work: asyncio.Task[Result]) -> None:
        self._let_go()
        if self._is_stopped:
            _ = work.cancelled() or work.exception()  # seen: the attempt's end is already decided
        self._tell()

    def _tell(self) -> None:
        seconds = time.monotonic() - self._started
        try:
            report = self._overrun() if self._is_stopped else _ended(self._task, self.context, self.work, seconds)
        except Exception as error:  # a bug of ours must not keep the lease for ever
            report = fault_report(self._task, error)
        self._ended(self._task, report if report.execution_s else replace(report, execution_s=seconds))

    def _overrun(self) -> TaskReport:
        match self.context.abort_reason:
            case Abort.CANCELLED:
                said = f": {self.context.abort_said}" if self.context.abort_said else ""
                return _report(self._task, "cancelled", "Cancelled", f"the attempt was cancelled{said}")
            case Abort.DRAINED:
                # Nobody's fault: under its next number the task begins again elsewhere, with all its retries.
                return _report(self._task, "cancelled", "WorkerStopped", "the worker was stopped before it ended")
        said = f"the attempt did not end within {self._timeout_s:g} s"
        return _report(self._task, "platformFault", "Deadline", said)


def _ended(task: Task, context: AttemptContext, work: asyncio.Task[Result], seconds: float) -> TaskReport:
    if work.cancelled():
        return _report(task, "platformFault", "CancelledError", "the executor cancelled itself")
    error = work.exception()
    if error is None:
        return result_report(task, work.result(), seconds)
    report = fault_report(task, error)
    if report.outcome == "platformFault":
        # Places, not the message: that one may quote a submission.
        trace = "".join(traceback.format_tb(error.__traceback__)[-6:])
        context.log.warning("attempt failed", extra={"reason": report.reason, "trace": trace})
    return report


def result_report(task: Task, result: Any, execution_s: float = 0.0) -> TaskReport:
    """A success, if the value is one: a JSON object of at most `MAX_INLINE_BYTES`."""
    if not isinstance(result, Result):
        said = f"the executor returned {type(result).__name__}, not a Result"
        return _report(task, "platformFault", "BadResult", said)
    try:
        value = canonical_json(dict(result.value))
        children = sum(len(canonical_json(dict(child.payload))) for child in result.children)
    except (TypeError, ValueError) as error:
        return _report(task, "platformFault", "BadResult", f"the executor's result is no JSON: {error}")
    if len(value) > MAX_INLINE_BYTES:
        said = f"the value has {len(value)} bytes, the limit is {MAX_INLINE_BYTES}: put it into the artifact store"
        return _report(task, "platformFault", "ValueTooLarge", said)
    if children > MAX_CHILDREN_BYTES:
        said = f"the payloads of its tasks have {children} bytes together, the limit is {MAX_CHILDREN_BYTES}"
        return _report(task, "platformFault", "ChildrenTooLarge", said)
    return TaskReport(
        task_id=task.id, attempt=task.attempt, outcome="done", value=value, tallies=result.tallies,
        children=result.children, execution_s=execution_s,
    )


def fault_report(task: Task, error: BaseException) -> TaskReport:
    """Whose fault it was. Whatever is not clearly the subject's or the evaluation's is ours."""
    match error:
        case UserFault():
            return _report(task, "userFault", error.reason, str(error))
        case EvaluatorFault():
            return _report(task, "evaluatorFault", error.reason, str(error))
        case EspalierError():
            return _report(task, "platformFault", error.reason, str(error))
    name = type(error).__name__
    return _report(task, "platformFault", name, f"{name}: {error}")


def _report(task: Task, outcome: ResultOutcome, reason: str, message: str) -> TaskReport:
    return TaskReport(
        task_id=task.id, attempt=task.attempt, outcome=outcome, reason=reason, message=message[:_MAX_MESSAGE]
    )
