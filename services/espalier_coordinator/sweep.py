"""Artifacts that nothing names any more go, a long time after somebody last had to do with them.

Named is whatever digest stands in a task, a result, a template, a result of the cache, or in an artifact that stays: of
open jobs and of ended ones, in memory and archived. What is not named is kept all the same until nobody has put or read
it for `unused_s`, so that a bundle which was pushed ahead, or is used every week, is there when its job comes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable

from espalier_coordinator.archive import Archive
from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.host import Host
from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError

log = logging.getLogger(__name__)

FIRST_S = 600.0
"""After the start: what was about to be named has been named by then."""
PERIOD_S = 6 * 3600.0
PAGE = 200
"""Tasks that are read at once: writes wait meanwhile."""
LARGEST_LIST_BYTES = 64 * 1024 * 1024
"""An artifact that is larger is not looked into: a million digests have room in it."""

_DIGEST = re.compile(rb"[0-9a-f]{64}")

Digests = set[str]


class Sweep:
    """Runs beside everything else: reads between transactions, looks into files in threads."""

    def __init__(self, host: Host, files: ArtifactFiles, clock: Clock, *, unused_s: float) -> None:
        self._host = host
        self._archive = Archive(host)
        self._files = files
        self._clock = clock
        self._unused_s = unused_s
        self._plain: set[str] = set()
        """Artifacts that name none: they need not be read again."""

    async def run(self) -> None:
        """For ever, or not at all where `unused_s` is 0; a sweep that cannot be finished removes nothing."""
        pause_s = FIRST_S
        while self._unused_s:
            await self._clock.sleep(pause_s)
            pause_s = PERIOD_S
            try:
                await self.once()
            except (EspalierError, OSError) as error:
                log.warning("artifacts not swept", extra={"error": str(error)})

    async def once(self) -> int:
        """One sweep; returns how many artifacts went."""
        before = self._clock.now().timestamp() - self._unused_s
        doomed = await asyncio.to_thread(self._files.unused_since, before)
        if doomed:
            await self._spare_named(doomed)
            await asyncio.to_thread(self._spare_mentioned, doomed)
        count, size = await asyncio.to_thread(self._files.remove, doomed, before)
        if count:
            log.info("artifacts removed", extra={"artifacts": count, "bytes": size})
        return count

    async def _spare_named(self, doomed: Digests) -> None:
        engine = self._host.engine
        kept = [task.payload for template in engine.templates.values() for task in template.tasks]
        await asyncio.to_thread(_spare, doomed, [*kept, *(cached.value for cached in engine.cache)])
        after = 0
        while page := await self._archive.contents(after=after, limit=PAGE):
            await asyncio.to_thread(_spare, doomed, [text for _, texts in page for text in texts])
            after = page[-1][0]

    def _spare_mentioned(self, doomed: Digests) -> None:
        """Lists of artifacts: whatever stays keeps what it names, and that what it names."""
        there = self._files.digests()
        self._plain &= there
        unread = there - doomed
        while unread and doomed:
            before = frozenset(doomed)
            for digest in unread - self._plain:
                pieces = self._files.pieces(digest, largest=LARGEST_LIST_BYTES, overlap=63)
                if not _spare(doomed, pieces):
                    self._plain.add(digest)
            unread = set(before - doomed)


def _spare(doomed: Digests, texts: Iterable[bytes]) -> bool:
    """Take out what is named; returns whether anything was, doomed or not."""
    names_any = False
    for text in texts:
        found = {digest.decode() for digest in _DIGEST.findall(text)}
        doomed -= found
        names_any |= bool(found)
    return names_any
