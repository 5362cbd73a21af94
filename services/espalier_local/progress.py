"""What a person sees of anything that takes longer than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Progress(Protocol):
    """Somebody who is told what is going on."""

    def step(self, text: str) -> AbstractContextManager[Advance]:
        """A stretch of work; leaving it without an exception means that it succeeded."""
        ...


class Silent:
    """Tells nobody: for libraries and tests."""

    @contextmanager
    def step(self, text: str) -> Iterator[Advance]:
        yield lambda done, total: None


class Terminal:
    """A bar while it runs, one line with the seconds when it is done. Without a terminal only the lines."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Advance]:
        text_column = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text_column, BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(text, total=None)
            if not self._console.is_terminal:
                self._console.print(f"… {text}", highlight=False)
            yield lambda done, total: bars.update(task, completed=done, total=total)
            elapsed = bars.tasks[0].elapsed or 0.0
        self._console.print(f"[green]✓[/] {text} [dim]{elapsed:.1f} s[/]", highlight=False)
