"""What the worker lends an executor for one attempt: the `Context` of `espalier_kit.execution`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

from espalier_kit.artifacts import ArtifactStore
from espalier_kit.execution import ModelEndpoint, Task

log = logging.getLogger("espalier_worker.task")
MAX_MESSAGE = 500
"""Characters of a line of progress, as many as a job's view shows."""


class Abort(StrEnum):
    """Why an attempt must stop before its end."""

    CANCELLED = "cancelled"
    """The coordinator says so: the job was cancelled or deleted, or the lease is another's."""
    DRAINED = "drained"
    """The worker's own time is over."""


class AttemptContext:
    """One attempt's context. `endpoints` answers with the newest push, also in the middle of an attempt."""

    def __init__(
        self, task: Task, *, artifacts: ArtifactStore, endpoints: Callable[[], tuple[ModelEndpoint, ...]]
    ) -> None:
        self._artifacts = artifacts
        self._endpoints = endpoints
        self._cancelled = asyncio.Event()
        self._progress: tuple[float, str] | None = None
        self._task = task
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._stop: Callable[[], None] | None = None
        self.abort_reason: Abort | None = None
        self.abort_said = ""
        """What the one who cancelled gave as the reason."""

    @property
    def cancelled(self) -> asyncio.Event:
        return self._cancelled

    @property
    def artifacts(self) -> ArtifactStore:
        return self._artifacts

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:  # most attempts of small tasks say nothing
            self._log = logging.LoggerAdapter(log, identity(self._task))
        return self._log

    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        return self._endpoints()

    async def progress(self, fraction: float, message: str = "") -> None:
        self._progress = (min(max(fraction, 0.0), 1.0), message[:MAX_MESSAGE])

    def take_progress(self) -> tuple[float, str] | None:
        """What was reported since the last call."""
        taken, self._progress = self._progress, None
        return taken

    def abort(self, reason: Abort, said: str = "") -> None:
        """Ask the attempt to stop; the first reason counts."""
        if self.abort_reason is None:
            self.abort_reason, self.abort_said = reason, said
            self.log.info("attempt is to stop", extra={"reason": reason, "said": said})
        self._cancelled.set()
        if self._stop is not None:
            self._stop()

    def when_aborted(self, stop: Callable[[], None] | None) -> None:
        """Whom to tell of an abort, also of one that came before; None: nobody any more."""
        self._stop = stop
        if stop is not None and self.abort_reason is not None:
            stop()


def identity(task: Task) -> dict[str, object]:
    """The fields that every log line about a task carries."""
    return {
        "kind": "Task", "namespace": task.namespace, "job": task.job_name, "uid": task.job_uid,
        "task": task.key, "type": task.type, "attempt": task.attempt,
    }
