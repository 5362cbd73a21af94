"""`espalier-node`: make this machine a Kubernetes Node."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from espalier_kit import logs
from espalier_kit.commandline import fields, program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, Misconfigured
from espalier_kit.lifecycle import run_program
from espalier_node import agent
from espalier_node.settings import NodeEnvironment, NodeSettings, read_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM (pods keep running), 78 on wrong settings."""
    options = parser_of().parse_args(arguments)
    try:
        settings = read_settings()
        return _act(options, settings)
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED


def _act(options: argparse.Namespace, settings: NodeSettings) -> int:
    if options.check_settings:
        print(f"node {settings.name}: settings are valid")  # noqa: T201 - a command's answer
        return 0
    if options.kill_pods:
        print(f"killed {agent.kill_pods(settings)} containers")  # noqa: T201 - a command's answer
        return 0
    logs.configure()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per probe is too many

    async def program(stop: asyncio.Event) -> None:
        await agent.run(settings, stop)

    return run_program(program)


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = program_parser(
        "node", "Makes this machine a Kubernetes Node.", variables(NodeEnvironment, "node"),
        fields(NodeSettings, "fields of that file"),
    )
    parser.add_argument(
        "--kill-pods", action="store_true", help="kill every pod process of state_dir and exit; stop the agent first"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
