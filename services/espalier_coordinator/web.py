"""HTTP: artifacts, the calls (`rest`), their documents, health and metrics."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from espalier_coordinator.access import Access, Identity, identify
from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.calls.book import Calls
from espalier_coordinator.health import Health, problems, unready
from espalier_coordinator.host import Host
from espalier_coordinator.metrics import Metrics
from espalier_coordinator.openapi import document, page
from espalier_coordinator.pools import require_artifacts
from espalier_coordinator.rest import add_routes, problem
from espalier_coordinator.serving import peer_names
from espalier_kit.errors import EspalierError

log = logging.getLogger(__name__)

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of the page of routes: it loads nothing and runs nothing."""


def app(
    host: Host, access: Access, files: ArtifactFiles, *, calls: Calls, health: Health, metrics: Metrics
) -> FastAPI:
    """All routes."""
    web = FastAPI(title="espalier-coordinator", docs_url=None, redoc_url=None, openapi_url=None)
    web.add_exception_handler(EspalierError, _answer_error)
    web.add_exception_handler(ClientDisconnect, _answer_disconnect)
    who = _identify(access)
    _add_artifacts(web, files, Depends(who), metrics, host)
    add_routes(web, host, calls, who)
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
        found = unready(health.facts())
        return Response("; ".join(found) or "ok", status_code=503 if found else 200, media_type="text/plain")

    @web.get("/metrics")
    async def scrape() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _identify(access: Access) -> Callable[[Request], Awaitable[Identity]]:
    async def who(request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return await identify(access, token if scheme.lower() == "bearer" else "", peer_names(request))

    return who


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EspalierError)
    return problem(error)


async def _answer_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the upload was dropped as a whole
