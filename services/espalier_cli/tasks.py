"""`espalier tasks`: what a job consists of, what failed for good, and once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from espalier_cli.commands import command
from espalier_cli.coordinator import Format, Output, Target, coordinator_of, show, table_of, uid_of
from espalier_cli.terminal import out
from espalier_kit.errors import NotFound

app = typer.Typer(help="Tasks of a job: list, show, dead letters, retry.", no_args_is_help=True)

Job = Annotated[str, typer.Argument(help="The job, by name, by uid or as bj/NAME.")]


@command(app, "list")
async def list_tasks(
    target: Target, job: Job,
    state: Annotated[str, typer.Option("--state", help="Only those in this state, such as running or failed.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """A line per task, in the order of submission."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, job, target.namespace)
        told = await rest.get(f"/v1/jobs/{uid}/tasks", state=state)
    show(told, tasks_table(told["tasks"]), output, is_empty=not told["tasks"], nothing="no such tasks")


@command(app, "show")
async def show_task(
    target: Target, job: Job, key: Annotated[str, typer.Argument(help="The task's key.")],
    output: Output = Format.TABLE,
) -> None:
    """Everything about one task, its result too."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, job, target.namespace)
        tasks = (await rest.get(f"/v1/jobs/{uid}/tasks"))["tasks"]
    found = next((task for task in tasks if task["key"] == key), None)
    if found is None:
        raise NotFound(f"job {job} has no task {key!r}: see `espalier tasks list {job}`")
    show(found, table_of(("field", "value"), found.items()), output)


@command(app)
async def dead(
    target: Target,
    job: Annotated[str, typer.Argument(help="A job, as in `list`; default: every job of the namespace.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Dead letters: tasks that failed for good, oldest first, and why."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, job, target.namespace) if job else ""
        told = await rest.get("/v1/dead-letters", namespace=target.namespace, job_uid=uid)
    show(told, tasks_table(told["tasks"]), output, is_empty=not told["tasks"], nothing="no dead letters")


@command(app)
async def retry(
    target: Target, job: Job,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of failed tasks; default: every failed one.")] = None,
) -> None:
    """Failed tasks once more, with fresh retries, and with them what was skipped because of them."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, job, target.namespace)
        told = await rest.post(f"/v1/jobs/{uid}:retry", keys=list(keys or ()))
    out.print(f"{told['retried']} tasks run again")


def tasks_table(tasks: Iterable[Mapping[str, Any]]) -> Table:
    """Key, state, worker and what was said."""
    columns = ("key", "type", "state", "attempts", "worker", "seconds", "progress", "reason", "message")
    return table_of(columns, (
        (t["key"], t["type"], t["state"], t["attempts"], t["worker"], t["execution_s"] or "",
         f"{t['fraction']:.0%}" if t["state"] == "running" else "", t["reason"], t["message"]) for t in tasks
    ))
