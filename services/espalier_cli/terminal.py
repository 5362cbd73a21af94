"""The terminal: standard output for answers, standard error for progress and errors; every error is one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work under `sentences`."""
    with sentences():
        return asyncio.run(work)


@contextmanager
def sentences() -> Iterator[None]:
    """Errors become a sentence and an exit code: 78 for settings, 130 for Ctrl-C, else 1."""
    try:
        yield
    except EspalierError as error:
        notes.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else 1) from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        notes.print(f"[red]error:[/] {escape(what)}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
