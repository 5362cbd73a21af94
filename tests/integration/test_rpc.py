"""The coordinator's client: gRPC's status codes as errors by meaning, over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from espalier_kit.errors import Conflict, EspalierError, Forbidden, NotFound, Permanent, Retryable
from espalier_rpc.server import abort
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import JobRequest, JobUpdate
from tests.support.coordinator import ScriptedCoordinator, Serving, serve

Code = grpc.StatusCode


class Failing(ScriptedCoordinator):
    """Every call ends with what the test put here."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: Code | EspalierError = Code.OK

    async def _fail(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if isinstance(self.fails, EspalierError):
            await abort(context, self.fails)
        if self.fails is not Code.OK:
            await context.abort(self.fails, "the sentence")

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.JobView:
        await self._fail(context)
        return pb.JobView(uid=request.uid, state="running")

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.JobView:
        await self._fail(context)
        return pb.JobView(uid=request.uid, state="running")

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Any) -> pb.JobView:
        await self._fail(context)
        return pb.JobView(uid=request.uid, state="suspended" if request.suspended else "running")

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        await self._fail(context)
        return pb.DeleteJobResponse()

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Any) -> AsyncIterator[pb.JobView]:
        yield pb.JobView(uid="a")
        await self._fail(context)


@pytest.fixture
async def failing() -> Failing:
    return Failing()


@pytest.fixture
async def serving(failing: Failing, tmp_path: Path) -> AsyncIterator[Serving]:
    serving = await serve(failing, tmp_path)
    yield serving
    await serving.server.stop(0)


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        (Code.NOT_FOUND, NotFound, "NotFound"),
        (Code.PERMISSION_DENIED, Forbidden, "Forbidden"),
        (Code.UNAUTHENTICATED, Forbidden, "Unauthenticated"),
        (Code.INVALID_ARGUMENT, Permanent, "InvalidArgument"),
        (Code.FAILED_PRECONDITION, Permanent, "FailedPrecondition"),
        (Code.ABORTED, Conflict, "Conflict"),
        (Code.UNAVAILABLE, Retryable, "Unavailable"),
        (Code.DEADLINE_EXCEEDED, Retryable, "Deadline"),
        (Code.RESOURCE_EXHAUSTED, Retryable, "Overloaded"),
        (Code.INTERNAL, Retryable, "Unavailable"),
        (Code.CANCELLED, Retryable, "Unavailable"),
        (Permanent("the sentence", reason="DependencyCycle"), Permanent, "DependencyCycle"),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else None,
)
async def test_errors_by_meaning(
    failing: Failing, serving: Serving, given: Code | EspalierError, kind: type[EspalierError], reason: str
) -> None:
    failing.fails = given
    client = serving.client()
    with pytest.raises(kind) as caught:
        await client.get("u")
    assert (type(caught.value), caught.value.reason) == (kind, reason)
    if given is not Code.CANCELLED:
        assert "the sentence" in str(caught.value)
    await client.close()


async def test_deleting_what_is_gone_is_success(failing: Failing, serving: Serving) -> None:
    failing.fails = Code.NOT_FOUND
    client = serving.client()
    await client.delete("u")
    await client.close()


async def test_submit_and_update(serving: Serving) -> None:
    client = serving.client()
    view = await client.submit(JobRequest(uid="u", namespace="n", name="x", kind="GradingJob", tasks=()))
    assert (view.uid, view.state, view.is_final) == ("u", "running", False)
    assert (await client.update(JobUpdate(uid="u", suspended=True))).state == "suspended"
    await client.close()


@pytest.mark.parametrize("code", [Code.OK, Code.UNAVAILABLE, Code.CANCELLED])
async def test_a_watch_that_ends_is_to_be_opened_again(failing: Failing, serving: Serving, code: Code) -> None:
    failing.fails = code
    client = serving.client()
    views = client.watch()
    assert (await anext(views)).uid == "a"
    with pytest.raises(Retryable):
        await anext(views)
    await client.close()


async def test_unreachable_coordinator_is_retryable(serving: Serving) -> None:
    await serving.server.stop(0)
    client = serving.client()
    with pytest.raises(Retryable):
        await client.list()
    await client.close()


async def test_unreadable_token_is_retryable(serving: Serving) -> None:
    def unreadable() -> str:
        raise FileNotFoundError("token")

    client = serving.client(unreadable)
    with pytest.raises(Retryable):
        await client.get("u")
    await client.close()
