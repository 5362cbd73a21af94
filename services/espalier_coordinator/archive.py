"""The store's answers: jobs that are only there, failed tasks wherever they are, what all tasks carry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from espalier_coordinator.completed import Summary, read_summary
from espalier_coordinator.host import Host
from espalier_coordinator.store import Contents, DeadLetter, TaskStore

Answer = TypeVar("Answer")


class Archive:
    """Reads between the writer's transactions; the engine stays the only one that changes anything."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def ensure(self, uid: str) -> None:
        """Bring an archived job back into memory. Call it before anything that names a job; cheap for the others."""
        if uid not in self._host.engine.archived:
            return
        snapshot = await self._read(lambda store: store.job(uid))
        await self._host.settle(self._host.engine.recall(snapshot))

    async def summaries(self, uids: Sequence[str]) -> tuple[Summary, ...]:
        """Those of these jobs that are archived, for lists."""
        if not uids:
            return ()
        found = await self._read(lambda store: store.archived(uids))
        return tuple(read_summary(archived) for archived in found)

    async def dead_letters(
        self, namespace: str | None = None, *, job_uid: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[DeadLetter, ...]:
        """Failed tasks by sequence, behind `after`, archived jobs' too; None: of every namespace."""
        return await self._read(
            lambda store: store.dead_letters(namespace, job_uid=job_uid, after=after, limit=limit))

    async def contents(self, *, after: int = 0, limit: int = 1000) -> tuple[Contents, ...]:
        """What tasks and results carry, by sequence, behind `after`."""
        return await self._read(lambda store: store.contents(after=after, limit=limit))

    async def _read(self, query: Callable[[TaskStore], Answer]) -> Answer:
        return await asyncio.wrap_future(self._host.writer.read(query))
