"""One streamed chat completion, timed where its bytes arrive. Every failure has a kind; none is raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from espalier_benchmark.items import Item
from espalier_benchmark.stream import Answer
from espalier_benchmark.transport import Cut, HttpTransport, Reply, Transport, Unreachable
from espalier_kit.execution import ModelEndpoint

_ERROR_BODY_BYTES = 2000


@dataclass(slots=True)
class Exchange:
    """What happened to one request so far; it is filled while the answer arrives, so that a cut one still tells."""

    answer: Answer = field(default_factory=Answer)
    headers_s: float | None = None
    last_s: float | None = None
    """When the bytes with the answer's end, or the last before it was cut, arrived."""
    error: str = ""
    detail: str = ""


class Sender(Protocol):
    """What a generator sends through: one server, or several that are one target."""

    @property
    def name(self) -> str:
        """The target's, in records."""
        ...

    async def ask(self, item: Item, exchange: Exchange) -> None:
        """Send and read to the end, filling `exchange`. Raises only CancelledError."""
        ...


@dataclass(frozen=True, slots=True)
class Style:
    """How every request of a run is asked. `takes_ignore_eos` False: the server refuses what is no part of OpenAI's."""

    temperature: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    """Bound of every answer, whatever its item asks."""
    takes_ignore_eos: bool = True


class Client:
    """Sends to one endpoint. `now` gives the run's seconds."""

    def __init__(
        self,
        endpoint: ModelEndpoint,
        now: Callable[[], float],
        *,
        style: Style = Style(),
        transport: Transport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._now = now
        self._style = style
        self._transport = transport or HttpTransport(endpoint)

    @property
    def name(self) -> str:
        return self.endpoint.name or self.endpoint.url

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def ask(self, item: Item, exchange: Exchange) -> None:
        """Send and read to the end. Raises only CancelledError."""
        body = request_body(item, self.endpoint.model, self._style)
        try:
            async with self._transport.post(json.dumps(body).encode()) as reply:
                exchange.headers_s = self._now()
                await self._read(reply, exchange)
        except Unreachable as error:
            exchange.error, exchange.detail = "connect", str(error)[:300]
        except Cut as error:
            if not exchange.answer.is_done:
                exchange.error, exchange.detail = "cut", str(error)[:300]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            exchange.error, exchange.detail = "protocol", f"{type(error).__name__}: {error}"[:300]

    async def _read(self, reply: Reply, exchange: Exchange) -> None:
        answer = exchange.answer
        if reply.status != 200:
            exchange.error, exchange.detail = f"http-{reply.status}", await _error_text(reply)
            return
        # Read past the end mark: only a connection whose answer is drained is kept for the next request.
        async for data in reply.data():
            if not answer.is_done:
                exchange.last_s = self._now()
                answer.feed(data, exchange.last_s)
        if answer.problem:
            exchange.error, exchange.detail = "server", answer.problem
        elif not answer.is_done and not answer.finish:
            exchange.error, exchange.detail = "cut", "the stream ended before the answer did"
        elif answer.first_s is None:
            exchange.error, exchange.detail = "empty", "an answer without a token"


def request_body(item: Item, model: str, style: Style, *, is_stream: bool = True) -> dict[str, Any]:
    """The chat completion request. `ignore_eos` and `seed` are sent only when set: not every server knows them."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in item.messages],
        "max_tokens": min(item.max_tokens, style.max_tokens or item.max_tokens),
        "temperature": style.temperature,
    }
    if is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if style.seed is not None:
        body["seed"] = style.seed
    return body | ({"ignore_eos": True} if item.ignore_eos and style.takes_ignore_eos else {})


async def _error_text(reply: Reply) -> str:
    body = b""
    async for data in reply.data():
        body = (body + data)[:_ERROR_BODY_BYTES]
    return body.decode("utf-8", errors="replace")[:300] or f"HTTP {reply.status}"
