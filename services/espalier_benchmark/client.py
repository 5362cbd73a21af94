"""One streamed chat completion over HTTP, timed where its bytes arrive. Every failure has a kind; none is raised."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from espalier_benchmark.items import Item
from espalier_benchmark.stream import Answer
from espalier_kit.execution import ModelEndpoint

CONNECT_SECONDS = 10.0
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


class Client:
    """Sends to one endpoint. `now` gives the run's seconds. Connections are kept and never limited: a queue for them
    would be the client's own and would look like the server's.
    """

    def __init__(
        self,
        endpoint: ModelEndpoint,
        now: Callable[[], float],
        *,
        temperature: float = 0.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._now = now
        self._temperature = temperature
        self._url = f"{endpoint.url.rstrip('/')}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        # The name that the certificate must carry, whatever address is dialled.
        self._extensions = {"sni_hostname": endpoint.server_name} if endpoint.server_name else {}
        self._http = httpx.AsyncClient(
            verify=_trust(endpoint),
            trust_env=False,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, item: Item, exchange: Exchange) -> None:
        """Send and read to the end. Raises only CancelledError."""
        try:
            await self._exchange(request_body(item, self.endpoint.model, temperature=self._temperature), exchange)
        except asyncio.CancelledError:
            raise
        except httpx.ConnectTimeout as error:
            exchange.error, exchange.detail = "connect", f"no connection within {CONNECT_SECONDS:g} s: {error}"
        except httpx.ConnectError as error:
            exchange.error, exchange.detail = "connect", str(error)[:300]
        except httpx.HTTPError as error:
            exchange.error, exchange.detail = "cut", f"{type(error).__name__}: {error}"[:300]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            exchange.error, exchange.detail = "protocol", f"{type(error).__name__}: {error}"[:300]

    async def _exchange(self, body: dict[str, Any], exchange: Exchange) -> None:
        answer = exchange.answer
        request = self._http.stream(
            "POST", self._url, json=body, headers=self._headers, extensions=dict(self._extensions)
        )
        async with request as response:
            exchange.headers_s = self._now()
            if response.status_code != 200:
                exchange.error, exchange.detail = f"http-{response.status_code}", await _error_text(response)
                return
            # Read past the end mark: only a connection whose answer is drained is kept for the next request.
            async for data in response.aiter_bytes():
                if not answer.is_done:
                    exchange.last_s = self._now()
                    answer.feed(data, exchange.last_s)
        if answer.problem:
            exchange.error, exchange.detail = "server", answer.problem
        elif not answer.is_done and not answer.finish:
            exchange.error, exchange.detail = "cut", "the stream ended before the answer did"
        elif answer.first_s is None:
            exchange.error, exchange.detail = "empty", "an answer without a token"


def request_body(item: Item, model: str, *, temperature: float) -> dict[str, Any]:
    """The chat completion request. `ignore_eos` is sent only when set: it is no part of OpenAI's interface."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in item.messages],
        "max_tokens": item.max_tokens,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body | ({"ignore_eos": True} if item.ignore_eos else {})


def _trust(endpoint: ModelEndpoint) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cadata=endpoint.ca_pem) if endpoint.url.startswith("https:") else False


async def _error_text(response: httpx.Response) -> str:
    body = (await response.aread())[:_ERROR_BODY_BYTES]
    return body.decode("utf-8", errors="replace")[:300] or response.reason_phrase
