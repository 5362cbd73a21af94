"""A worker's stream: its messages into the engine, the engine's back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from grpc import aio

from espalier_coordinator.access import Access, Identity, identify
from espalier_coordinator.calls.workers import introduced
from espalier_coordinator.host import Host, Outbox
from espalier_coordinator.messages import Close
from espalier_coordinator.staying import Who, refusal
from espalier_coordinator.wire import leases_from_wire, progress_from_wire, report_from_wire, to_wire
from espalier_kit.errors import EspalierError, Permanent, Retryable
from espalier_rpc.server import abort, bearer_token, certificate_names
from espalier_rpc.v1 import coordinator_pb2 as pb

log = logging.getLogger(__name__)


async def serve_session(
    host: Host, access: Access, requests: AsyncIterator[pb.WorkerMessage], context: aio.ServicerContext[Any, Any]
) -> AsyncIterator[pb.CoordinatorMessage]:
    """One session from its first message to its end."""
    who = partial(identify, access, bearer_token(context), certificate_names(context))
    try:
        identity = await who()
    except EspalierError as error:
        await abort(context, error)
    outbox = host.open_session()
    reader = asyncio.create_task(_read(host, identity, requests, outbox))
    asking = asyncio.create_task(_ask_again(who, identity, outbox))
    try:
        while messages := await outbox.take():
            for message in to_wire(messages):
                yield message
            if closes := [m for m in messages if isinstance(m, Close)]:
                raise Retryable(closes[0].reason, reason="SessionClosed")
    except EspalierError as error:
        await abort(context, error)
    finally:
        reader.cancel()
        asking.cancel()
        host.close_session(outbox)


async def _ask_again(who: Who, identity: Identity, outbox: Outbox) -> None:
    outbox.close(await refusal(who, identity))


async def _read(host: Host, identity: Identity, requests: AsyncIterator[pb.WorkerMessage], outbox: Outbox) -> None:
    try:
        async for message in requests:
            if not _take(host, identity, outbox, message):
                return
    except (aio.AbortError, aio.AioRpcError, EOFError) as error:
        log.info("stream ended", extra={"session": outbox.number, "error": str(error)})
    finally:
        outbox.close()


def _take(host: Host, identity: Identity, outbox: Outbox, message: pb.WorkerMessage) -> bool:
    """Whether to go on: a message that should not have been sent ends its session; a bug of ours, the program."""
    try:
        _handle(host, identity, outbox.number, message)
    except EspalierError as error:
        outbox.close(error)
    except Exception as error:
        host.fail(error)
    else:
        return True
    return False


def _handle(host: Host, identity: Identity, session: int, message: pb.WorkerMessage) -> None:
    engine = host.engine
    match message.WhichOneof("kind"):
        case "hello":
            effects = engine.hello(session, introduced(identity, message.hello))
        case "want":
            effects = engine.want(session, message.want.n)
        case "results":
            reports = [report_from_wire(r) for r in message.results.results]
            effects = engine.results(session, reports, message.results.want)
        case "heartbeat":
            effects = engine.heartbeat(session, progress_from_wire(message.heartbeat.progress))
        case "hand_back":
            effects = engine.hand_back(session, leases_from_wire(message.hand_back.leases))
        case _:
            raise Permanent("empty message: send hello, want, results, heartbeat or hand_back", reason="EmptyMessage")
    host.do(effects)
