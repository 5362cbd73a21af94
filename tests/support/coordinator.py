"""A scripted coordinator behind real gRPC with TLS: what a worker says is recorded, what it hears the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from espalier_kit.certificates import issue, make_authority
from espalier_rpc.client import CoordinatorClient, channel
from espalier_rpc.server import Server, TlsFiles, bearer_token
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorServicer, add_CoordinatorServicer_to_server

NAME = "coordinator.test"


@dataclass
class Talk:
    """One session: everything the worker said, and a pipe to it."""

    token: str
    said: list[pb.WorkerMessage] = field(default_factory=list)
    outbox: asyncio.Queue[pb.CoordinatorMessage | None] = field(default_factory=asyncio.Queue)
    hears_room: bool = True
    is_over: bool = False
    ends_with: grpc.StatusCode = grpc.StatusCode.OK

    def tell(self, **kind: Any) -> None:
        self.outbox.put_nowait(pb.CoordinatorMessage(**kind))

    def hang_up(self) -> None:
        self.outbox.put_nowait(None)

    def fail(self, code: grpc.StatusCode) -> None:
        self.ends_with = code
        self.hang_up()

    def hello(self) -> pb.Hello:
        return self.said[0].hello

    def results(self) -> list[pb.TaskResult]:
        return [r for m in self.said if m.HasField("results") for r in m.results.results]

    def wanted(self) -> int:
        return sum(m.want.n + (m.results.want if self.hears_room else 0) for m in self.said)

    def handed_back(self) -> list[str]:
        return [lease.task_id for m in self.said if m.HasField("hand_back") for lease in m.hand_back.leases]

    def progress(self) -> list[pb.Progress]:
        return [p for m in self.said if m.HasField("heartbeat") for p in m.heartbeat.progress]


class ScriptedCoordinator(CoordinatorServicer):
    """Welcomes every worker; `talks` are its sessions, oldest first. One that does not hear of room with results plays
    an older version.
    """

    def __init__(self, *, heartbeat_s: float = 0.05, does_welcome: bool = True, hears_room: bool = True) -> None:
        self.talks: list[Talk] = []
        self._heartbeat_s = heartbeat_s
        self._does_welcome = does_welcome
        self._hears_room = hears_room
        self._changed = asyncio.Condition()

    async def Session(
        self, request_iterator: AsyncIterator[pb.WorkerMessage], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        talk = Talk(bearer_token(context), hears_room=self._hears_room)
        self.talks.append(talk)
        if self._does_welcome:
            talk.tell(welcome=pb.Welcome(
                epoch="1", heartbeat_s=self._heartbeat_s, hears_room=self._hears_room,
            ))
        listening = asyncio.create_task(self._listen(talk, request_iterator))
        try:
            while (message := await talk.outbox.get()) is not None:
                yield message
            if talk.ends_with is not grpc.StatusCode.OK:
                await context.abort(talk.ends_with, "as the test wished")
        finally:
            listening.cancel()
            talk.is_over = True
            await self._tell()

    async def _listen(self, talk: Talk, requests: AsyncIterator[pb.WorkerMessage]) -> None:
        async for message in requests:
            talk.said.append(message)
            await self._tell()
        talk.hang_up()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, predicate: Callable[[], bool], what: str, *, timeout_s: float = 10.0) -> None:
        """Wait until something a worker said makes `predicate` true."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(predicate)
        except TimeoutError:
            raise AssertionError(f"never: {what}; said: {[t.said for t in self.talks]}") from None


@dataclass
class Serving:
    """A running server and how to reach it."""

    server: Server
    ca_pem: str
    port: int
    folder: Path

    def client(self, token: Callable[[], str] = lambda: "secret") -> CoordinatorClient:
        address = f"127.0.0.1:{self.port}"
        return CoordinatorClient(channel(address, ca_pem=self.ca_pem, server_name=NAME, token=token))


async def serve(servicer: CoordinatorServicer, folder: Path, *, port: int = 0) -> Serving:
    """Serve on loopback with a certificate of our own; `folder` keeps it for a restart on the same port."""
    if not (folder / "tls.crt").exists():
        now = datetime.now(UTC)
        authority = make_authority("test", now)
        pair = issue(authority, NAME, now, hosts=[NAME], is_server=True)
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
        (folder / "ca.crt").write_bytes(authority.certificate)
    server = Server(f"127.0.0.1:{port}", TlsFiles.in_folder(folder), ("espalier.v1.Coordinator",))
    add_CoordinatorServicer_to_server(servicer, server.grpc)
    await server.start()
    return Serving(server, (folder / "ca.crt").read_text(), server.port, folder)


def assignment(key: str, type_: str = "test.echo", *, attempt: int = 1, timeout_s: float = 30.0) -> pb.Assignment:
    """A task to grant; its id is its key."""
    return pb.Assignment(
        lease=pb.Lease(task_id=key, attempt=attempt),
        job_uid="job-1",
        job_name="class",
        namespace="course",
        key=key,
        type=type_,
        payload=b'{"n":1}',
        timeout_s=timeout_s,
    )
