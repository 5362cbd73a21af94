"""HTTP: artifacts, the calls (`rest`), their documents, health and metrics; and how all that is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from espalier_coordinator.access import Access, Identity
from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.calls.book import Calls
from espalier_coordinator.health import SLOW_COMMIT_S, Health, problems
from espalier_coordinator.host import Host
from espalier_coordinator.metrics import Metrics
from espalier_coordinator.openapi import document, page
from espalier_coordinator.pools import require_artifacts
from espalier_coordinator.rest import add_routes, problem
from espalier_kit.errors import EspalierError, Forbidden, Misconfigured
from espalier_rpc.server import UNAUTHENTICATED

log = logging.getLogger(__name__)

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of the page of routes: it loads nothing and runs nothing."""

RELOAD_S = 30.0
"""How soon a renewed certificate is served."""

def app(
    host: Host, access: Access, files: ArtifactFiles, *, calls: Calls, health: Health, metrics: Metrics
) -> FastAPI:
    """All routes."""
    web = FastAPI(title="espalier-coordinator", docs_url=None, redoc_url=None, openapi_url=None)
    web.add_exception_handler(EspalierError, _answer_error)
    web.add_exception_handler(ClientDisconnect, _answer_disconnect)
    identify = _identify(access)
    _add_artifacts(web, files, Depends(identify), metrics, host)
    add_routes(web, host, calls, identify)
    _add_pages(web, calls)
    _add_health(web, health, metrics)
    return web


def standby_app() -> FastAPI:
    """Of a coordinator that waits for its turn: alive, and not ready, so that no Service routes to it."""
    web = FastAPI(title="espalier-coordinator", docs_url=None, redoc_url=None, openapi_url=None)

    @web.get("/healthz")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @web.get("/readyz")
    async def readyz() -> Response:
        return Response("standby: another coordinator is active", status_code=503, media_type="text/plain")

    return web


def _add_artifacts(web: FastAPI, files: ArtifactFiles, caller: Any, metrics: Metrics, host: Host) -> None:
    async def put(request: Request, namespace: str, identity: Identity, sha256: str | None) -> Response:
        require_artifacts(identity, namespace, host.engine.jobs.values())
        announced = request.headers.get("content-length", "")
        stored = await files.put(namespace, request.stream(), expected=sha256,
                                 announced=int(announced) if announced.isdigit() else None)
        metrics.artifact_bytes.observe(stored.size)
        return JSONResponse(asdict(stored), status_code=201)

    @web.put("/artifacts/{namespace}")
    async def put_any(request: Request, namespace: str, identity: Identity = caller) -> Response:
        return await put(request, namespace, identity, None)

    @web.put("/artifacts/{namespace}/{sha256}")
    async def put_named(request: Request, namespace: str, sha256: str, identity: Identity = caller) -> Response:
        return await put(request, namespace, identity, sha256)

    @web.api_route("/artifacts/{namespace}/{sha256}", methods=["GET", "HEAD"])
    async def get(request: Request, namespace: str, sha256: str, identity: Identity = caller) -> Response:
        require_artifacts(identity, namespace, host.engine.jobs.values())
        path = files.path(namespace, sha256)
        headers = {"content-length": str(path.stat().st_size), "etag": f'"{sha256}"'}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/octet-stream")
        return StreamingResponse(files.read(path), headers=headers, media_type="application/octet-stream")


def _add_pages(web: FastAPI, calls: Calls) -> None:
    @web.get("/openapi.json")
    async def openapi() -> Response:
        return JSONResponse(document())

    @web.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(page(), headers={"content-security-policy": PAGE_POLICY})

    @web.get("/health")
    async def health() -> Response:
        """For a person's curl: no token, and nothing but counts."""
        found = calls.fleet.standing()
        return JSONResponse({"status": found.status, "message": found.message, **asdict(found.fleet)},
                            status_code=503 if found.status == "unhealthy" else 200)


def _add_health(web: FastAPI, health: Health, metrics: Metrics) -> None:
    @web.get("/healthz")
    async def healthz() -> Response:
        found = problems(health.facts())
        return Response("; ".join(found) or "ok", status_code=503 if found else 200, media_type="text/plain")

    @web.get("/readyz")
    async def readyz() -> Response:
        facts = health.facts()
        found = [*problems(facts)]
        if facts.commit_age_s > SLOW_COMMIT_S:
            found.append(f"a write has waited {facts.commit_age_s:.0f} s for the disk")
        return Response("; ".join(found) or "ok", status_code=503 if found else 200, media_type="text/plain")

    @web.get("/metrics")
    async def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _identify(access: Access) -> Callable[[Request], Awaitable[Identity]]:
    async def identify(request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Forbidden("send 'Authorization: Bearer TOKEN' with every request", reason=UNAUTHENTICATED)
        return await access.identify(token)

    return identify


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EspalierError)
    return problem(error)


async def _answer_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the upload was dropped as a whole


# ---------------------------------------------------------------- serving


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is untyped here
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the program handles its own signals


@contextlib.asynccontextmanager
async def serving(web: FastAPI, *, host: str, port: int, tls: Path) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port. Raises `Misconfigured` where the address cannot be had."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}", reason="AddressInUse") from error
    config = uvicorn.Config(
        web, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1,
        ssl_certfile=str(tls / "tls.crt"), ssl_keyfile=str(tls / "tls.key"),
    )
    config.load()
    server = _Server(config)
    serve = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    reload = asyncio.create_task(_reload(config.ssl, tls), name="web certificate")
    try:
        yield int(listener.getsockname()[1])
    finally:
        reload.cancel()
        server.should_exit = True
        await asyncio.wait([serve, reload])


async def _reload(context: ssl.SSLContext, tls: Path) -> None:
    """A renewed pair counts from the next handshake on."""
    served = (tls / "tls.crt").read_bytes()
    while True:
        await asyncio.sleep(RELOAD_S)
        try:
            found = await asyncio.to_thread((tls / "tls.crt").read_bytes)
            if found != served:
                context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
                served = found
        except (OSError, ssl.SSLError) as error:  # a renewal in progress: the pair before is still good
            log.warning("certificate unreadable", extra={"error": str(error)})
