"""The coordinator's client: calls with deadlines over a channel (`channels`), errors by meaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from espalier_kit.errors import Conflict, EspalierError, Forbidden, NotFound, Permanent, Retryable
from espalier_rpc import convert
from espalier_rpc.channels import MAX_MESSAGE_BYTES, channel
from espalier_rpc.jsonform import from_json, to_json
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorStub
from espalier_rpc.views import JobList, JobRequest, JobUpdate, JobView, TaskView

__all__ = ["CoordinatorClient", "channel", "translate"]

CALL_TIMEOUT_S = 20.0
COMPRESS_FROM_BYTES = 64 * 1024
"""Requests of at least this size are compressed: below, it costs more than it saves."""
REASON_KEY = "espalier-reason"
"""Trailing metadata in which the server names its reason."""

_MEANING: dict[grpc.StatusCode, tuple[type[EspalierError], str]] = {
    grpc.StatusCode.NOT_FOUND: (NotFound, "NotFound"),
    grpc.StatusCode.PERMISSION_DENIED: (Forbidden, "Forbidden"),
    grpc.StatusCode.UNAUTHENTICATED: (Forbidden, "Unauthenticated"),
    grpc.StatusCode.INVALID_ARGUMENT: (Permanent, "InvalidArgument"),
    grpc.StatusCode.OUT_OF_RANGE: (Permanent, "InvalidArgument"),
    grpc.StatusCode.FAILED_PRECONDITION: (Permanent, "FailedPrecondition"),
    grpc.StatusCode.UNIMPLEMENTED: (Permanent, "Unimplemented"),
    grpc.StatusCode.ABORTED: (Conflict, "Conflict"),
    grpc.StatusCode.ALREADY_EXISTS: (Conflict, "AlreadyExists"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Retryable, "Overloaded"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Retryable, "Deadline"),
}


def translate(error: grpc.aio.AioRpcError) -> EspalierError:
    """The error by meaning; its message is the server's sentence."""
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return Permanent(f"a message may have at most {MAX_MESSAGE_BYTES} bytes: submit the tasks in several requests "
                         "under one uid, and put large payloads into the artifact store", reason="MessageTooLarge")
    kind, reason = _MEANING.get(error.code(), (Retryable, "Unavailable"))
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    told = dict(metadata).get(REASON_KEY)
    message = error.details() or f"the coordinator answered {error.code().name}"
    return kind(message, reason=told if isinstance(told, str) else reason)


@contextmanager
def _by_meaning() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Retryable("the coordinator cancelled the call") from error  # gRPC raises the same for both


def compression_of(request: Message) -> grpc.Compression | None:
    """How to send a message: small ones as they are."""
    return grpc.Compression.Gzip if request.ByteSize() >= COMPRESS_FROM_BYTES else None


class CoordinatorClient:
    """All calls raise the errors of `espalier_kit.errors`; none retries by itself, `Retryable` says that one may."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._channel = channel
        self._stub = CoordinatorStub(channel)
        self._timeout_s = timeout_s

    async def submit(self, job: JobRequest) -> JobView:
        """Hand a job over. Idempotent by uid: tasks already there are left as they are."""
        request = convert.job_request_to_wire(job)
        with _by_meaning():
            answer = await self._stub.SubmitJob(request, timeout=self._timeout_s, compression=compression_of(request))
        return convert.job_view_from_wire(answer)

    async def update(self, update: JobUpdate) -> JobView:
        """Change priority, suspension or endpoints, or cancel. Raises `NotFound`."""
        with _by_meaning():
            answer = await self._stub.UpdateJob(convert.job_update_to_wire(update), timeout=self._timeout_s)
        return convert.job_view_from_wire(answer)

    async def get(self, uid: str) -> JobView:
        """One job. Raises `NotFound`."""
        with _by_meaning():
            answer = await self._stub.GetJob(pb.GetJobRequest(uid=uid), timeout=self._timeout_s)
        return convert.job_view_from_wire(answer)

    async def list(self, namespace: str = "") -> JobList:
        """The jobs of a namespace, or all that the caller may see."""
        request, told = pb.ListJobsRequest(namespace=namespace), pb.ListJobsResponse()
        while True:
            with _by_meaning():
                page = await self._stub.ListJobs(request, timeout=self._timeout_s)
            told.MergeFrom(page)
            if not page.next_page_token:
                return convert.job_list_from_wire(told)
            request.page_token = page.next_page_token

    async def delete(self, uid: str) -> None:
        """Forget a job, cancelling what runs. Deleting what is gone is success."""
        try:
            with _by_meaning():
                await self._stub.DeleteJob(pb.DeleteJobRequest(uid=uid), timeout=self._timeout_s)
        except NotFound:
            return

    async def tasks(self, job_uid: str, state: str = "") -> tuple[TaskView, ...]:
        """The tasks of a job, all or those in `state`. Raises `NotFound`."""
        with _by_meaning():
            request = pb.ListTasksRequest(job_uid=job_uid, state=state)
            answer = await self._stub.ListTasks(request, timeout=self._timeout_s)
        return tuple(convert.task_view_from_wire(t) for t in answer.tasks)

    async def watch(self) -> AsyncIterator[JobView]:
        """The current view of every job, then each change. Ends only by an error; `Retryable` means: watch again."""
        with _by_meaning():
            call = self._stub.WatchJobs(pb.WatchJobsRequest())
            try:
                async for message in call:
                    yield convert.job_view_from_wire(message)
            finally:
                call.cancel()
        raise Retryable("the coordinator ended the watch")

    async def unary(self, rpc: str, request: Message, *, wait_s: float = 0.0) -> Any:
        """Any call by its name, message in and out; `wait_s` is what it may take on purpose."""
        with _by_meaning():
            return await getattr(self._stub, rpc)(
                request, timeout=self._timeout_s + wait_s, compression=compression_of(request)
            )

    async def call(self, rpc: str, **fields: Any) -> dict[str, Any]:
        """Any call by its name, JSON in and out (`jsonform`): for tools that show what they get."""
        kind = getattr(pb, pb.DESCRIPTOR.services_by_name["Coordinator"].methods_by_name[rpc].input_type.name)
        return to_json(await self.unary(rpc, from_json(kind, fields)))

    async def follow(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """One job and each of its changes as JSON, to its end."""
        with _by_meaning():
            call = self._stub.WatchJob(pb.WatchJobRequest(job_id=job_id))
            try:
                async for message in call:
                    yield to_json(message)
            finally:
                call.cancel()

    async def session(self, messages: AsyncIterator[pb.WorkerMessage]) -> AsyncIterator[pb.CoordinatorMessage]:
        """A worker's conversation; ends when the coordinator closes it. The worker's own session module converts."""
        with _by_meaning():
            call = self._stub.Session(messages)
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

    async def close(self) -> None:
        """Close the channel; running calls are cancelled."""
        await self._channel.close(grace=None)
