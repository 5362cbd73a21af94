"""The door to HTTP: posts one body, gives the answer's bytes as they arrive. aiohttp, since its parser is compiled: at
500 streams a second httpx filled a core and measured itself.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

from espalier_kit.execution import ModelEndpoint

CONNECT_SECONDS = 10.0
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


class Unreachable(Exception):
    """No connection came about: refused, no such name, a certificate that is not trusted."""


class Cut(Exception):
    """The connection ended before the answer did."""


class Reply(Protocol):
    """An answer whose headers have arrived."""

    @property
    def status(self) -> int:
        """HTTP's code."""
        ...

    def data(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it arrives. Raises `Cut`."""
        ...


class Transport(Protocol):
    """What a client sends through."""

    def post(self, body: bytes) -> AbstractAsyncContextManager[Reply]:
        """Post to the path that it was made for. Raises `Unreachable` or `Cut`."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpTransport:
    """Real HTTP/1.1. Connections are kept and never limited: a queue for them would be the client's own and would look
    like the server's.
    """

    def __init__(self, endpoint: ModelEndpoint, *, path: str = CHAT) -> None:
        self._url = f"{endpoint.url.rstrip('/')}{path}"
        # A compressed stream would be timed where its blocks end, not its tokens.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if endpoint.api_key:
            self._headers["Authorization"] = f"Bearer {endpoint.api_key}"
        is_secure = endpoint.url.startswith("https:")
        self._trust = ssl.create_default_context(cadata=endpoint.ca_pem) if is_secure else True
        # The name that the certificate must carry, whatever address is dialled.
        self._server_name = endpoint.server_name if is_secure else None
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(self, body: bytes) -> AsyncIterator[Reply]:
        try:
            async with self._opened().post(
                self._url,
                data=body,
                headers=self._headers,
                ssl=self._trust,
                server_hostname=self._server_name,
                allow_redirects=False,
            ) as response:
                yield _HttpReply(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Cut(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """Made on first use: a session belongs to a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            )
        return self._session


class _HttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    def data(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_any()
