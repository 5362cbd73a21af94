"""The unary calls and the watch: submitting, steering and seeing jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar

from grpc import aio

from espalier_coordinator.access import Access, Identity
from espalier_coordinator.host import Host
from espalier_coordinator.pools import check_pool
from espalier_coordinator.session import serve_session
from espalier_coordinator.state import JobEntry
from espalier_coordinator.views import job_picture, task_pictures
from espalier_coordinator.wire import job_from_wire, job_to_wire, task_from_wire, task_to_wire
from espalier_kit.errors import EspalierError
from espalier_rpc.convert import endpoints_from_wire
from espalier_rpc.server import abort, bearer_token
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1 import coordinator_pb2_grpc as rpc

Context = aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")

WATCH_PAUSE_S = 1.0
"""A watcher hears of a job at most once in this time."""


class Coordinator(rpc.CoordinatorServicer):
    """Every call says who is calling, asks the engine, and waits for the disk before it answers."""

    def __init__(self, host: Host, access: Access, pools: Collection[str] = ()) -> None:
        self._pools = pools
        self._host = host
        self._access = access

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        async def submit(identity: Identity) -> pb.JobView:
            identity.require_admin()
            check_pool(request.pool, self._pools)
            endpoints = endpoints_from_wire(request.endpoints) if request.HasField("endpoints") else None
            tasks = [task_from_wire(t) for t in request.tasks]
            await self._host.settle(self._host.engine.submit(job_from_wire(request), tasks, endpoints))
            return self._view(self._host.engine.job(request.uid))

        return await self._answer(context, submit)

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        async def update(identity: Identity) -> pb.JobView:
            identity.require_admin()
            await self._host.settle(self._host.engine.update(
                request.uid,
                priority=request.priority if request.HasField("priority") else None,
                suspended=request.suspended if request.HasField("suspended") else None,
                cancel=request.cancel,
                endpoints=endpoints_from_wire(request.endpoints) if request.HasField("endpoints") else None,
            ))
            return self._view(self._host.engine.job(request.uid))

        return await self._answer(context, update)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:  # noqa: N802
        async def delete(identity: Identity) -> pb.DeleteJobResponse:
            identity.require_admin()
            await self._host.settle(self._host.engine.delete(request.uid))
            return pb.DeleteJobResponse()

        return await self._answer(context, delete)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        async def get(identity: Identity) -> pb.JobView:
            return self._view(self._visible(identity, request.uid))

        return await self._answer(context, get)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:  # noqa: N802
        async def list_jobs(identity: Identity) -> pb.ListJobsResponse:
            wanted = request.namespace or identity.reach
            if wanted:
                identity.require_namespace(wanted)
            jobs = [e for e in self._host.engine.jobs.values() if wanted in (None, "", e.job.namespace)]
            return pb.ListJobsResponse(jobs=[self._view(e) for e in jobs], epoch=self._host.engine.epoch)

        return await self._answer(context, list_jobs)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:  # noqa: N802
        async def list_tasks(identity: Identity) -> pb.ListTasksResponse:
            tasks = task_pictures(self._visible(identity, request.job_uid), request.state)
            return pb.ListTasksResponse(tasks=[task_to_wire(t) for t in tasks])

        return await self._answer(context, list_tasks)

    async def WatchJobs(  # noqa: N802
        self, request: pb.WatchJobsRequest, context: Context
    ) -> AsyncIterator[pb.JobView]:
        identity = await self._answer(context, _itself)
        async with self._host.watch() as watch:
            uids = list(self._host.engine.jobs)
            while True:
                for uid in uids:
                    entry = self._host.engine.jobs.get(uid)
                    if entry and identity.reach in (None, entry.job.namespace):
                        yield self._view(entry)
                await asyncio.sleep(WATCH_PAUSE_S)
                uids = await watch.take()

    async def Session(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.WorkerMessage], context: Context
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        async for message in serve_session(self._host, self._access, request_iterator, context):
            yield message

    async def _answer(self, context: Context, call: Callable[[Identity], Awaitable[Answer]]) -> Answer:
        try:
            return await call(await self._access.identify(bearer_token(context)))
        except EspalierError as error:
            await abort(context, error)
        except Exception as error:
            self._host.fail(error)
            raise

    def _visible(self, identity: Identity, uid: str) -> JobEntry:
        entry = self._host.engine.job(uid)
        identity.require_namespace(entry.job.namespace)
        return entry

    def _view(self, entry: JobEntry) -> pb.JobView:
        return job_to_wire(job_picture(self._host.engine, entry))


async def _itself(identity: Identity) -> Identity:
    return identity
