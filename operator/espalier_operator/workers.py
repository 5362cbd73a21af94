"""The loop that takes keys and reconciles them; errors cost a delay, never the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from espalier_kit.errors import EspalierError, Permanent
from espalier_operator.metrics import Metrics
from espalier_operator.queue import Key, WorkQueue

log = logging.getLogger(__name__)

RECONCILE_LIMIT_S = 60.0
"""A reconcile that hangs longer is broken off and tried again."""


async def work_off(
    queue: WorkQueue, reconcile: Callable[[Key], Awaitable[float | None]], metrics: Metrics
) -> None:
    """Until the queue is closed."""
    while (key := await queue.take()) is not None:
        started = time.perf_counter()
        try:
            outcome = await _once(queue, key, reconcile)
        finally:
            queue.done(key)
        metrics.reconciles.labels(key.kind, outcome).inc()
        metrics.reconcile_seconds.labels(key.kind).observe(time.perf_counter() - started)


async def _once(queue: WorkQueue, key: Key, reconcile: Callable[[Key], Awaitable[float | None]]) -> str:
    try:
        async with asyncio.timeout(RECONCILE_LIMIT_S):
            wait = await reconcile(key)
    except EspalierError as error:
        delay = queue.failed(key)
        level = logging.WARNING if isinstance(error, Permanent) else logging.INFO
        log.log(level, "reconcile to be tried again", extra={
            "key": str(key), "reason": error.reason, "error": str(error), "in_s": round(delay, 1)
        })
        return "error" if isinstance(error, Permanent) else "retry"
    except Exception:  # a bug of ours must not stop the operator: it is told and tried again
        log.exception("reconcile failed", extra={"key": str(key), "in_s": round(queue.failed(key), 1)})
        return "bug"
    queue.succeeded(key)
    if wait is not None:
        queue.add_after(key, wait)
    return "ok"
