"""A coordinator in memory for tests: jobs as they were handed over, views that a test moves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from espalier_kit.errors import NotFound, Retryable
from espalier_rpc.views import Counts, JobList, JobRequest, JobUpdate, JobView


class FakeCoordinator:
    """`WorkPort` in memory. `is_away` makes every call `Retryable` and breaks watches."""

    def __init__(self) -> None:
        self.requests: dict[str, JobRequest] = {}
        self.updates: list[JobUpdate] = []
        self.deleted: list[str] = []
        self.epoch = "1"
        self._views: dict[str, JobView] = {}
        self._watchers: list[asyncio.Queue[JobView | None]] = []
        self._is_away = False

    async def submit(self, job: JobRequest) -> JobView:
        self._answering()
        if job.uid not in self._views:
            self.requests[job.uid] = job
            state = "suspended" if job.suspended else "running"
            self._put(JobView(
                job.uid, job.namespace, job.name, job.kind, state, counts=Counts(pending=len(job.tasks)),
                priority=job.priority, epoch=self.epoch,
            ))
        return self._views[job.uid]

    async def update(self, update: JobUpdate) -> JobView:
        self._answering()
        if update.uid not in self._views:
            raise NotFound(f"no job {update.uid}")
        self.updates.append(update)
        view = self._views[update.uid]
        state = "cancelling" if update.cancel else view.state
        if update.suspended is not None and not update.cancel:
            state = "suspended" if update.suspended else "running"
        priority = view.priority if update.priority is None else update.priority
        self._put(replace(view, state=state, priority=priority))
        return self._views[update.uid]

    async def list(self, namespace: str = "") -> JobList:
        self._answering()
        return JobList(tuple(v for v in self._views.values() if namespace in ("", v.namespace)), self.epoch)

    async def delete(self, uid: str) -> None:
        self._answering()
        self.deleted.append(uid)
        self._views.pop(uid, None)

    async def watch(self) -> AsyncIterator[JobView]:
        self._answering()
        queue: asyncio.Queue[JobView | None] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            for view in tuple(self._views.values()):
                yield view
            while (view_or_end := await queue.get()) is not None:
                yield view_or_end
        finally:
            self._watchers.remove(queue)
        raise Retryable("the coordinator went away")

    def move(self, uid: str, **changes: object) -> JobView:
        """Change a view as the coordinator would, and tell the watchers."""
        self._put(replace(self._views[uid], **changes))  # type: ignore[arg-type] # a test names fields of JobView
        return self._views[uid]

    def restart(self) -> None:
        """A new epoch: watches break, views stay."""
        self.leave()
        self.epoch = str(int(self.epoch) + 1)
        self._views = {uid: replace(view, epoch=self.epoch) for uid, view in self._views.items()}
        self._is_away = False

    def leave(self) -> None:
        """Stop answering."""
        self._is_away = True
        for queue in self._watchers:
            queue.put_nowait(None)

    def _put(self, view: JobView) -> None:
        self._views[view.uid] = view
        for queue in self._watchers:
            queue.put_nowait(view)

    def _answering(self) -> None:
        if self._is_away:
            raise Retryable("the coordinator does not answer")
