"""`espalier`: what a person types."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from espalier_cli import benchmark, jobs, local, tasks, workers
from espalier_cli.demo import demo
from espalier_cli.explain import explain
from espalier_cli.grade import grade
from espalier_cli.push import push
from espalier_cli.report import report
from espalier_cli.terminal import out

app = typer.Typer(
    help="Grade classes on Kubernetes, with Macs as nodes.", no_args_is_help=True, pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(local.app, name="local")
app.add_typer(jobs.app, name="jobs")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(tasks.app, name="tasks")
app.add_typer(workers.app, name="workers")
app.command()(push)
app.command()(grade)
app.command()(explain)
app.command()(report)
app.command()(demo)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        out.print(version("espalier"))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    app(prog_name="espalier")


if __name__ == "__main__":
    main()
