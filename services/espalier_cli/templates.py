"""`espalier jobs template`: tasks under a name, with parameters that a submission fills in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier_cli.coordinator import Address, Authority, Format, KeyFile, Output, Target, coordinator_of, show, table_of
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where
from espalier_cli.submitted import jobs_table, read_object
from espalier_cli.terminal import out, run
from espalier_kit.errors import Permanent

app = typer.Typer(help="Job templates: put, list, show, delete, submit.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The template.")]
File = Annotated[Path, typer.Argument(help="YAML or JSON with `tasks`, `required` and `defaults`.", exists=True)]
_COLUMNS = ("namespace", "name", "revision", "tasks", "required", "defaults", "description")


@app.command()
def put(
    name: Name, file: File, namespace: Namespace = "default", kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE, coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
    output: Output = Format.TABLE,
) -> None:
    """Keep a template; another one under the name is its next revision."""

    async def work() -> None:
        target = Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)
        async with coordinator_of(target) as rest:
            made = await rest.put(f"/v1/templates/{namespace}/{name}", **read_object(file))
        show(made, table_of(_COLUMNS, [_row(made)]), output)

    run(work())


@app.command("list")
def list_templates(
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """A line per template."""

    async def work() -> None:
        target = Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)
        async with coordinator_of(target) as rest:
            told = await rest.get("/v1/templates", namespace=namespace)
        rows = [_row(t) for t in told["templates"]]
        show(told, table_of(_COLUMNS, rows), output, is_empty=not rows, nothing=f"no templates in {namespace}")

    run(work())


@app.command("show")
def show_template(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """A template's tasks."""

    async def work() -> None:
        target = Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)
        async with coordinator_of(target) as rest:
            told = await rest.get(f"/v1/templates/{namespace}/{name}")
        tasks = ((t["key"], t["type"], t["payload"], [d["key"] for d in t["depends_on"]]) for t in told["tasks"])
        show(told, table_of(("task", "type", "payload", "after"), tasks), output)

    run(work())


@app.command()
def delete(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
) -> None:
    """Forget a template; jobs that came from it stay."""

    async def work() -> None:
        target = Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)
        async with coordinator_of(target) as rest:
            await rest.delete(f"/v1/templates/{namespace}/{name}")
        out.print(f"template {name} deleted")

    run(work())


@app.command()
def submit(
    name: Name,
    parameter: Annotated[list[str], typer.Option("--parameter", "-p", help="NAME=VALUE; once for each.")] = [],  # noqa: B006
    job: Annotated[str, typer.Option("--job", help="Name of the job; default: one of its own.")] = "",
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None, output: Output = Format.TABLE,
) -> None:
    """A job from a template."""

    async def work() -> None:
        target = Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)
        async with coordinator_of(target) as rest:
            made = await rest.post(
                "/v1/jobs", namespace=namespace, name=job, template=name, parameters=parameters_of(parameter)
            )
        show(made, jobs_table([made]), output)

    run(work())


def parameters_of(given: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs. Raises `Permanent`."""
    if wrong := [pair for pair in given if "=" not in pair]:
        raise Permanent(f"--parameter {wrong[0]!r}: expected NAME=VALUE")
    return dict(pair.split("=", 1) for pair in given)


def _row(template: dict[str, object]) -> tuple[object, ...]:
    tasks, defaults = template["tasks"], template["defaults"]
    assert isinstance(tasks, list)
    assert isinstance(defaults, dict)
    return (
        template["namespace"], template["name"], template["revision"], len(tasks), template["required"],
        [f"{name}={value}" for name, value in sorted(defaults.items())], template["description"],
    )
