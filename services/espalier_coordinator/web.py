"""HTTP over TLS: artifacts, a read-only view of jobs, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from espalier_coordinator.access import Access, Identity
from espalier_coordinator.artifacts import ArtifactFiles, DiskFull, TooLarge
from espalier_coordinator.health import SLOW_COMMIT_S, Health, problems
from espalier_coordinator.host import Host
from espalier_coordinator.metrics import Metrics
from espalier_coordinator.pools import require_artifacts
from espalier_coordinator.views import JobPicture, TaskPicture, job_picture, task_pictures
from espalier_kit.errors import EspalierError, Forbidden, Misconfigured, NotFound, Permanent
from espalier_rpc.server import UNAUTHENTICATED

log = logging.getLogger(__name__)

RELOAD_S = 30.0
"""How soon a renewed certificate is served."""

_STATUS: tuple[tuple[type[EspalierError], int], ...] = (
    (TooLarge, 413), (DiskFull, 507), (NotFound, 404), (Forbidden, 403), (Permanent, 422), (EspalierError, 503),
)


def app(host: Host, access: Access, files: ArtifactFiles, *, health: Health, metrics: Metrics) -> FastAPI:
    """All routes."""
    web = FastAPI(title="espalier-coordinator", docs_url=None, redoc_url=None, openapi_url=None)
    web.add_exception_handler(EspalierError, _answer_error)
    web.add_exception_handler(ClientDisconnect, _answer_disconnect)
    caller = Depends(_identify(access))
    _add_artifacts(web, files, caller, metrics, host)
    _add_jobs(web, host, caller)
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


def _add_jobs(web: FastAPI, host: Host, caller: Any) -> None:
    @web.get("/jobs")
    async def jobs(namespace: str = "", identity: Identity = caller) -> Response:
        wanted = namespace or identity.reach
        if wanted:
            identity.require_namespace(wanted)
        entries = [e for e in host.engine.jobs.values() if wanted in (None, e.job.namespace)]
        return JSONResponse({"jobs": [_job(job_picture(host.engine, e)) for e in entries], "epoch": host.engine.epoch})

    @web.get("/jobs/{uid}")
    async def job(uid: str, identity: Identity = caller) -> Response:
        entry = host.engine.job(uid)
        identity.require_namespace(entry.job.namespace)
        return JSONResponse(_job(job_picture(host.engine, entry)))

    @web.get("/jobs/{uid}/tasks")
    async def tasks(uid: str, state: str = "", identity: Identity = caller) -> Response:
        entry = host.engine.job(uid)
        identity.require_namespace(entry.job.namespace)
        return JSONResponse({"tasks": [_task(t) for t in task_pictures(entry, state)]})


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
    status = 401 if error.reason == UNAUTHENTICATED else next(s for kind, s in _STATUS if isinstance(error, kind))
    return JSONResponse({"reason": error.reason, "message": str(error)}, status_code=status)


async def _answer_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the upload was dropped as a whole


def _job(picture: JobPicture) -> dict[str, Any]:
    return {
        **asdict(picture.job), "state": picture.state, "counts": dict(picture.counts),
        "tallies": dict(picture.tallies), "outcomes": [_task(t) for t in picture.outcomes],
        "workers": picture.workers, "epoch": picture.epoch, "lost_leases": picture.lost_leases,
    }


def _task(picture: TaskPicture) -> dict[str, Any]:
    return {**asdict(picture), "value": _value(picture.value)}


def _value(data: bytes) -> Any:
    """A task's value for people to read; what is no JSON is shown as text."""
    try:
        return json.loads(data) if data else None
    except ValueError:
        return data.decode(errors="replace")


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
