"""`espalier-coordinator`: wire the parts together and run them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import secrets
import sys
from contextlib import closing
from pathlib import Path

from espalier_coordinator import local
from espalier_coordinator.access import Access
from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.callers import add_key
from espalier_coordinator.calls.book import calls_of
from espalier_coordinator.compatibility import meanings, translated
from espalier_coordinator.engine import Engine, Limits
from espalier_coordinator.entrance import access_of, tls_of
from espalier_coordinator.health import Health
from espalier_coordinator.host import Host
from espalier_coordinator.metrics import Metrics
from espalier_coordinator.probing import health_port
from espalier_coordinator.scaling.keda import SERVICE as KEDA
from espalier_coordinator.scaling.keda import KedaScaler
from espalier_coordinator.scaling.pending import Pending
from espalier_coordinator.scaling.server import metrics_api
from espalier_coordinator.servicer import Coordinator
from espalier_coordinator.serving import serving
from espalier_coordinator.settings import CoordinatorSettings
from espalier_coordinator.store import TaskStore
from espalier_coordinator.store.seat import Seat
from espalier_coordinator.store.sqlite import SqliteStore
from espalier_coordinator.sweep import Sweep
from espalier_coordinator.turn import on_postgres
from espalier_coordinator.web import app
from espalier_kit import logs
from espalier_kit.clock import Clock, SystemClock
from espalier_kit.commandline import program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, Conflict, EspalierError, Misconfigured
from espalier_kit.lifecycle import no_garbage, run_program
from espalier_kit.settings import load
from espalier_rpc.server import Server, TlsFiles
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.v1 import coordinator_pb2_grpc as rpc
from espalier_rpc.v1 import externalscaler_pb2_grpc as keda_rpc

log = logging.getLogger("espalier_coordinator")

TLS_WAIT_S = 60.0
"""The operator writes the certificate's Secret soon after the chart is installed; no pod should wait longer."""

STREAM_GRACE_S = 0.5
"""Running calls at the end; what they wait for goes on with the next process."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser_of().parse_args(arguments)
    logs.configure()
    clock = SystemClock()
    try:
        if options.new_key:
            print(add_key(options.callers, name=options.new_key, role=options.role,  # noqa: T201 - shown only here
                          namespaces=options.namespace or ()))
            return 0
        environ = dict(os.environ) | translated(os.environ)
        if options.local:
            environ = local.prepare(options.local, clock, does_tls=not options.plain) | environ
        settings = load(CoordinatorSettings, "coordinator", environ)
        tls_of(settings)
    except (Misconfigured, Conflict) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    if options.check_settings:
        return 0
    logs.configure(level=settings.log_level)
    return run_program(lambda stop: run(settings, stop, clock))


async def run(settings: CoordinatorSettings, stop: asyncio.Event, clock: Clock) -> None:
    """Serve until `stop`, then write what is queued and leave."""
    if tls := tls_of(settings):
        await wait_for_tls(tls, stop, clock)
    async with access_of(settings, clock) as access:
        if not settings.database.get_secret_value():
            with closing(SqliteStore(_database(settings.data))) as file:
                await serve(settings, stop, clock, store=file, access=access)
            return
        async with on_postgres(settings, stop, clock) as turn:
            if turn is not None:
                await serve(settings, stop, clock, store=turn[0], seat=turn[1], access=access)


async def serve(
    settings: CoordinatorSettings, stop: asyncio.Event, clock: Clock, *, store: TaskStore, access: Access,
    seat: Seat | None = None,
) -> None:
    """Over this store, letting in whom `access` knows, until `stop`."""
    tls = tls_of(settings)
    files = ArtifactFiles(settings.data / "artifacts", share=settings.artifact_share)
    await asyncio.to_thread(files.open)
    epoch = f"{store.begin_epoch()}-{secrets.token_hex(4)}"
    limits = Limits(
        settings.lease_s, settings.heartbeat_s, fairness=settings.fairness,
        max_completed_jobs=settings.max_completed_jobs, completed_ttl_s=settings.completed_ttl_s,
        cache_entries=settings.cache_entries, reserved_share=settings.reserved_share,
    )
    engine = Engine(clock, random.Random(), epoch=epoch, limits=limits)
    host = Host(engine, store, clock)
    if seat:
        seat.keep(host.fail_soon)
    with no_garbage(seldom=(20_000, 20, 50)):
        host.do(engine.load(store.load()))
    server = Server(_address(settings.host, settings.grpc_port), tls, [_service_name(), KEDA])
    pending = Pending(host, frozenset(settings.pools.values()))
    keda_rpc.add_ExternalScalerServicer_to_server(KedaScaler(pending), server.grpc)
    health = Health(host, clock)
    calls = calls_of(host, health, clock, pools=frozenset(settings.pools.values()), retries=settings.retries,
                     heartbeat_s=settings.heartbeat_s, timeout_s=settings.health_timeout_s,
                     longest_reservation_s=settings.reservation_max_s)
    rpc.add_CoordinatorServicer_to_server(Coordinator(host, access, calls), server.grpc)
    metrics = Metrics(host, files)
    metrics.registry.register(pending)
    web = app(host, access, files, calls=calls, health=health, metrics=metrics)
    sweep = Sweep(host, files, clock, unused_s=settings.artifact_unused_s)
    beside = [asyncio.create_task(health.run(), name="health"), asyncio.create_task(sweep.run(), name="sweep")]
    try:
        async with (
            serving(web, host=settings.host, port=settings.http_port, tls=tls) as http_port,
            metrics_api(settings, host, pending, clock),
            health_port(settings, server, health),
        ):
            await server.start()
            log.info("serving", extra={"host": settings.host, "grpc_port": server.port, "http_port": http_port,
                                       "epoch": epoch, "jobs": len(engine.jobs)})
            await host.run(stop)
            await server.stop(STREAM_GRACE_S)
    finally:
        for task in beside:
            task.cancel()
    if isinstance(host.failure, EspalierError):
        raise host.failure
    if host.failed.is_set():
        raise RuntimeError("the store or the engine broke; start again from what is on disk")


async def wait_for_tls(tls: TlsFiles, stop: asyncio.Event, clock: Clock) -> None:
    """Wait for the certificate; raises `Misconfigured` when none comes."""
    end = clock.monotonic() + TLS_WAIT_S
    while not (tls.certificate.is_file() and tls.key.is_file()):
        if stop.is_set() or clock.monotonic() > end:
            raise Misconfigured(f"no {tls.certificate} and {tls.key}: the operator writes them into the Secret "
                                "espalier-coordinator-tls; is it running?", reason="Misconfigured")
        await clock.sleep(0.5)


def _database(data: Path) -> Path:
    try:
        data.mkdir(parents=True, exist_ok=True)
        return data / "coordinator.db"
    except OSError as error:
        raise Misconfigured(f"ESPALIER_COORDINATOR_DATA: {error}", reason="Misconfigured") from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _service_name() -> str:
    return pb.DESCRIPTOR.services_by_name["Coordinator"].full_name


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    settings = variables(CoordinatorSettings, "coordinator")
    parser = program_parser("coordinator", "Durable tasks for espalier's workers.", settings, meanings())
    parser.add_argument("--local", type=Path, metavar="FOLDER",
                        help="run without a cluster: certificates, API keys and data in FOLDER, made where missing")
    parser.add_argument("--plain", action="store_true", help="with --local: without TLS, for this machine alone")
    keys = parser.add_argument_group("API keys")
    keys.add_argument("--new-key", metavar="NAME", help="add a caller to the file of --callers and print its key")
    keys.add_argument("--callers", type=Path, metavar="FILE", default=Path("callers.yaml"),
                      help="where callers are written down; default: callers.yaml")
    keys.add_argument("--role", choices=("admin", "submitter", "worker"), default="worker",
                      help="a worker runs tasks, a submitter submits and steers jobs, an admin may everything; "
                           "default: worker")
    keys.add_argument("--namespace", action="append", metavar="NAME",
                      help="where the caller may act; may be repeated; '*' is every one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
