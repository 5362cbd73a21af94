"""Which artifacts go: those that nothing names, long after somebody last had to do with them, and no others."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.cache import Cached
from espalier_coordinator.engine import Engine, Limits
from espalier_coordinator.host import Host
from espalier_coordinator.model import Ending, Job, NewTask
from espalier_coordinator.store import ArchiveJob, PutEnding
from espalier_coordinator.store.memory import MemoryStore
from espalier_coordinator.sweep import Sweep
from espalier_coordinator.templates import Template
from espalier_kit.clock import SystemClock
from espalier_kit.digest import sha256
from espalier_kit.execution import TaskState

MONTH_S = 30 * 86_400.0


class Volume:
    """A coordinator, its artifacts, and how long ago each was used."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.store = SystemClock(), MemoryStore()
        engine = Engine(self.clock, random.Random(1), epoch="1-x", limits=Limits(max_completed_jobs=0))
        self.host = Host(engine, self.store, self.clock)
        self.files = ArtifactFiles(folder)
        self.files.open()
        self.folder = folder
        self.sweep = Sweep(self.host, self.files, self.clock, unused_s=MONTH_S)

    async def put(self, data: bytes, *, namespace: str = "ns", months: float = 2.0) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        stored = await self.files.put(namespace, chunks())
        then = self.clock.now().timestamp() - months * MONTH_S
        os.utime(self.folder / namespace / stored.sha256, (then, then))
        return stored.sha256

    async def submit(self, *payloads: bytes, uid: str = "job") -> None:
        tasks = [NewTask(str(n), "t", payload) for n, payload in enumerate(payloads)]
        await self.host.settle(self.host.engine.submit(Job(uid, "ns", uid), tasks))

    async def left(self) -> set[str]:
        await self.sweep.once()
        return self.files.digests()


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    made = Volume(tmp_path / "artifacts")
    made.host.writer.start()
    yield made
    made.host.writer.stop(5)


def naming(*digests: str) -> bytes:
    return b'{"files": [%s]}' % b", ".join(b'"%s"' % digest.encode() for digest in digests)


async def test_what_a_deleted_job_left_goes_and_its_room_is_free(volume: Volume) -> None:
    bundle, index = await volume.put(b"bundle"), await volume.put(b"index")
    await volume.submit(naming(bundle))
    assert await volume.left() == {bundle}
    await volume.host.settle(volume.host.engine.delete("job"))
    assert await volume.left() == set()
    assert (volume.files.used.total(), volume.files.removed, index in volume.files.digests()) == (0, 2, False)


async def test_what_an_archived_job_returned_stays_and_what_that_lists(volume: Volume) -> None:
    page = await volume.put(b"page")
    index = await volume.put(naming(page))
    outer = await volume.put(naming(index))
    await volume.submit(b"{}")
    task = next(iter(volume.store.tables.tasks.values()))
    volume.store.commit([PutEnding(task.record, Ending(TaskState.DONE, 1, value=naming(outer))),
                         ArchiveJob("job", "{}")])
    forgotten = await volume.put(b"forgotten")
    assert await volume.left() == {page, index, outer}
    assert forgotten not in volume.files.digests()


async def test_a_long_list_is_read_across_its_pieces(volume: Volume) -> None:
    page = await volume.put(b"page")
    for before in (1024 * 1024 - 1, 1024 * 1024 - 32, 1024 * 1024 - 63):
        index = await volume.put(b"-" * before + page.encode(), months=0)
        assert await volume.left() == {page, index}
        (volume.folder / "ns" / index).unlink()


async def test_templates_and_the_cache_name_artifacts_too(volume: Volume) -> None:
    first, second = await volume.put(b"1"), await volume.put(b"2")
    task = NewTask("a", "t", naming(first))
    await volume.host.settle(volume.host.engine.put_template(Template("ns", "n", (task,))))
    volume.host.engine.cache.put(Cached("k", naming(second)))
    assert await volume.left() == {first, second}


async def test_what_somebody_used_a_short_time_ago_stays(volume: Volume) -> None:
    young, read = await volume.put(b"young", months=0.5), await volume.put(b"read")
    again, elsewhere = await volume.put(b"again"), await volume.put(b"elsewhere")
    volume.files.path("ns", read)
    await volume.put(b"again", months=0)
    await volume.put(b"elsewhere", namespace="other", months=0)
    assert await volume.left() == {young, read, again, elsewhere}


async def test_what_is_used_while_the_sweep_goes_on_stays(volume: Volume) -> None:
    digest = await volume.put(b"x")
    before = volume.clock.now().timestamp() - MONTH_S
    doomed = volume.files.unused_since(before)
    volume.files.path("ns", digest)
    assert (doomed, volume.files.remove(doomed, before)) == ({digest}, (0, 0))


async def test_a_sweep_reads_every_page(volume: Volume) -> None:
    last = await volume.put(b"last")
    await volume.submit(*[b"{}"] * 450, naming(last))
    assert await volume.left() == {last}


async def test_names_of_another_form_are_left_alone(volume: Volume) -> None:
    odd = volume.folder / "ns" / "README"
    await volume.put(b"x")
    odd.write_text(sha256(b"y"))
    os.utime(odd, (0, 0))
    assert await volume.left() == set()
    assert odd.exists()


async def test_jobs_of_every_state_keep_theirs(volume: Volume) -> None:
    kept = [await volume.put(str(n).encode()) for n in range(3)]
    for n, digest in enumerate(kept):
        await volume.submit(naming(digest), uid=f"job-{n}")
    await volume.host.settle(volume.host.engine.update("job-1", cancel=True))
    await volume.host.settle(volume.host.engine.tick())
    await volume.host.settle(volume.host.engine.update("job-2", suspended=True))
    assert replace(volume.store.tables.jobs["job-1"]).cancelled
    assert await volume.left() == set(kept)
