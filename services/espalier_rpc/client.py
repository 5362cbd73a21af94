"""The coordinator's client: a channel with TLS and a rotating bearer token, calls with deadlines, errors by meaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio

from espalier_kit.errors import Conflict, EspalierError, Forbidden, NotFound, Permanent, Retryable
from espalier_rpc import convert
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorStub
from espalier_rpc.views import JobList, JobRequest, JobUpdate, JobView, TaskView

CALL_TIMEOUT_S = 20.0
KEEPALIVE_S = 20
"""A peer that answers no ping for ten seconds after this long without a byte is away. Servers must permit it."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
REASON_KEY = "espalier-reason"
"""Trailing metadata in which the server names its reason."""

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),  # it is back in seconds; the default is two minutes
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # nothing but settings decides where we go
    ("grpc.use_local_subchannel_pool", 1),
)

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


def channel(
    address: str, *, ca_pem: str | None, server_name: str | None, token: Callable[[], str]
) -> grpc.aio.Channel:
    """A TLS channel to `address` (host:port).

    `ca_pem` None trusts the machine's roots; `server_name` is the name that the certificate must carry, whatever the
    address. `token` is asked anew for each call, since tokens rotate; it runs on a thread of gRPC's.
    """
    tls = grpc.ssl_channel_credentials(root_certificates=None if ca_pem is None else ca_pem.encode())
    credentials = grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(_Bearer(token)))
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", server_name)] if server_name else list(_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=options)


class _Bearer(grpc.AuthMetadataPlugin):
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            metadata = (("authorization", f"Bearer {self._token()}"),)
        except Exception as error:
            callback((), error)  # the call ends as UNAVAILABLE: an unreadable token file is worth another try
        else:
            callback(metadata, None)


def translate(error: grpc.aio.AioRpcError) -> EspalierError:
    """The error by meaning; its message is the server's sentence."""
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


class CoordinatorClient:
    """All calls raise the errors of `espalier_kit.errors`; none retries by itself, `Retryable` says that one may."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._channel = channel
        self._stub = CoordinatorStub(channel)
        self._timeout_s = timeout_s

    async def submit(self, job: JobRequest) -> JobView:
        """Hand a job over. Idempotent by uid: tasks already there are left as they are."""
        with _by_meaning():
            answer = await self._stub.SubmitJob(convert.job_request_to_wire(job), timeout=self._timeout_s)
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
        with _by_meaning():
            answer = await self._stub.ListJobs(pb.ListJobsRequest(namespace=namespace), timeout=self._timeout_s)
        return convert.job_list_from_wire(answer)

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
