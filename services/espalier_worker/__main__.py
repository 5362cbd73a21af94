"""`espalier-worker`: connect to the coordinator and run tasks until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from functools import lru_cache, partial

from espalier_kit import logs
from espalier_kit.clock import SystemClock
from espalier_kit.commandline import program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, EXIT_STOPPED, Misconfigured
from espalier_kit.lifecycle import no_garbage, run_program
from espalier_kit.settings import load
from espalier_worker import canary, health, once
from espalier_worker.compatibility import meanings, translated
from espalier_worker.door import Door, check
from espalier_worker.executors import Executors, InstalledExecutors, named_points
from espalier_worker.metrics import Metrics
from espalier_worker.settings import WorkerSettings, words
from espalier_worker.worker import Identity, Worker

STORES = 64
"""Namespaces whose artifact stores a worker keeps at hand; a pool's worker may serve more."""


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    settings = variables(WorkerSettings, "worker")
    parser = program_parser("worker", "Runs tasks of a coordinator.", settings, meanings())
    parser.add_argument("--once", action="store_true", help="run one task, report it and end")
    parser.add_argument("--types", metavar="TYPE,…", help="take only tasks of these types")
    parser.add_argument("--executor", metavar="TYPE=MODULE:FUNCTION", action="append", default=[],
                        help="a further executor; its module is also looked for in the current folder")
    parser.add_argument("--canary", metavar="SECONDS", type=float, help="send one task through the coordinator and end")
    return parser


def main() -> int:
    """Returns the exit code."""
    arguments = parser_of().parse_args()
    logs.configure()
    try:
        settings = load(WorkerSettings, "worker", {**os.environ, **translated(os.environ)})
        given = {"types": arguments.types} if arguments.types is not None else {}
        settings = settings.model_copy(update=given | ({"once": True} if arguments.once else {}))
        executors = executors_of(settings, arguments.executor)
        check(settings)
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    logs.configure(level=settings.log_level)
    logging.getLogger("httpx").setLevel("WARNING")  # a line for every artifact says nothing
    if arguments.check_settings:
        print("settings are right")  # noqa: T201 - the answer asked for
        return 0
    if arguments.canary is not None:
        return run_program(lambda stop: canary.run(settings, arguments.canary, stop, SystemClock()))
    return run_program(lambda stop: serve(settings, executors, stop))


def executors_of(settings: WorkerSettings, more: Sequence[str] = ()) -> InstalledExecutors:
    """What is installed and what is named, or the types of it that the settings ask for. Raises `Misconfigured`."""
    points = named_points(",".join([settings.executors, *more]))
    if points and "" not in sys.path:
        sys.path.insert(0, "")
    return InstalledExecutors(more=points).only(words(settings.types))


async def serve(settings: WorkerSettings, executors: Executors, stop: asyncio.Event) -> int:
    """The whole program: returns its exit code once it is drained.

    A dedicated worker that is stopped before its coordinator dismissed it has not completed its index of the Job;
    what a one-shot worker's code means, `once` says.
    """
    metrics, clock = Metrics(), SystemClock()
    if settings.once:
        await once.warm_up(executors)
    with no_garbage():
        listener = health.listen(settings.host, settings.port)
        door = Door(settings, clock, health_address=health.address_of(listener))
    async with door.web() as http:
        identity = Identity(
            worker_id=settings.id, job_uid=settings.job_uid, capacity=1 if settings.once else settings.capacity,
            prefetch=prefetch_of(settings), drain_s=settings.drain_s, pool=settings.pool,
            namespace=settings.namespace if not settings.pool else "", heartbeat_s=settings.heartbeat_s,
            tags=words(settings.tags), resources=settings.resources, at_most=1 if settings.once else None,
        )
        # One store per namespace, not one per attempt: an attempt of a small task costs less than making it.
        stores = lru_cache(maxsize=STORES)(partial(door.artifacts, http))
        worker = Worker(
            identity, connect=door.connect, executors=executors, artifacts=stores, clock=clock, metrics=metrics,
        )
        lag = health.LoopLag(clock, metrics)
        web = health.app(worker.facts, lag, metrics)
        await _until_first(worker.run(stop), lag.run(), health.serve(web, listener))
        if settings.once:
            return once.exit_code(worker.settled, is_dismissed=worker.is_dismissed)
        return EXIT_STOPPED if settings.job_uid and not worker.is_dismissed else 0


def prefetch_of(settings: WorkerSettings) -> int:
    """Tasks fetched ahead: none for one that runs a single task, or that asks call by call for what it has room for."""
    return 0 if settings.once or settings.transport == "calls" else settings.prefetch


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
