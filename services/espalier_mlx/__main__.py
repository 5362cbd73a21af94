"""espalier-mlx: serve models over the OpenAI API."""

from __future__ import annotations

import argparse
import sys

from espalier_kit.commandline import program_parser, variables
from espalier_kit.errors import EXIT_MISCONFIGURED, Misconfigured
from espalier_kit.lifecycle import run_program
from espalier_kit.logs import configure
from espalier_kit.settings import load
from espalier_mlx import process
from espalier_mlx.settings import MlxSettings


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    return program_parser("mlx", "Serves models over the OpenAI API.", variables(MlxSettings, "mlx"))


def main(arguments: list[str] | None = None) -> int:
    """Parse, settle the process, serve. Exit codes as in `espalier_kit.lifecycle`."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser_of().parse_args(given)
    try:
        settings = load(MlxSettings, "mlx")
    except Misconfigured as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one sentence a person must see
        return EXIT_MISCONFIGURED
    if options.check_settings:
        print("settings are valid")  # noqa: T201 - the answer
        return 0
    process.restart_with_openblas(given)
    process.settle_temporary_directory()
    configure()
    from espalier_mlx.program import serve  # imports MLX, which must see the environment settled above

    return run_program(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    sys.exit(main())
