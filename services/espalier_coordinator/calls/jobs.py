"""Submitting, steering and seeing jobs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass

from espalier_coordinator.access import Identity
from espalier_coordinator.archive import Archive
from espalier_coordinator.calls.listing import JobLists
from espalier_coordinator.host import Host
from espalier_coordinator.model import NewTask
from espalier_coordinator.pools import check_pool
from espalier_coordinator.standing import job_status
from espalier_coordinator.state import JobEntry
from espalier_coordinator.views import JobPicture, job_picture, task_pictures
from espalier_coordinator.wire import (
    job_from_wire,
    job_to_wire,
    readable,
    status_to_wire,
    task_from_wire,
    task_to_wire,
)
from espalier_kit.errors import Permanent
from espalier_rpc.convert import endpoints_from_wire
from espalier_rpc.jsonform import embedded
from espalier_rpc.v1 import coordinator_pb2 as pb

WATCH_PAUSE_S = 1.0
"""A watcher hears of a job at most once in this time."""
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a submission gets that does not say."""

    retries: int = 3


class JobCalls:
    """Every call asks the engine and waits for the disk before it answers."""

    def __init__(self, host: Host, pools: Collection[str] = (), defaults: Defaults | None = None) -> None:
        self._host = host
        self._pools = pools
        self._defaults = defaults or Defaults()
        self._archive = Archive(host)
        self._lists = JobLists(host, self._archive)

    async def submit(self, caller: Identity, request: pb.SubmitJobRequest) -> pb.JobView:
        """Submit a job; idempotent by uid, and without one a new job every time."""
        filled = self._filled(caller, request)
        caller.require_submit(filled.namespace)
        check_pool(filled.pool, self._pools)
        await self._archive.ensure(filled.uid)
        endpoints = endpoints_from_wire(filled.endpoints) if filled.HasField("endpoints") else None
        tasks = self._tasks(filled)
        await self._host.settle(self._host.engine.submit(job_from_wire(filled), tasks, endpoints))
        return self._view(self._host.engine.job(filled.uid))

    async def update(self, caller: Identity, request: pb.UpdateJobRequest) -> pb.JobView:
        """Change priority, suspension or endpoints, or cancel."""
        await self.steerable(caller, request.uid)
        await self._host.settle(self._host.engine.update(
            request.uid,
            priority=request.priority if request.HasField("priority") else None,
            suspended=request.suspended if request.HasField("suspended") else None,
            cancel=request.cancel, cancel_reason=readable(request.cancel_reason),
            endpoints=endpoints_from_wire(request.endpoints) if request.HasField("endpoints") else None,
            weight=request.weight if request.HasField("weight") else None,
            max_tasks_per_s=request.max_tasks_per_s if request.HasField("max_tasks_per_s") else None,
            max_running=request.max_running if request.HasField("max_running") else None,
        ))
        return self._view(self._host.engine.job(request.uid))

    async def cancel(self, caller: Identity, request: pb.CancelJobRequest) -> pb.CancelJobResponse:
        """Stop a job for good; `success` is false where it had ended before."""
        entry = await self.steerable(caller, request.job_id)
        if entry.has_ended:
            return pb.CancelJobResponse(success=False, message=f"job {request.job_id} has already ended")
        await self._host.settle(self._host.engine.update(
            request.job_id, cancel=True, cancel_reason=readable(request.reason)
        ))
        return pb.CancelJobResponse(success=True, message=request.reason or "cancelled")

    async def delete(self, caller: Identity, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        """Forget a job; forgetting what is unknown is success for those who may forget anything."""
        if not caller.is_admin:
            await self.steerable(caller, request.uid)
        await self._host.settle(self._host.engine.delete(request.uid))
        return pb.DeleteJobResponse()

    async def get(self, caller: Identity, request: pb.GetJobRequest) -> pb.JobView:
        """One job."""
        return self._view(await self.visible(caller, request.uid))

    async def status(self, caller: Identity, request: pb.GetJobStatusRequest) -> pb.JobStatus:
        """One job in the words of a small client."""
        entry = await self.visible(caller, request.job_id)
        return status_to_wire(job_status(entry), self._picture(entry))

    async def list_jobs(self, caller: Identity, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """A page of the jobs that the caller may see and that pass every filter."""
        return await self._lists.page(caller, request)

    async def tasks(self, caller: Identity, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        """A job's tasks in the order of submission, `limit` at a time after task id `after`."""
        tasks = task_pictures(await self.visible(caller, request.job_uid), request.state)
        return page_of([task_to_wire(t) for t in tasks], limit=request.limit, after=request.after)

    async def watch_all(self, caller: Identity, _request: pb.WatchJobsRequest) -> AsyncIterator[pb.JobView]:
        """Every job that the caller may see, then each change."""
        async with self._host.watch() as watch:
            uids: Iterable[str] = list(self._host.engine.jobs)
            while True:
                for uid in uids:
                    entry = self._host.engine.jobs.get(uid)
                    if entry and caller.may_see(entry.job.namespace):
                        yield self._view(entry)
                await asyncio.sleep(WATCH_PAUSE_S)
                uids = await watch.take()

    async def watch(self, caller: Identity, request: pb.WatchJobRequest) -> AsyncIterator[pb.JobView]:
        """One job and each of its changes, to its end."""
        async with self._host.watch() as watch:
            entry = await self.visible(caller, request.job_id)
            yield self._view(entry)
            while not entry.is_finished:
                await asyncio.sleep(WATCH_PAUSE_S)
                while request.job_id not in await watch.take():
                    pass
                entry = await self.visible(caller, request.job_id)
                yield self._view(entry)

    # ------------------------------------------------------------ inside

    def _filled(self, caller: Identity, request: pb.SubmitJobRequest) -> pb.SubmitJobRequest:
        filled = pb.SubmitJobRequest()
        filled.CopyFrom(request)
        filled.uid = request.uid or str(uuid.uuid4())
        filled.namespace = request.namespace or caller.namespace or DEFAULT_NAMESPACE
        filled.name = request.name or filled.uid
        if not request.HasField("retries"):
            filled.retries = self._defaults.retries
        return filled

    def _tasks(self, request: pb.SubmitJobRequest) -> list[NewTask]:
        """Those of the request, or its template's."""
        if request.template and request.tasks:
            raise Permanent("give either tasks or a template, not both", reason="InvalidJob")
        if request.template:
            return [*self._host.engine.rendered(request.namespace, request.template, request.parameters)]
        if request.parameters:
            raise Permanent("parameters are for a template: name it", reason="InvalidJob")
        tasks = [task_from_wire(t) for t in request.tasks]
        check_payloads(tasks)
        return tasks

    async def visible(self, caller: Identity, uid: str) -> JobEntry:
        """A job that the caller may see, from the archive if need be. Raises `NotFound`, `Forbidden`."""
        if archived := self._host.engine.archived.get(uid):
            caller.require_namespace(archived.namespace)
            await self._archive.ensure(uid)
        entry = self._host.engine.job(uid)
        caller.require_namespace(entry.job.namespace)
        return entry

    async def steerable(self, caller: Identity, uid: str) -> JobEntry:
        """A job that the caller may change."""
        entry = await self.visible(caller, uid)
        caller.require_submit(entry.job.namespace)
        return entry

    def _picture(self, entry: JobEntry) -> JobPicture:
        return job_picture(self._host.engine, entry)

    def _view(self, entry: JobEntry) -> pb.JobView:
        return job_to_wire(self._picture(entry))


def check_payloads(tasks: Iterable[NewTask]) -> None:
    """Raise `Permanent` for one that no executor could read."""
    for task in tasks:
        if task.payload and not isinstance(embedded(task.payload), dict):
            raise Permanent(f"task {task.key!r}: the payload must be a JSON object", reason="InvalidTask")


def page_of(tasks: list[pb.TaskView], *, limit: int, after: str) -> pb.ListTasksResponse:
    """`limit` tasks (0: all) after the one whose id is `after`; `next` is empty at the end."""
    if limit < 0:
        raise Permanent("limit cannot be negative: 0 means all", reason="InvalidPage")
    start = 0
    if after:
        start = next((n + 1 for n, t in enumerate(tasks) if t.id == after), len(tasks))
    shown = tasks[start:start + limit] if limit else tasks[start:]
    more = start + len(shown) < len(tasks)
    return pb.ListTasksResponse(tasks=shown, next=shown[-1].id if shown and more else "")
