"""The calls over gRPC: who asks is read off the token, errors become status codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from espalier_coordinator.access import Access, Identity, identify
from espalier_coordinator.calls.book import Calls
from espalier_coordinator.host import Host
from espalier_coordinator.session import serve_session
from espalier_coordinator.staying import while_known
from espalier_kit.errors import EspalierError
from espalier_rpc.server import COMPRESS_FROM_BYTES, abort, bearer_token, certificate_names
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1 import coordinator_pb2_grpc as rpc

Context = aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Answer = TypeVar("Answer", bound=Message)


class Coordinator(rpc.CoordinatorServicer):
    """One line per call: what it means is in `calls`."""

    def __init__(self, host: Host, access: Access, calls: Calls) -> None:
        self._host = host
        self._access = access
        self._calls = calls

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        return await self._answer(context, request, self._calls.jobs.submit)

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        return await self._answer(context, request, self._calls.jobs.update)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.JobView:  # noqa: N802
        return await self._look(context, request, self._calls.jobs.get)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:  # noqa: N802
        return await self._look(context, request, self._calls.jobs.list_jobs)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:  # noqa: N802
        return await self._answer(context, request, self._calls.jobs.delete)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:  # noqa: N802
        return await self._look(context, request, self._calls.jobs.tasks)

    async def RegisterWorker(  # noqa: N802
        self, request: pb.RegisterWorkerRequest, context: Context
    ) -> pb.RegisterWorkerResponse:
        return await self._answer(context, request, self._calls.workers.register)

    async def DeregisterWorker(  # noqa: N802
        self, request: pb.DeregisterWorkerRequest, context: Context
    ) -> pb.DeregisterWorkerResponse:
        return await self._answer(context, request, self._calls.workers.deregister)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:  # noqa: N802
        return await self._answer(context, request, self._calls.workers.heartbeat)

    async def PullTasks(self, request: pb.PullTasksRequest, context: Context) -> pb.PullTasksResponse:  # noqa: N802
        return await self._answer(context, request, self._calls.workers.pull)

    async def ReportResult(  # noqa: N802
        self, request: pb.ReportResultRequest, context: Context
    ) -> pb.ReportResultResponse:
        return await self._answer(context, request, self._calls.workers.report)

    async def HealthCheck(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        return await self._look(context, request, self._calls.fleet.health)

    async def GetJobStatus(self, request: pb.GetJobStatusRequest, context: Context) -> pb.JobStatus:  # noqa: N802
        return await self._look(context, request, self._calls.jobs.status)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:  # noqa: N802
        return await self._answer(context, request, self._calls.jobs.cancel)

    async def ListWorkers(  # noqa: N802
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        return await self._look(context, request, self._calls.fleet.list_workers)

    async def DrainWorker(  # noqa: N802
        self, request: pb.DrainWorkerRequest, context: Context
    ) -> pb.DrainWorkerResponse:
        return await self._answer(context, request, self._calls.fleet.drain)

    async def GetClusterStats(  # noqa: N802
        self, request: pb.GetClusterStatsRequest, context: Context
    ) -> pb.ClusterStats:
        return await self._look(context, request, self._calls.fleet.stats)

    async def ListDeadLetters(  # noqa: N802
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListTasksResponse:
        return await self._look(context, request, self._calls.letters.list_letters)

    async def RetryTasks(self, request: pb.RetryTasksRequest, context: Context) -> pb.RetryTasksResponse:  # noqa: N802
        return await self._answer(context, request, self._calls.letters.retry)

    async def PutTemplate(self, request: pb.Template, context: Context) -> pb.Template:  # noqa: N802
        return await self._answer(context, request, self._calls.templates.put)

    async def GetTemplate(self, request: pb.TemplateName, context: Context) -> pb.Template:  # noqa: N802
        return await self._look(context, request, self._calls.templates.get)

    async def ListTemplates(  # noqa: N802
        self, request: pb.ListTemplatesRequest, context: Context
    ) -> pb.ListTemplatesResponse:
        return await self._look(context, request, self._calls.templates.list_templates)

    async def DeleteTemplate(  # noqa: N802
        self, request: pb.TemplateName, context: Context
    ) -> pb.DeleteTemplateResponse:
        return await self._answer(context, request, self._calls.templates.delete)

    async def Reserve(self, request: pb.Reservation, context: Context) -> pb.Reservation:  # noqa: N802
        return await self._answer(context, request, self._calls.reservations.reserve)

    async def ReleaseReservation(  # noqa: N802
        self, request: pb.ReservationName, context: Context
    ) -> pb.ReleaseReservationResponse:
        return await self._answer(context, request, self._calls.reservations.release)

    async def ListReservations(  # noqa: N802
        self, request: pb.ListReservationsRequest, context: Context
    ) -> pb.ListReservationsResponse:
        return await self._look(context, request, self._calls.reservations.list_reservations)

    async def WatchJobs(  # noqa: N802
        self, request: pb.WatchJobsRequest, context: Context
    ) -> AsyncIterator[pb.JobView]:
        async for view in self._stream(context, request, self._calls.jobs.watch_all):
            yield view

    async def WatchJob(  # noqa: N802
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.JobView]:
        async for view in self._stream(context, request, self._calls.jobs.watch):
            yield view

    async def Session(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.WorkerMessage], context: Context
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        async for message in serve_session(self._host, self._access, request_iterator, context):
            yield message

    async def _who(self, context: Context) -> Identity:
        return await identify(self._access, bearer_token(context), certificate_names(context))

    async def _answer(
        self, context: Context, request: Request, call: Callable[[Identity, Request], Awaitable[Answer]]
    ) -> Answer:
        """Of a call that changes something: where that breaks, what is in memory cannot be trusted any more."""
        try:
            return await self._look(context, request, call)
        except (aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            self._host.fail(error)
            raise

    async def _look(
        self, context: Context, request: Request, call: Callable[[Identity, Request], Awaitable[Answer]]
    ) -> Answer:
        """Of a call that changes nothing."""
        try:
            answer = await call(await self._who(context), request)
        except EspalierError as error:
            await abort(context, error)
        if answer.ByteSize() >= COMPRESS_FROM_BYTES:
            context.set_compression(grpc.Compression.Gzip)
        return answer

    async def _stream(
        self, context: Context, request: Request, call: Callable[[Identity, Request], AsyncIterator[Answer]]
    ) -> AsyncIterator[Answer]:
        try:
            caller = await self._who(context)
            async for answer in while_known(call(caller, request), partial(self._who, context), caller):
                yield answer
        except EspalierError as error:
            await abort(context, error)
