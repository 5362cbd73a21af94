"""Running one attempt: its deadline, its cancellation, and every way it can end as one `TaskReport`."""

from __future__ import annotations

import asyncio
import time
import traceback
from dataclasses import replace
from typing import Any

from espalier_kit.digest import canonical_json
from espalier_kit.errors import EspalierError
from espalier_kit.execution import MAX_INLINE_BYTES, EvaluatorFault, PlatformFault, Result, Task, UserFault
from espalier_rpc.views import ResultOutcome, TaskReport
from espalier_worker.context import Abort, AttemptContext
from espalier_worker.executors import Executors

GRACE_S = 5.0
"""What a cancelled executor may take to tidy up."""
MAX_CHILDREN_BYTES = 32 * 1024 * 1024
"""Half of what one message can carry."""
_MAX_MESSAGE = 2000


class Runner:
    """Calls executors. An executor that ignores its cancellation is left behind as a stray, which health reports."""

    def __init__(self, executors: Executors, *, grace_s: float = GRACE_S) -> None:
        self._executors = executors
        self._grace_s = grace_s
        self._strays: dict[asyncio.Task[Result], float] = {}

    def oldest_stray_s(self) -> float:
        """For how long the oldest stray has gone on past its end, in seconds; 0 without one."""
        return max((time.monotonic() - since for since in self._strays.values()), default=0.0)

    async def run(self, task: Task, context: AttemptContext, *, timeout_s: float) -> TaskReport:
        """Run to the end, the deadline or the abort, whichever is first. Never raises but for its own cancellation."""
        started = time.monotonic()
        work = asyncio.create_task(self._call(task, context), name=f"attempt {task.key}")
        aborted = asyncio.create_task(context.cancelled.wait())
        try:
            await asyncio.wait({work, aborted}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            is_late = not work.done()
            if is_late:
                await self._stop(work, context)
            report = self._overrun(task, context, timeout_s) if is_late else _ended(task, context, work)
        except Exception as error:  # a bug of ours must not keep the lease for ever
            report = fault_report(task, error)
        finally:
            aborted.cancel()
            work.cancel()
        return replace(report, execution_s=time.monotonic() - started)

    async def _call(self, task: Task, context: AttemptContext) -> Result:
        executor = await asyncio.to_thread(self._executors.find, task.type)
        try:
            return await executor(task, context)
        except SystemExit as error:  # it would end the whole worker
            raise PlatformFault(f"the executor called sys.exit({error.code})", reason="SystemExit") from error

    async def _stop(self, work: asyncio.Task[Result], context: AttemptContext) -> None:
        context.cancelled.set()
        work.cancel()
        await asyncio.wait({work}, timeout=self._grace_s)
        if work.done():
            _ = work.cancelled() or work.exception()  # seen: the attempt's end is already decided
            return
        context.log.error("executor ignores its cancellation")
        self._strays[work] = time.monotonic()
        work.add_done_callback(self._forget)

    def _forget(self, work: asyncio.Task[Result]) -> None:
        self._strays.pop(work, None)
        _ = work.cancelled() or work.exception()

    def _overrun(self, task: Task, context: AttemptContext, timeout_s: float) -> TaskReport:
        match context.abort_reason:
            case Abort.CANCELLED:
                said = f": {context.abort_said}" if context.abort_said else ""
                return _report(task, "cancelled", "Cancelled", f"the attempt was cancelled{said}")
            case Abort.DRAINED:
                # Nobody's fault: under its next number the task begins again elsewhere, with all its retries.
                return _report(task, "cancelled", "WorkerStopped", "the worker was stopped before it ended")
        return _report(task, "platformFault", "Deadline", f"the attempt did not end within {timeout_s:g} s")


def _ended(task: Task, context: AttemptContext, work: asyncio.Task[Result]) -> TaskReport:
    if work.cancelled():
        return _report(task, "platformFault", "CancelledError", "the executor cancelled itself")
    error = work.exception()
    if error is None:
        return result_report(task, work.result())
    report = fault_report(task, error)
    if report.outcome == "platformFault":
        # Places, not the message: that one may quote a submission.
        trace = "".join(traceback.format_tb(error.__traceback__)[-6:])
        context.log.warning("attempt failed", extra={"reason": report.reason, "trace": trace})
    return report


def result_report(task: Task, result: Any) -> TaskReport:
    """A success, if the value is one: a JSON object of at most `MAX_INLINE_BYTES`."""
    if not isinstance(result, Result):
        said = f"the executor returned {type(result).__name__}, not a Result"
        return _report(task, "platformFault", "BadResult", said)
    try:
        size = len(canonical_json(dict(result.value)))
        children = sum(len(canonical_json(dict(child.payload))) for child in result.children)
    except (TypeError, ValueError) as error:
        return _report(task, "platformFault", "BadResult", f"the executor's result is no JSON: {error}")
    if size > MAX_INLINE_BYTES:
        said = f"the value has {size} bytes, the limit is {MAX_INLINE_BYTES}: put it into the artifact store"
        return _report(task, "platformFault", "ValueTooLarge", said)
    if children > MAX_CHILDREN_BYTES:
        said = f"the payloads of its tasks have {children} bytes together, the limit is {MAX_CHILDREN_BYTES}"
        return _report(task, "platformFault", "ChildrenTooLarge", said)
    return TaskReport(
        task_id=task.id, attempt=task.attempt, outcome="done", value=result.value, tallies=result.tallies,
        children=result.children,
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
