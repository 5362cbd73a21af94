"""Lists of jobs in pages: every job once, wherever it is and whatever happens to it between two pages."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from espalier_coordinator.access import Identity
from espalier_coordinator.archive import Archive
from espalier_coordinator.calls import listing
from espalier_coordinator.calls.listing import JobLists
from espalier_coordinator.engine import Engine, Limits
from espalier_coordinator.host import Host
from espalier_coordinator.model import Job, NewTask
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.errors import Forbidden, Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb
from tests.support.coordination import Hands

ADMIN, TUTOR = Identity("admin", None, is_admin=True), Identity("tutor", "course", may_submit=True)


class Shelf:
    """Jobs `j0`, `j1`, …: the even ones have ended and are archived, the odd ones are open."""

    def __init__(self, jobs: int) -> None:
        self.clock = Hands()
        engine = Engine(self.clock, random.Random(1), epoch="1-x", limits=Limits(max_completed_jobs=0))
        self.host = Host(engine, MemoryStore(), self.clock)
        self.host.writer.start()
        self.archive = Archive(self.host)
        self.lists = JobLists(self.host, self.archive)
        self.uids = [f"j{n:04}" for n in range(jobs)]

    async def fill(self) -> None:
        for n, uid in enumerate(self.uids):
            tasks = [NewTask("a", "t")] if n % 2 else []
            job = Job(uid, "course" if n % 3 else "other", uid, tags=("x",) if n % 5 else ())
            await self.host.settle(self.host.engine.submit(job, tasks))
        await self.archive_ended()

    async def archive_ended(self) -> None:
        while any(e.is_finished for e in self.host.engine.jobs.values()):
            await self.host.settle(self.host.engine.tick())

    async def page(self, caller: Identity = ADMIN, **fields: object) -> pb.ListJobsResponse:
        return await self.lists.page(caller, pb.ListJobsRequest(**fields))  # type: ignore[arg-type]

    async def pages(self, size: int, **fields: object) -> list[list[str]]:
        found, token = [], ""
        while True:
            page = await self.page(page_size=size, page_token=token, **fields)
            found.append([job.uid for job in page.jobs])
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf(250)
    await made.fill()
    assert (len(made.host.engine.jobs), len(made.host.engine.archived)) == (125, 125)
    yield made
    made.host.writer.stop(5)


@pytest.mark.parametrize("size", [1, 7, 100, 125, 250, 0, 5000])
async def test_every_job_is_in_one_page(shelf: Shelf, size: int) -> None:
    pages = await shelf.pages(size)
    assert [uid for page in pages for uid in page] == shelf.uids
    assert {len(page) for page in pages[:-1]} <= {size}


@pytest.mark.parametrize(("filters", "expected"), [
    ({"status_filter": "pending"}, lambda n: n % 2),
    ({"status_filter": "complete"}, lambda n: n % 2 == 0),
    ({"status_filter": "completed", "tag_filter": ["x"]}, lambda n: n % 2 == 0 and n % 5),
    ({"status_filter": "failed"}, lambda n: False),
    ({"namespace": "other"}, lambda n: n % 3 == 0),
])
async def test_filters_hold_over_pages(shelf: Shelf, filters: dict[str, object], expected: object) -> None:
    wanted = [uid for n, uid in enumerate(shelf.uids) if expected(n)]  # type: ignore[operator]
    assert [uid for page in await shelf.pages(9, **filters) for uid in page] == wanted


async def test_one_sees_only_what_one_may(shelf: Shelf) -> None:
    page = await shelf.page(TUTOR)
    assert {job.namespace for job in page.jobs} == {"course"}
    with pytest.raises(Forbidden):
        await shelf.page(TUTOR, namespace="other")


async def test_a_job_that_moves_between_two_pages_is_neither_lost_nor_told_twice(shelf: Shelf) -> None:
    first = await shelf.page(page_size=120)
    for uid in (shelf.uids[10], shelf.uids[200]):
        await shelf.archive.ensure(uid)
    for uid in (shelf.uids[11], shelf.uids[201]):
        await shelf.host.settle(shelf.host.engine.update(uid, cancel=True))
    await shelf.host.settle(shelf.host.engine.tick())
    second = await shelf.page(page_size=1000, page_token=first.next_page_token)
    assert [job.uid for job in (*first.jobs, *second.jobs)] == shelf.uids


async def test_a_page_ends_before_it_is_too_large_for_a_message(shelf: Shelf) -> None:
    size = (await shelf.page()).ByteSize()
    assert size < listing.MAX_BYTES
    name = "n" * (listing.MAX_BYTES // 2)
    for n in range(3):
        await shelf.host.settle(shelf.host.engine.submit(Job(f"a{n}", "course", name), [NewTask("a", "t")]))
    assert [len(page) for page in await shelf.pages(0)] == [2, 251]


async def test_what_is_no_size_is_a_sentence(shelf: Shelf) -> None:
    with pytest.raises(Permanent, match="page_size cannot be negative"):
        await shelf.page(page_size=-1)
