"""`espalier workers`: who is there, how busy, telling one to leave, holding capacity back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from espalier_cli.coordinator import (
    Address,
    Authority,
    Format,
    KeyFile,
    Output,
    Target,
    coordinator_of,
    show,
    table_of,
    uid_of,
)
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where
from espalier_cli.terminal import out, run
from espalier_kit.clock import SystemClock
from espalier_kit.errors import NotFound

app = typer.Typer(help="Workers of a coordinator: list, show, drain, stats, reservations.", no_args_is_help=True)

Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace that you may see.")]
Worker = Annotated[str, typer.Argument(help="The worker's id.")]


@app.command("list")
def list_workers(
    status: Annotated[str, typer.Option("--status", help="idle, busy, draining or unhealthy.")] = "",
    tag: Annotated[list[str], typer.Option("--tag", help="Only those that have it; once for each.")] = [],  # noqa: B006
    everywhere: Everywhere = False, namespace: Namespace = "default", kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE, coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
    output: Output = Format.TABLE,
) -> None:
    """A line per worker."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            told = await rest.get("/v1/workers", namespace="" if everywhere else namespace, status_filter=status,
                                  tag_filter=tag)
        show(told, workers_table(told["workers"]), output, is_empty=not told["workers"], nothing="no workers")

    run(work())


@app.command("show")
def show_worker(
    worker: Worker, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """Everything about one worker."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            workers = (await rest.get("/v1/workers"))["workers"]
        found = next((w for w in workers if w["worker_id"] == worker and w["namespace"] in ("", namespace)), None)
        if found is None:
            raise NotFound(f"no worker {worker!r} in namespace {namespace}: see `espalier workers list -A`")
        show(found, table_of(("field", "value"), found.items()), output)

    run(work())


@app.command()
def drain(
    worker: Worker,
    reason: Annotated[str, typer.Option("--reason", help="Told to the worker.")] = "",
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
) -> None:
    """Let a worker finish what it runs, hand back the rest and leave."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            await rest.post(f"/v1/workers/{worker}:drain", reason=reason, namespace=namespace)
        out.print(f"worker {worker} drains")

    run(work())


@app.command()
def stats(
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """Capacity, load and jobs by status, and whether all is well."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            told = {**await rest.get("/v1/stats"), "health": await rest.get("/v1/health")}
        rows = [(name, value) for name, value in told.items() if name not in ("health", "pending_by_pool")]
        rows += [(f"pending in pool {name}", n) for name, n in told["pending_by_pool"].items()]
        health = told["health"]
        show(told, table_of(("", ""), [("health", f"{health['overall_status']}: {health['message']}"), *rows]), output)

    run(work())


@app.command()
def reserve(
    name: Annotated[str, typer.Argument(help="The reservation; the same name again replaces it.")],
    slots: Annotated[int, typer.Option("--slots", help="Capacity to hold back.")],
    minutes: Annotated[float, typer.Option("--minutes", help="For so long from now.")],
    tag: Annotated[list[str], typer.Option("--tag", help="On workers that have all of these; once for each.")] = [],  # noqa: B006
    job: Annotated[str, typer.Option("--job", help="For this job; default: for tasks that require the tags.")] = "",
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
) -> None:
    """Hold capacity back for a job, or for tasks that require some tags, until a time."""

    async def work() -> None:
        until = SystemClock().now().timestamp() + 60 * minutes
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            uid = await uid_of(rest, job, namespace) if job else ""
            await rest.put(f"/v1/reservations/{namespace}/{name}", slots=slots, tags=tag, job_uid=uid, until=until)
        out.print(f"{slots} slots are held back as {name} for {minutes:g} minutes")

    run(work())


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="The reservation.")],
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
) -> None:
    """Give reserved capacity free before its time."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            await rest.delete(f"/v1/reservations/{namespace}/{name}")
        out.print(f"reservation {name} released")

    run(work())


@app.command()
def reservations(
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """Capacity that is held back, for whom and how long."""

    async def work() -> None:
        async with coordinator_of(Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)) as rest:
            told = await rest.get("/v1/reservations", namespace=namespace)
        now = SystemClock().now().timestamp()
        rows = [(r["name"], r["slots"], r["tags"], r["job_uid"], f"{(r['until'] - now) / 60:.0f} min")
                for r in told["reservations"]]
        show(told, table_of(("name", "slots", "tags", "job", "left"), rows), output, is_empty=not rows,
             nothing="nothing is held back")

    run(work())


def workers_table(workers: Iterable[Mapping[str, Any]]) -> Table:
    """Status and load."""
    columns = ("namespace", "worker", "status", "tasks", "load", "tags", "pool", "types", "heard")
    return table_of(columns, (
        (w["namespace"], w["worker_id"], w["status"], f"{w['current_tasks']}/{w['capacity']}", f"{w['load']:.0%}",
         w["tags"], w["pool"], w["types"], f"{w['last_heartbeat_age_s']:.0f} s ago") for w in workers
    ))
