"""`espalier workers`: who is there, how busy, telling one to leave, holding capacity back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from espalier_cli.commands import command
from espalier_cli.coordinator import Format, Output, Target, coordinator_of, show, table_of, uid_of
from espalier_cli.terminal import out
from espalier_kit.clock import SystemClock
from espalier_kit.errors import NotFound

app = typer.Typer(help="Workers of a coordinator: list, show, drain, stats, reservations.", no_args_is_help=True)

Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace that you may see.")]
Worker = Annotated[str, typer.Argument(help="The worker's id.")]


@command(app, "list")
async def list_workers(
    target: Target,
    status: Annotated[str, typer.Option("--status", help="idle, busy, draining or unhealthy.")] = "",
    tag: Annotated[list[str], typer.Option("--tag", help="Only those that have it; once for each.")] = [],  # noqa: B006
    everywhere: Everywhere = False, output: Output = Format.TABLE,
) -> None:
    """A line per worker."""
    async with coordinator_of(target) as rest:
        told = await rest.get("/v1/workers", namespace="" if everywhere else target.namespace,
                              status_filter=status, tag_filter=tag)
    show(told, workers_table(told["workers"]), output, is_empty=not told["workers"], nothing="no workers")


@command(app, "show")
async def show_worker(target: Target, worker: Worker, output: Output = Format.TABLE) -> None:
    """Everything about one worker."""
    async with coordinator_of(target) as rest:
        workers = (await rest.get("/v1/workers"))["workers"]
    here = ("", target.namespace)
    found = next((w for w in workers if w["worker_id"] == worker and w["namespace"] in here), None)
    if found is None:
        raise NotFound(f"no worker {worker!r} in namespace {target.namespace}: see `espalier workers list -A`")
    show(found, table_of(("field", "value"), found.items()), output)


@command(app)
async def drain(
    target: Target, worker: Worker,
    reason: Annotated[str, typer.Option("--reason", help="Told to the worker.")] = "",
) -> None:
    """Let a worker finish what it runs, hand back the rest and leave."""
    async with coordinator_of(target) as rest:
        await rest.post(f"/v1/workers/{worker}:drain", reason=reason, namespace=target.namespace)
    out.print(f"worker {worker} drains")


@command(app)
async def stats(target: Target, output: Output = Format.TABLE) -> None:
    """Capacity, load and jobs by status, and whether all is well."""
    async with coordinator_of(target) as rest:
        told = {**await rest.get("/v1/stats"), "health": await rest.get("/v1/health")}
    rows = [(name, value) for name, value in told.items() if name not in ("health", "pending_by_pool")]
    rows += [(f"pending in pool {name}", n) for name, n in told["pending_by_pool"].items()]
    health = told["health"]
    show(told, table_of(("", ""), [("health", f"{health['overall_status']}: {health['message']}"), *rows]), output)


@command(app)
async def reserve(
    target: Target, name: Annotated[str, typer.Argument(help="The reservation; the same name again replaces it.")],
    slots: Annotated[int, typer.Option("--slots", help="Capacity to hold back.")],
    minutes: Annotated[float, typer.Option("--minutes", help="For so long from now.")],
    tag: Annotated[list[str], typer.Option("--tag", help="On workers that have all of these; once for each.")] = [],  # noqa: B006
    job: Annotated[str, typer.Option("--job", help="For this job; default: for tasks that require the tags.")] = "",
) -> None:
    """Hold capacity back for a job, or for tasks that require some tags, until a time."""
    until = SystemClock().now().timestamp() + 60 * minutes
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, job, target.namespace) if job else ""
        await rest.put(f"/v1/reservations/{target.namespace}/{name}", slots=slots, tags=tag, job_uid=uid, until=until)
    out.print(f"{slots} slots are held back as {name} for {minutes:g} minutes")


@command(app)
async def release(target: Target, name: Annotated[str, typer.Argument(help="The reservation.")]) -> None:
    """Give reserved capacity free before its time."""
    async with coordinator_of(target) as rest:
        await rest.delete(f"/v1/reservations/{target.namespace}/{name}")
    out.print(f"reservation {name} released")


@command(app)
async def reservations(target: Target, output: Output = Format.TABLE) -> None:
    """Capacity that is held back, for whom and how long."""
    async with coordinator_of(target) as rest:
        told = await rest.get("/v1/reservations", namespace=target.namespace)
    now = SystemClock().now().timestamp()
    rows = [(r["name"], r["slots"], r["tags"], r["job_uid"], f"{(r['until'] - now) / 60:.0f} min")
            for r in told["reservations"]]
    show(told, table_of(("name", "slots", "tags", "job", "left"), rows), output, is_empty=not rows,
         nothing="nothing is held back")


def workers_table(workers: Iterable[Mapping[str, Any]]) -> Table:
    """Status and load."""
    columns = ("namespace", "worker", "status", "tasks", "load", "tags", "pool", "types", "heard")
    return table_of(columns, (
        (w["namespace"], w["worker_id"], w["status"], f"{w['current_tasks']}/{w['capacity']}", f"{w['load']:.0%}",
         w["tags"], w["pool"], w["types"], f"{w['last_heartbeat_age_s']:.0f} s ago") for w in workers
    ))
