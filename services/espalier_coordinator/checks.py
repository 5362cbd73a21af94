"""What comes in is checked here: each refusal is a sentence that names the task. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from espalier_coordinator import graph
from espalier_coordinator.messages import Report
from espalier_coordinator.model import MAX_PAYLOAD_BYTES, READ_WRITE, Job, NewTask
from espalier_kit.errors import Permanent
from espalier_kit.execution import MAX_INLINE_BYTES


def check_job(job: Job) -> None:
    """Raise `Permanent` with a sentence."""
    if not math.isfinite(job.weight) or job.weight <= 0:
        raise Permanent(f"weight must be a positive number, got {job.weight}", reason="InvalidJob")
    if not math.isfinite(job.max_tasks_per_s) or job.max_tasks_per_s < 0 or job.max_running < 0:
        raise Permanent(f"max_tasks_per_s and max_running cannot be negative (0: no limit), got {job.max_tasks_per_s} "
                        f"and {job.max_running}", reason="InvalidJob")


def check_tasks(tasks: Sequence[NewTask], known: Collection[str]) -> None:
    """Raise `Permanent` with a sentence that names the task."""
    for task in tasks:
        if not task.key or not task.type:
            raise Permanent(f"a task needs a key and a type, got {task.key!r} and {task.type!r}", reason="InvalidTask")
        if "\0" in task.key or "\0" in task.type:
            raise Permanent(f"task {task.key!r}: key and type cannot contain the character NUL", reason="InvalidTask")
        if len(task.payload) > MAX_PAYLOAD_BYTES:
            raise Permanent(f"task {task.key!r}: payload of {len(task.payload)} bytes exceeds {MAX_PAYLOAD_BYTES}; "
                            "put it into the artifact store and pass its digest", reason="PayloadTooLarge")
        if task.timeout_s < 0 or (task.retries or 0) < 0:
            raise Permanent(f"task {task.key!r}: timeout and retries cannot be negative", reason="InvalidTask")
        if task.cache not in ("", READ_WRITE):
            raise Permanent(f"task {task.key!r}: cache is {task.cache!r}: use {READ_WRITE!r} or leave it out",
                            reason="InvalidTask")
        for name, amount in task.resources:
            if not name or not math.isfinite(amount) or amount <= 0:
                raise Permanent(f"task {task.key!r}: resource {name!r} must be a positive number, got {amount}",
                                reason="InvalidTask")
    graph.check([(t.key, t.depends_on) for t in tasks], known)


def problem_of(report: Report, known: Collection[str]) -> Permanent | None:
    """Why a result cannot be taken as it is: a bug of its executor, so a fault of the platform."""
    if len(report.value) > MAX_INLINE_BYTES:
        return Permanent(f"a value of {len(report.value)} bytes exceeds {MAX_INLINE_BYTES}: store it as an artifact "
                         "and return its digest", reason="ValueTooLarge")
    if report.tallies and not all(map(math.isfinite, report.tallies.values())):
        return Permanent("tallies must be finite numbers", reason="InvalidTally")
    if not report.children:
        return None
    try:
        check_tasks(report.children, known)
    except Permanent as error:
        return error
    return None
