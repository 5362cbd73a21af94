"""Lists of jobs, page by page, by uid: those in memory and those that only the store has, as one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from espalier_coordinator.access import Identity
from espalier_coordinator.archive import Archive
from espalier_coordinator.calls.filters import check_status
from espalier_coordinator.host import Host
from espalier_coordinator.model import EndedJob, Job
from espalier_coordinator.standing import job_status
from espalier_coordinator.views import archived_picture, job_picture
from espalier_coordinator.wire import job_to_wire
from espalier_kit.errors import Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb

MAX_PAGE = 1000
MAX_BYTES = 16 * 1024 * 1024
"""A page that has so much ends: outcomes may be large, and a page must fit into one message."""
CHUNK = 100
"""Archived jobs read at once."""
STATUSES = frozenset({"pending", "running", "suspended", "cancelling", "cancelled", "complete", "completed", "failed"})


class JobLists:
    """Pages of what the caller may see. A job that is archived or recalled meanwhile is in exactly one page."""

    def __init__(self, host: Host, archive: Archive) -> None:
        self._host = host
        self._archive = archive

    async def page(self, caller: Identity, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """The next jobs that pass every filter. Raises `Permanent` with a sentence, and `Forbidden`."""
        if request.namespace:
            caller.require_namespace(request.namespace)
        check_status(request.status_filter, STATUSES, of="job")
        if request.page_size < 0:
            raise Permanent("page_size cannot be negative: 0 means the largest", reason="InvalidPage")
        told = pb.ListJobsResponse(epoch=self._host.engine.epoch)
        most, size = min(request.page_size or MAX_PAGE, MAX_PAGE), 0
        async for view in self._views(caller, request):
            if len(told.jobs) == most or size > MAX_BYTES:
                told.next_page_token = told.jobs[-1].uid
                break
            told.jobs.append(view)
            size += view.ByteSize()
        return told

    # ------------------------------------------------------------ inside

    async def _views(self, caller: Identity, request: pb.ListJobsRequest) -> AsyncIterator[pb.JobView]:
        uids = self._uids(request.page_token)
        for start in range(0, len(uids), CHUNK):
            chunk = uids[start:start + CHUNK]
            told = dict(self._in_memory(chunk, caller, request))
            told |= await self._archived([uid for uid in chunk if uid not in told], caller, request)
            told |= self._in_memory([uid for uid in chunk if uid not in told], caller, request)  # recalled meanwhile
            for uid in chunk:
                if uid in told:
                    yield told[uid]

    def _uids(self, after: str) -> list[str]:
        engine = self._host.engine
        return sorted({uid for known in (engine.jobs, engine.archived) for uid in known if uid > after})

    def _in_memory(
        self, uids: Sequence[str], caller: Identity, request: pb.ListJobsRequest
    ) -> Iterator[tuple[str, pb.JobView]]:
        engine, wanted = self._host.engine, request.status_filter
        for uid in uids:
            entry = engine.jobs.get(uid)
            if entry and _is_asked_for(entry.job, caller, request) and wanted in (
                "", entry.state.value, job_status(entry)
            ):
                yield uid, job_to_wire(job_picture(engine, entry))

    async def _archived(
        self, uids: Sequence[str], caller: Identity, request: pb.ListJobsRequest
    ) -> dict[str, pb.JobView]:
        engine = self._host.engine
        ended = {uid: job for uid in uids if (job := engine.archived.get(uid)) and caller.may_see(job.namespace)}
        found = await self._archive.summaries([uid for uid, job in ended.items() if _has_status(job, request)])
        return {
            summary.job.uid: job_to_wire(archived_picture(summary, engine.epoch)) for summary in found
            if _is_asked_for(summary.job, caller, request)
        }


def _has_status(job: EndedJob, request: pb.ListJobsRequest) -> bool:
    state = "cancelled" if job.status == "cancelled" else "complete"
    return request.namespace in ("", job.namespace) and request.status_filter in ("", state, job.status)


def _is_asked_for(job: Job, caller: Identity, request: pb.ListJobsRequest) -> bool:
    return caller.may_see(job.namespace) and request.namespace in ("", job.namespace) and (
        frozenset(request.tag_filter) <= frozenset(job.tags)
    )
