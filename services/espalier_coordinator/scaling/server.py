"""The aggregated API server: `external.metrics.k8s.io` over TLS, for the API server's aggregator alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from espalier_coordinator.entrance import tls_of
from espalier_coordinator.host import Host
from espalier_coordinator.scaling import documents, trust
from espalier_coordinator.scaling.pending import METRIC, Pending
from espalier_coordinator.scaling.trust import Trust
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError, Misconfigured
from espalier_kube import client
from espalier_kube.cluster import Cluster
from espalier_rpc.server import TlsFiles

log = logging.getLogger(__name__)

CHECK_S = 30.0
"""How soon a renewed certificate, or a new authority of the API server, counts."""
RETRY_S = 2.0
SHUTDOWN_S = 1.0


@contextlib.asynccontextmanager
async def metrics_api(settings: CoordinatorSettings, host: Host, pending: Pending, clock: Clock) -> AsyncIterator[None]:
    """Serve on SCALING_PORT while the context is open; without a port, do nothing.

    Raises `Misconfigured` outside a cluster or without TLS; what goes wrong later ends the program through the host.
    """
    if not settings.scaling_port:
        yield
        return
    tls = tls_of(settings)
    if tls is None:
        raise Misconfigured("ESPALIER_COORDINATOR_SCALING_PORT needs a certificate, which the API server verifies: set "
                            "ESPALIER_COORDINATOR_TLS_DIR", reason="Misconfigured")
    cluster = await client.connect()
    api = MetricsApi(pending, clock, host=settings.host, port=settings.scaling_port, files=tls)
    serving = asyncio.create_task(_keep(api, cluster, host, clock), name="metrics API")
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        await cluster.close()


async def _keep(api: MetricsApi, cluster: Cluster, host: Host, clock: Clock) -> None:
    """Until cancelled. Nobody is served before it is known who may be; a change of that opens the port anew."""
    try:
        while True:
            try:
                now = await trust.read(cluster)
                if now != api.trust:
                    await api.open(now)
                api.renew()
            except Misconfigured:
                raise
            except EspalierError as error:
                log.warning("cannot tell who may ask for metrics", extra={"error": str(error)})
            await clock.sleep(CHECK_S if api.trust else RETRY_S)
    except (Exception, SystemExit) as error:
        host.fail(error if isinstance(error, Exception) else RuntimeError(str(error)))
    finally:
        await api.close()


class MetricsApi:
    """`open` it with the trust of the moment, again when that changes, and `close` it."""

    def __init__(self, pending: Pending, clock: Clock, *, host: str, port: int, files: TlsFiles) -> None:
        self.trust: Trust | None = None
        self.port = port
        self._pending, self._clock, self._host, self._files = pending, clock, host, files
        self._runner: web.AppRunner | None = None
        self._tls: ssl.SSLContext | None = None
        self._served = b""

    async def open(self, trusted: Trust) -> None:
        """Listen, for callers that `trusted` names. Raises `Misconfigured` where the address cannot be had."""
        await self.close()
        self._tls = _context(trusted)
        self._served = b""
        self.renew()
        self._runner = web.AppRunner(self._application(trusted), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls).start()
        except OSError as error:
            raise Misconfigured(f"cannot listen on {self._host}:{self.port}: {error.strerror}", reason="AddressInUse"
                                ) from error
        self.port = int(self._runner.addresses[0][1])
        self.trust = trusted
        log.info("metrics API open", extra={"host": self._host, "port": self.port, "callers": sorted(trusted.names)})

    def renew(self) -> None:
        """A renewed pair counts from the next handshake on; while one is being written the pair before is good."""
        if self._tls is None:
            return
        try:
            found = self._files.certificate.read_bytes()
            if found != self._served:
                self._tls.load_cert_chain(self._files.certificate, self._files.key)
                self._served = found
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate unreadable", extra={"error": str(error)})

    async def close(self) -> None:
        """Cut every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = self.trust = None

    def _application(self, trusted: Trust) -> web.Application:
        app = web.Application(middlewares=[_guard(trusted)])
        fixed = {
            "/apis": documents.group_list, f"/apis/{documents.GROUP}": documents.group,
            f"/apis/{documents.GROUP_VERSION}": documents.resources,
            "/openapi/v2": documents.openapi_v2, "/openapi/v3": documents.openapi_v3,
        }
        for path, document in fixed.items():
            app.router.add_get(path, _constant(document()))
        app.router.add_get("/healthz", _healthz)
        app.router.add_get(
            f"/apis/{documents.GROUP_VERSION}/namespaces/{{namespace}}/{METRIC}", self._values
        )
        return app

    async def _values(self, request: web.Request) -> web.Response:
        selector = request.query.get("labelSelector", "")
        return web.json_response(documents.values(self._pending.now(), selector, self._clock.now()))


def _context(trusted: Trust) -> ssl.SSLContext:
    """A caller without a certificate is told why it is refused; one with another authority's gets no connection."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(cadata=trusted.ca_pem)
    return tls


def _guard(trusted: Trust) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        refused = trust.refusal(transport.get_extra_info("peercert") if transport else None, trusted)
        if refused:
            return web.json_response(documents.status(*refused), status=refused[0])
        try:
            return await handler(request)
        except web.HTTPException as error:
            said = f"nothing at {request.method} {request.path}: {METRIC} of a namespace is all there is"
            return web.json_response(documents.status(error.status, said), status=error.status)

    return guard


def _constant(document: dict[str, object]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    return answer


async def _healthz(request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")
