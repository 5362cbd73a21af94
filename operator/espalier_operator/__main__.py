"""`espalier-operator`: settings, logging, then the program."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from importlib.metadata import version

from espalier_kit import logs
from espalier_kit.errors import EXIT_MISCONFIGURED, Misconfigured
from espalier_kit.lifecycle import run_program
from espalier_kit.settings import load
from espalier_operator.settings import OperatorSettings


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="espalier-operator", description="Reconciles GradingJobs and ModelServers.")
    parser.add_argument("--version", action="version", version=f"espalier-operator {version('espalier')}")
    parser.add_argument("--check-settings", action="store_true", help="read the settings, say what is wrong, and exit")
    arguments = parser.parse_args(argv)
    if arguments.check_settings:
        return _check()
    logs.configure()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    async def start(stop: asyncio.Event) -> None:
        settings = load(OperatorSettings, "operator")
        from espalier_operator.program import run  # settings are checked before half a second of imports

        await run(settings, stop)

    return run_program(start)


def _check() -> int:
    try:
        load(OperatorSettings, "operator")
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the sentence a person asked for
        return EXIT_MISCONFIGURED
    print("settings are good")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
