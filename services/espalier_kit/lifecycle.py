"""How a program lives: run until stopped, drain, exit code by meaning."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured

log = logging.getLogger(__name__)


def run_program(main: Callable[[asyncio.Event], Awaitable[int | None]]) -> int:
    """Run `main(stop)`; SIGTERM and SIGINT set `stop`, after which `main` drains and returns.

    Returns what `main` returns (None is 0), 78 (EX_CONFIG) on `Misconfigured`, 1 on anything else; the error is one
    line.
    """
    try:
        return asyncio.run(_with_signals(main)) or 0
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    except EspalierError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return 1
    except Exception:
        log.exception("program failed")
        return 1


async def _with_signals(main: Callable[[asyncio.Event], Awaitable[int | None]]) -> int | None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await main(stop)


@contextmanager
def no_garbage(*, seldom: tuple[int, int, int] = (20_000, 10, 10)) -> Iterator[None]:
    """What is loaded meanwhile stays: the collector need neither look while it grows nor ever again, and seldom later.

    `seldom` are `gc.set_threshold`'s: programs that make thousands of short-lived objects a second, nearly all of which
    die by their count, would spend a fifth of their time on Python's own 700.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*seldom)
        gc.enable()
