"""`espalier-sandbox`: beside a worker in its pod, run the commands of one task where they can harm nothing.

It has no metrics and no health page, since it has no network; the worker's pod is its health.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from espalier_kit import logs
from espalier_kit.commandline import program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured
from espalier_kit.settings import load
from espalier_sandbox import clearing, fitness, landlock, seccomp, server
from espalier_sandbox.settings import SandboxSettings

log = logging.getLogger("espalier_sandbox")
_PR_SET_DUMPABLE = 4
DEVICES = tuple(Path("/dev") / name for name in ("null", "zero", "full", "random", "urandom"))


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    return program_parser("sandbox", "Runs a worker's commands in its container.",
                          variables(SandboxSettings, "sandbox"))


def main() -> int:
    """Returns the exit code."""
    arguments = parser_of().parse_args()
    logs.configure()
    try:
        settings = load(SandboxSettings, "sandbox")
        if arguments.check_settings:
            print("settings are right")  # noqa: T201 - the answer asked for
            return 0
        serve(settings)
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    except EspalierError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return 1


def serve(settings: SandboxSettings) -> NoReturn:
    """Until the pod ends; when a worker hangs up, nothing of what ran is left, and another may come.

    Once commands run, signals are not heard any more, as the kernel keeps those that the first process of a container
    does not handle from it: they could be the commands' own. The worker, which goes first, is then the one to hear.
    """
    _on_signals(_leave)
    problems = fitness.problems(fitness.look(), runtime=settings.runtime)
    version = confine()
    log.info("sandbox ready", extra={"problems": list(problems), "runtime": settings.runtime, "landlock": version})
    while True:
        with server.listen(settings.socket) as door, server.let_in(door) as worker:
            _on_signals(signal.SIG_DFL)
            with contextlib.suppress(ConnectionError):
                server.serve(worker, problems=problems)
        _on_signals(_leave)


def confine() -> int:
    """This process and all that it will start: see `seccomp` and `landlock`, whose version is returned.

    Nothing of our uid may look into this process either.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    version = landlock.restrict(clearing.FOLDERS, DEVICES)
    seccomp.install(seccomp.program(seccomp.machine_now()))
    return version


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """At once: what runs here ends with the container, and nobody waits for it."""
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
