"""The artifact store of a coordinator, over HTTPS: one object per namespace, digests checked on both sides."""

from __future__ import annotations

import hashlib
import json
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import httpx

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.digest import sha256
from espalier_kit.errors import EspalierError, Forbidden, Misconfigured, NotFound, Permanent, Retryable
from espalier_kit.retry import Backoff

CHUNK_BYTES = 256 * 1024
TRIES = 6
BACKOFF = Backoff(first_s=0.3, longest_s=5.0)
"""Six tries last about eight seconds: longer than a coordinator's restart."""
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)

_FINAL: dict[int, type[Permanent]] = {401: Forbidden, 403: Forbidden, 404: NotFound}
_RETRYABLE = frozenset({408, 429})
_RETRYABLE_REASONS = frozenset({"DigestMismatch"})
"""Other content arrived than its digest says: it was damaged on the way."""

T = TypeVar("T")


def web_client(base_url: str, *, ca_pem: str | None, pair: tuple[Path, Path] | None = None) -> httpx.AsyncClient:
    """The client for a coordinator's web address; `ca_pem` None trusts the machine's roots, `pair` is a certificate of
    the client and its key."""
    try:
        context = ssl.create_default_context(cadata=ca_pem)
        if pair:
            context.load_cert_chain(*pair)
    except ssl.SSLError as error:
        raise Misconfigured(f"the coordinator's authority or the client's pair is no certificate: {error}",
                            reason="BadAuthority") from error
    return httpx.AsyncClient(base_url=base_url, verify=context, timeout=_TIMEOUT, trust_env=False)


class HttpArtifacts:
    """`ArtifactStore` of one namespace. Tries again while the coordinator is away, then raises `Retryable`."""

    def __init__(
        self, http: httpx.AsyncClient, *, namespace: str, token: Callable[[], str], server_name: str | None = None,
        clock: Clock | None = None, backoff: Backoff = BACKOFF,
    ) -> None:
        self._http = http
        self._path = f"/artifacts/{namespace}"
        self._token = token
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._clock = clock or SystemClock()
        self._backoff = backoff
        self._rng = random.Random()  # jitter only

    async def put(self, data: bytes | AsyncIterable[bytes]) -> str:
        """Store. Bytes are tried again; a stream can be read only once, so its caller tries again."""
        if isinstance(data, bytes):
            digest = sha256(data)
            return await self._persist(lambda: self._upload(f"{self._path}/{digest}", data, lambda: digest))
        hashed = _Hashed(data)
        return await self._upload(self._path, hashed, hashed.hexdigest)

    async def get(self, sha256: str) -> bytes:
        """All bytes, verified."""

        async def attempt() -> bytes:
            return b"".join([chunk async for chunk in self._download(sha256)])

        return await self._persist(attempt)

    async def stream(self, sha256: str) -> AsyncIterator[bytes]:
        """Chunks; tries again only until the first, and yields the last once the digest was verified."""

        async def first() -> tuple[AsyncGenerator[bytes, None], bytes | None]:
            chunks = self._download(sha256)
            return chunks, await anext(chunks, None)

        rest, head = await self._persist(first)
        async with aclosing(rest):
            if head is not None:
                yield head
            async for chunk in rest:
                yield chunk

    async def exists(self, sha256: str) -> bool:
        """Whether the store has it."""

        async def attempt() -> bool:
            async with self._answer("HEAD", f"{self._path}/{sha256}"):
                return True

        try:
            return await self._persist(attempt)
        except NotFound:
            return False

    async def _upload(self, path: str, content: bytes | AsyncIterable[bytes], expected: Callable[[], str]) -> str:
        async with self._answer("PUT", path, content=content) as response:
            stored = str(_json(await response.aread()).get("sha256", ""))
        if stored != expected():
            raise Retryable(f"the store has {stored or 'nothing'} for {expected()}", reason="DigestMismatch")
        return stored

    async def _download(self, digest: str) -> AsyncGenerator[bytes, None]:
        state, held = hashlib.sha256(), b""
        async with self._answer("GET", f"{self._path}/{digest}") as response:
            async for chunk in response.aiter_bytes(CHUNK_BYTES):
                state.update(chunk)
                if held:
                    yield held
                held = chunk
        if state.hexdigest() != digest:
            raise Retryable(f"artifact {digest} arrived damaged", reason="DigestMismatch")
        if held:
            yield held

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, *, content: bytes | AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[httpx.Response]:
        token = self._token()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._http.stream(
                method, path, content=content, headers=headers, extensions=self._extensions
            ) as response:
                if response.is_error:
                    raise _error(response, await response.aread(), path)
                yield response
        except httpx.HTTPError as error:
            raise Retryable(f"artifact store: {type(error).__name__} {error}".rstrip()) from error

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for number in count(1):
            try:
                return await attempt()
            except Retryable as error:
                if number == TRIES:
                    raise
                await self._clock.sleep(error.after_s or self._backoff.delay_s(number, self._rng))
        raise AssertionError("unreachable: count() never ends")


class _Hashed:
    """A stream that hashes what passes."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._state = hashlib.sha256()

    def hexdigest(self) -> str:
        return self._state.hexdigest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._source:
            self._state.update(chunk)
            yield chunk


def _error(response: httpx.Response, body: bytes, path: str) -> EspalierError:
    told = _json(body)
    message = f"{path}: {told.get('message') or told.get('detail') or f'HTTP {response.status_code}'}"
    reason = str(told.get("reason") or f"Http{response.status_code}")
    if response.status_code in _RETRYABLE or response.status_code >= 500 or reason in _RETRYABLE_REASONS:
        return Retryable(message, reason=reason, after_s=_retry_after(response))
    return _FINAL.get(response.status_code, Permanent)(message, reason=reason)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def _json(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
