"""`espalier jobs template`: tasks under a name, with parameters that a submission fills in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier_cli.commands import command
from espalier_cli.coordinator import Format, Output, Target, coordinator_of, show, table_of
from espalier_cli.submitted import jobs_table, read_object
from espalier_cli.terminal import out
from espalier_kit.errors import Permanent

app = typer.Typer(help="Job templates: put, list, show, delete, submit.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The template.")]
File = Annotated[Path, typer.Argument(help="YAML or JSON with `tasks`, `required` and `defaults`.", exists=True)]
_COLUMNS = ("namespace", "name", "revision", "tasks", "required", "defaults", "description")


@command(app)
async def put(target: Target, name: Name, file: File, output: Output = Format.TABLE) -> None:
    """Keep a template; another one under the name is its next revision."""
    async with coordinator_of(target) as rest:
        made = await rest.put(f"/v1/templates/{target.namespace}/{name}", **read_object(file))
    show(made, table_of(_COLUMNS, [_row(made)]), output)


@command(app, "list")
async def list_templates(target: Target, output: Output = Format.TABLE) -> None:
    """A line per template."""
    async with coordinator_of(target) as rest:
        told = await rest.get("/v1/templates", namespace=target.namespace)
    rows = [_row(t) for t in told["templates"]]
    show(told, table_of(_COLUMNS, rows), output, is_empty=not rows, nothing=f"no templates in {target.namespace}")


@command(app, "show")
async def show_template(target: Target, name: Name, output: Output = Format.TABLE) -> None:
    """A template's tasks."""
    async with coordinator_of(target) as rest:
        told = await rest.get(f"/v1/templates/{target.namespace}/{name}")
    tasks = ((t["key"], t["type"], t["payload"], [d["key"] for d in t["depends_on"]]) for t in told["tasks"])
    show(told, table_of(("task", "type", "payload", "after"), tasks), output)


@command(app)
async def delete(target: Target, name: Name) -> None:
    """Forget a template; jobs that came from it stay."""
    async with coordinator_of(target) as rest:
        await rest.delete(f"/v1/templates/{target.namespace}/{name}")
    out.print(f"template {name} deleted")


@command(app)
async def submit(
    target: Target, name: Name,
    parameter: Annotated[list[str], typer.Option("--parameter", "-p", help="NAME=VALUE; once for each.")] = [],  # noqa: B006
    job: Annotated[str, typer.Option("--job", help="Name of the job; default: one of its own.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """A job from a template."""
    async with coordinator_of(target) as rest:
        made = await rest.post(
            "/v1/jobs", namespace=target.namespace, name=job, template=name, parameters=parameters_of(parameter)
        )
    show(made, jobs_table([made]), output)


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
