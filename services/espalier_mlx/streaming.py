"""Server-sent events, and noticing a client that has gone: while it waits in the queue as much as while it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
KEEPALIVE_S = 10.0
KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """The client hung up before it was answered."""


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Run `work`, but cancel it when the client disconnects. Raises `ClientGone` then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def with_keepalive(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same events, and a comment whenever none came for `KEEPALIVE_S`: no proxy shall give up on a long prompt."""
    following = asyncio.ensure_future(anext(source, None))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=KEEPALIVE_S)
            if not done:
                yield KEEPALIVE
                continue
            item = following.result()
            if item is None:
                return
            yield item
            following = asyncio.ensure_future(anext(source, None))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class EventStream(Response):
    """Sends events until they end or the client goes; `close` is called exactly once, whatever happens."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._events = events
        self._close = close

    def init_headers(self, headers: Any = None) -> None:
        """As Starlette's, without the length, which nobody knows yet."""
        super().init_headers(headers)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(self._send_all(send), receive)
        except ClientGone:
            return
        finally:
            self._close()

    async def _send_all(self, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for item in with_keepalive(self._events):
            await send({"type": "http.response.body", "body": item, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
