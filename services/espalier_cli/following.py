"""Following a job on the terminal: a bar for people, a line of JSON per change for programs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from espalier_cli.coordinator import Format
from espalier_cli.terminal import notes, out

Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a job is: 0 to 1, and in a few words."""

    name: str
    fraction: float
    said: str


async def followed(changes: AsyncIterator[Change], output: Format, step: Callable[[Change], Step]) -> Change:
    """Show each change until there are no more; returns the last one."""
    return await (_json_lines(changes) if output is Format.JSON else _bar(changes, step))


async def _json_lines(changes: AsyncIterator[Change]) -> Change:
    last: Change = {}
    async for last in changes:
        out.print(json.dumps(last), markup=False)
    return last


async def _bar(changes: AsyncIterator[Change], step: Callable[[Change], Step]) -> Change:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    last: Change = {}
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task("", total=1.0, said="")
        async for last in changes:
            now = step(last)
            progress.update(bar, description=escape(now.name), completed=now.fraction, said=escape(now.said))
    return last
