"""`espalier jobs`: list, show, watch, cancel, suspend, resume: objects of a cluster, and jobs of a coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier_cli import listing, submitted, templates
from espalier_cli.commands import command
from espalier_cli.coordinator import Format, Output, Target
from espalier_cli.finding import job_at

app = typer.Typer(
    help="Jobs of every kind: list, show, watch, cancel, suspend, resume; submit, templates.", no_args_is_help=True,
)
app.add_typer(templates.app, name="template")

Name = Annotated[str, typer.Argument(help="The job: gj/NAME, bj/NAME, bmc/NAME, NAME alone, or a coordinator's uid.")]


@command(app, "list")
async def list_jobs(
    target: Target,
    kind: Annotated[str, typer.Argument(help="gj, bj, bmc, or job (of the coordinator alone); default: all.")] = "",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    status: Annotated[str, typer.Option("--status", help="Only those, such as running or failed.")] = "",
    tag: Annotated[list[str], typer.Option("--tag", help="Only jobs of a coordinator that have it; repeatable.")] = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    """A line per job."""
    await listing.list_jobs(target, listing.Wanted(kind, everywhere, status.lower(), tuple(tag)), output)


@command(app)
async def show(target: Target, name: Name, output: Output = Format.TABLE) -> None:
    """One job: its figures, and its conditions or the tasks worth telling."""
    async with job_at(target, name) as job:
        await job.show(output)


@command(app)
async def watch(target: Target, name: Name, output: Output = Format.TABLE) -> None:
    """Follow a job to its end. Exit code 0 if it completed, 1 if it failed or was cancelled."""
    async with job_at(target, name) as job:
        has_completed = await job.watch(output)
    if not has_completed:
        raise typer.Exit(1)


@command(app)
async def submit(
    target: Target,
    file: Annotated[Path, typer.Argument(help="YAML or JSON with the job's `tasks`.", exists=True)],
    output: Output = Format.TABLE,
) -> None:
    """Give a coordinator a job of any tasks, without an object of the cluster."""
    await submitted.submit_file(target, file, output)


@command(app)
async def cancel(
    target: Target, name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Shown with a job of a coordinator.")] = "",
) -> None:
    """Stop a job for good; what is done is kept."""
    async with job_at(target, name) as job:
        await job.cancel(reason)


@command(app)
async def suspend(target: Target, name: Name) -> None:
    """Pause a job: running tasks finish, no new one starts."""
    async with job_at(target, name) as job:
        await job.suspend(True)


@command(app)
async def resume(target: Target, name: Name) -> None:
    """Let a suspended job go on."""
    async with job_at(target, name) as job:
        await job.suspend(False)
