"""`--once`: one task for one process, and what its exit code tells the Job that made the pod.

A pod that ran somebody else's code is never used again. The Job counts only exit code 0 as one of its completions, so
0 means that a task of the job will not come again; every other end makes a fresh pod.
"""

from __future__ import annotations

import asyncio

from espalier_kit.errors import EXIT_STOPPED
from espalier_rpc.views import TaskReport
from espalier_worker.executors import Executors

EXIT_AGAIN = 75
"""sysexits EX_TEMPFAIL: the attempt is reported, but its task comes again and needs another pod."""
_SETTLED = frozenset({"done", "userFault", "evaluatorFault"})


def exit_code(settled: TaskReport | None, *, is_dismissed: bool) -> int:
    """`settled` is the result that the coordinator has acked, if any; `is_dismissed`: it said that no work is left.

    An attempt that was cancelled may have been given to another pod, whose own 0 will count.
    """
    if settled is not None:
        return 0 if settled.outcome in _SETTLED else EXIT_AGAIN
    return 0 if is_dismissed else EXIT_STOPPED


async def warm_up(executors: Executors) -> None:
    """Import what the task will need while there is none yet. Raises `PlatformFault` where an executor is broken."""
    for type_ in executors.types:
        await asyncio.to_thread(executors.find, type_)
