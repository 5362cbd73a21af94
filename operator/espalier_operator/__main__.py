"""`espalier-operator`: settings, logging, then the program."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from espalier_kit import logs
from espalier_kit.commandline import program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, Misconfigured
from espalier_kit.lifecycle import run_program
from espalier_kit.settings import load
from espalier_operator.settings import OperatorSettings


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    return program_parser("operator", "Makes what objects of our kinds wish for true.",
                          variables(OperatorSettings, "operator"))


def main(argv: list[str] | None = None) -> int:
    """Parse, check, run; returns the exit code."""
    arguments = parser_of().parse_args(argv)
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
