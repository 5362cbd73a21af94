"""The kubelet API on port 10250: what `kubectl logs` and monitors ask of a node."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import generate_latest

from espalier_kit.certificates import KeyPair
from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError, Forbidden, NotFound, Permanent
from espalier_node import logs, stats
from espalier_node.access import Access, Caller, caller_of
from espalier_node.context import Context
from espalier_node.logs import Wish
from espalier_node.pods import Pods
from espalier_node.streaming.routes import Streams, find
from espalier_node.worker import PodWorker

log = logging.getLogger(__name__)

CERTIFICATE_CHECK_S = 3600.0
SHUTDOWN_S = 1.0
_LATER = "/run/", "/configz"


async def serve(
    context: Context, pods: Pods, *, client_ca: bytes, certificate: Callable[[], Awaitable[KeyPair]],
    check: Callable[[], str | None],
) -> None:
    """Until cancelled. Starts as soon as there is a certificate, and takes up a renewed one."""
    pair = await certificate()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(cadata=client_ca.decode())
    _load(tls, pair)
    settings = context.settings
    runner = web.AppRunner(build(context, pods, check=check), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, str(settings.address), settings.port, ssl_context=tls).start()
        log.info("kubelet API listens", extra={"address": str(settings.address), "port": settings.port})
        while True:
            await context.clock.sleep(CERTIFICATE_CHECK_S)
            renewed = await certificate()
            if renewed != pair:
                _load(tls, renewed)
                pair = renewed
    finally:
        await runner.cleanup()


def build(context: Context, pods: Pods, *, check: Callable[[], str | None]) -> web.Application:
    """The routes behind authentication and authorisation."""
    access = Access(context.cluster, context.clock, context.settings.name)
    app = web.Application(middlewares=[_errors, _guard(access)])
    routes = _Routes(context, pods, check)
    app.router.add_get("/healthz", routes.healthz)
    app.router.add_get("/pods", routes.pods)
    app.router.add_get("/runningpods/", routes.pods)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/metrics/resource", routes.resource_metrics)
    app.router.add_get("/stats/summary", routes.summary)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", routes.container_logs)
    streams = Streams(context, pods)
    app.router.add_route("*", "/exec/{namespace}/{pod}/{container}", streams.execute)
    app.router.add_route("*", "/attach/{namespace}/{pod}/{container}", streams.attach)
    app.router.add_route("*", "/portForward/{namespace}/{pod}", streams.forward)
    for prefix in _LATER:
        app.router.add_route("*", f"{prefix}{{rest:.*}}", _not_here)
    return app


class _Routes:
    def __init__(self, context: Context, pods: Pods, check: Callable[[], str | None]) -> None:
        self._context, self._pods, self._check = context, pods, check

    async def healthz(self, _request: web.Request) -> web.Response:
        problem = self._check()
        return web.Response(text="ok" if problem is None else problem, status=200 if problem is None else 500)

    async def pods(self, _request: web.Request) -> web.Response:
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods.known()})

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._context.metrics.registry), content_type="text/plain")

    async def resource_metrics(self, _request: web.Request) -> web.Response:
        text = stats.resource_metrics(self._context.machine.usage(None), self._pods.usages())
        return web.Response(text=text, content_type="text/plain")

    async def summary(self, _request: web.Request) -> web.Response:
        whole, now = self._context.machine.usage(None), self._context.clock.now()
        return web.json_response(stats.summary(self._context.settings.name, whole, self._pods.usages(), now))

    async def container_logs(self, request: web.Request) -> web.StreamResponse:
        worker, name = find(self._pods, request), request.match_info["container"]
        wish = wish_of(request.query, self._context.clock)
        path = self._log_path(worker, name, previous=_is_true(request.query.get("previous")))
        is_followed = _is_true(request.query.get("follow")) and not _is_true(request.query.get("previous"))
        if is_followed:
            attempt = self._context.runtime.runs(worker.pod.uid, name)[0].attempt
            chunks = logs.limit_async(
                logs.follow(path, wish, lambda: self._is_running(worker, name, attempt)), wish.limit_bytes
            )
        else:
            chunks = _as_async(path, wish)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response

    def _log_path(self, worker: PodWorker, name: str, *, previous: bool) -> Path:
        path = self._context.runtime.log_path(worker.pod.uid, name, previous=previous)
        if path is None:
            what = "has no earlier run" if previous else "is waiting to start: it has no log yet"
            raise Permanent(f"container {name} in pod {worker.pod.name} {what}")
        return path

    def _is_running(self, worker: PodWorker, name: str, attempt: int) -> bool:
        runs = self._context.runtime.runs(worker.pod.uid, name)
        return bool(runs) and runs[0].attempt == attempt and runs[0].is_running


def wish_of(query: Mapping[str, str], clock: Clock) -> Wish:
    """A log request's query; raises `Permanent` on a figure that is none."""
    try:
        seconds, moment = query.get("sinceSeconds"), query.get("sinceTime")
        since = datetime.fromisoformat(moment) if moment else None
        if seconds:
            since = clock.now() - timedelta(seconds=int(seconds))
        tail, limit = query.get("tailLines"), query.get("limitBytes")
        return Wish(
            tail=int(tail) if tail else None, since=since, with_timestamps=_is_true(query.get("timestamps")),
            limit_bytes=int(limit) if limit else None,
        )
    except ValueError as error:
        raise Permanent(f"log options: {error}") from error


async def _as_async(path: Path, wish: Wish) -> AsyncIterator[bytes]:
    """In chunks of some size, letting others run between them."""
    buffer = bytearray()
    for piece in logs.show(path, wish):
        buffer += piece
        if len(buffer) >= 65536:
            yield bytes(buffer)
            buffer.clear()
            await asyncio.sleep(0)
    yield bytes(buffer)


async def _not_here(request: web.Request) -> web.Response:
    served = "logs, exec, attach, port-forward, pods, stats and metrics"
    sentence = f"{request.path} is not available on this node: it serves {served}\n"
    return web.Response(status=501, text=sentence)


def _guard(access: Access) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        caller = await _authenticate(request, access)
        if caller is None:
            return web.Response(status=401, text="a client certificate of the cluster or a bearer token is needed\n")
        await access.require(caller, request.method, request.path)
        return await handler(request)

    return guard


async def _authenticate(request: web.Request, access: Access) -> Caller | None:
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if certificate:
        return caller_of(certificate)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return await access.by_token(token) if scheme.lower() == "bearer" and token else None


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our errors by meaning → a status and the sentence."""
    try:
        return await handler(request)
    except Forbidden as error:
        return web.Response(status=403, text=f"{error}\n")
    except NotFound as error:
        return web.Response(status=404, text=f"{error}\n")
    except Permanent as error:
        return web.Response(status=400, text=f"{error}\n")
    except EspalierError as error:
        return web.Response(status=503, text=f"{error}\n")


def _is_true(word: str | None) -> bool:
    return (word or "").lower() in ("true", "1")


def _load(tls: ssl.SSLContext, pair: KeyPair) -> None:
    """ssl takes certificates from files only; this one lives for the moment of reading."""
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pair.certificate + pair.key)
        tls.load_cert_chain(name)
    finally:
        os.unlink(name)
