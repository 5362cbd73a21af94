"""The artifact client: digests on both sides, trying again by meaning."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from espalier_kit.clock import ManualClock
from espalier_kit.digest import sha256
from espalier_kit.errors import EspalierError, Forbidden, Misconfigured, NotFound, Permanent, Retryable
from espalier_kit.retry import Backoff
from espalier_rpc.artifacts import CHUNK_BYTES, TRIES, HttpArtifacts, web_client

Handler = Callable[[httpx.Request], httpx.Response]


class InstantClock(ManualClock):
    """Sleeps are noted and over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Server:
    """The coordinator's artifact routes in memory; `failures` are answered first."""

    def __init__(self, *failures: int) -> None:
        self.stored: dict[str, bytes] = {}
        self.failures = list(failures)
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.requests.append(request)
        if self.failures:
            status = self.failures.pop(0)
            if status == 0:
                raise httpx.ConnectError("refused")
            reason = "DigestMismatch" if status == 422 else "Why"
            said = {"message": "the reason", "reason": reason}
            return httpx.Response(status, json=said, headers={"retry-after": "7"})
        *_, last = request.url.path.split("/")
        if request.method == "PUT":
            self.stored[sha256(body)] = body
            return httpx.Response(201, json={"sha256": sha256(body), "size": len(body)})
        if last not in self.stored:
            return httpx.Response(404, json={"detail": "no such artifact"})
        return httpx.Response(200, content=self.stored[last])


def client(server: Server, clock: InstantClock | None = None) -> HttpArtifacts:
    http = httpx.AsyncClient(transport=httpx.MockTransport(server), base_url="https://coordinator")
    return HttpArtifacts(
        http, namespace="course", token=lambda: "secret", server_name="name.svc", clock=clock or InstantClock(),
        backoff=Backoff(0.01, 0.01),
    )


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_put_and_get() -> None:
    server = Server()
    store = client(server)
    digest = await store.put(b"content")
    assert digest == sha256(b"content")
    assert await store.get(digest) == b"content"
    first = server.requests[0]
    assert first.url.path == f"/artifacts/course/{digest}"
    assert first.headers["authorization"] == "Bearer secret"
    assert first.extensions["sni_hostname"] == "name.svc"


async def test_put_a_stream() -> None:
    store = client(Server())
    assert await store.put(pieces(b"con", b"tent")) == sha256(b"content")


async def test_empty_and_large_content() -> None:
    store = client(Server())
    large = bytes(3 * CHUNK_BYTES + 7)
    for content in (b"", large):
        digest = await store.put(content)
        assert b"".join([chunk async for chunk in store.stream(digest)]) == content


async def test_exists() -> None:
    store = client(Server())
    assert not await store.exists("0" * 64)
    assert await store.exists(await store.put(b"x"))


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (401, Forbidden), (403, Forbidden), (413, Permanent), (400, Permanent)],
)
async def test_final_answers_are_not_tried_again(status: int, error: type[EspalierError]) -> None:
    server = Server(status)
    with pytest.raises(error, match="the reason") as caught:
        await client(server).put(b"x")
    assert (type(caught.value), caught.value.reason) == (error, "Why")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [0, 422, 429, 500, 503, 507])
async def test_passing_trouble_is_waited_out(status: int) -> None:
    server, clock = Server(status, status), InstantClock()
    assert await client(server, clock).put(b"x") == sha256(b"x")
    assert len(server.requests) == 3
    assert clock.slept == [7.0, 7.0] if status else max(clock.slept) <= 0.01


async def test_gives_up_after_all_tries() -> None:
    server = Server(*[503] * 99)
    with pytest.raises(Retryable):
        await client(server).get("0" * 64)
    assert len(server.requests) == TRIES


async def test_damaged_content_is_never_returned() -> None:
    server = Server()
    server.stored["0" * 64] = b"something else"
    store = client(server)
    with pytest.raises(Retryable, match="damaged"):
        await store.get("0" * 64)
    with pytest.raises(Retryable, match="damaged"):
        assert [chunk async for chunk in store.stream("0" * 64)] == []


def test_a_broken_authority_is_named() -> None:
    with pytest.raises(Misconfigured, match="authority"):
        web_client("https://x", ca_pem="-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
