"""`espalier workers`: who is there, how busy, and telling one to leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from espalier_cli.coordinator import Address, Authority, Format, KeyFile, Output, Target, coordinator_of, show, table_of
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where
from espalier_cli.terminal import out, run
from espalier_kit.errors import NotFound

app = typer.Typer(help="Workers of a coordinator: list, show, drain, stats.", no_args_is_help=True)

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


def workers_table(workers: Iterable[Mapping[str, Any]]) -> Table:
    """Status and load."""
    columns = ("namespace", "worker", "status", "tasks", "load", "tags", "pool", "types", "heard")
    return table_of(columns, (
        (w["namespace"], w["worker_id"], w["status"], f"{w['current_tasks']}/{w['capacity']}", f"{w['load']:.0%}",
         w["tags"], w["pool"], w["types"], f"{w['last_heartbeat_age_s']:.0f} s ago") for w in workers
    ))
