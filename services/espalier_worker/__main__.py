"""`espalier-worker`: connect to the coordinator and run tasks until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Coroutine
from functools import partial
from importlib.metadata import version
from pathlib import Path

from espalier_kit import logs
from espalier_kit.clock import SystemClock
from espalier_kit.errors import EXIT_MISCONFIGURED, EXIT_STOPPED, Misconfigured, Retryable
from espalier_kit.lifecycle import run_program
from espalier_kit.settings import load
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.client import CoordinatorClient, channel
from espalier_worker import health, once
from espalier_worker.executors import Executors, InstalledExecutors
from espalier_worker.metrics import Metrics
from espalier_worker.settings import WorkerSettings, words
from espalier_worker.worker import Identity, Worker


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="espalier-worker", description="Runs tasks of a coordinator.")
    parser.add_argument("--version", action="version", version=version("espalier"))
    parser.add_argument("--check-settings", action="store_true", help="read the settings, say whether they are right")
    parser.add_argument("--once", action="store_true", help="run one task, report it and end")
    parser.add_argument("--types", metavar="TYPE,…", help="take only tasks of these types")
    arguments = parser.parse_args()
    logs.configure()
    logging.getLogger("httpx").setLevel("WARNING")  # a line for every artifact says nothing
    try:
        settings = load(WorkerSettings, "worker")
        given = {"types": arguments.types} if arguments.types is not None else {}
        settings = settings.model_copy(update=given | ({"once": True} if arguments.once else {}))
        executors = InstalledExecutors().only(words(settings.types))
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    if arguments.check_settings:
        print("settings are right")  # noqa: T201 - the answer asked for
        return 0
    return run_program(lambda stop: serve(settings, executors, stop))


async def serve(settings: WorkerSettings, executors: Executors, stop: asyncio.Event) -> int:
    """The whole program: returns its exit code once it is drained.

    A dedicated worker that is stopped before its coordinator dismissed it has not completed its index of the Job;
    what a one-shot worker's code means, `once` says.
    """
    metrics, clock = Metrics(), SystemClock()
    authority, name = read_authority(settings.ca_file), settings.coordinator_name
    token = partial(read_token, settings.token_file)
    if settings.once:
        await once.warm_up(executors)
    async with web_client(settings.coordinator_web, ca_pem=authority) as http:

        def connect() -> CoordinatorClient:
            return CoordinatorClient(channel(settings.coordinator, ca_pem=authority, server_name=name, token=token))

        def artifacts(namespace: str) -> HttpArtifacts:
            return HttpArtifacts(http, namespace=namespace, token=token, server_name=name)

        identity = Identity(
            worker_id=settings.id, job_uid=settings.job_uid, capacity=1 if settings.once else settings.capacity,
            prefetch=0 if settings.once else settings.prefetch, drain_s=settings.drain_s, pool=settings.pool,
            tags=words(settings.tags), resources=settings.resources, at_most=1 if settings.once else None,
        )
        worker = Worker(
            identity, connect=connect, executors=executors, artifacts=artifacts, clock=clock, metrics=metrics
        )
        lag = health.LoopLag(clock, metrics)
        web = health.app(worker.facts, lag, metrics)
        await _until_first(worker.run(stop), lag.run(), health.serve(web, host=settings.host, port=settings.port))
        if settings.once:
            return once.exit_code(worker.settled, is_dismissed=worker.is_dismissed)
        return EXIT_STOPPED if settings.job_uid and not worker.is_dismissed else 0


def read_authority(path: Path) -> str:
    """A certificate file."""
    try:
        return path.read_text()
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}", reason="Misconfigured") from error


def read_token(path: Path) -> str:
    """The bearer token; read anew for each call, since the kubelet replaces it."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Retryable(f"cannot read the token {path}: {error.strerror}", reason="NoToken") from error


async def _until_first(*parts: Coroutine[None, None, None]) -> None:
    """Run all until one ends, then stop the rest."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
