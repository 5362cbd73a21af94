"""`espalier local`: a real Kubernetes on this machine."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from espalier_cli.terminal import sentences
from espalier_kit.errors import Misconfigured, NotFound
from espalier_local import cluster, release, shaping
from espalier_local.hosts import MAX_LINUX, PROFILES, container_profiles
from espalier_local.layout import Layout
from espalier_local.places import Places, checked_name, default_name, places_from
from espalier_local.progress import Terminal

app = typer.Typer(
    help="A real Kubernetes on this machine: up, down, status, cut, mend, shape, logs.", no_args_is_help=True
)
_console = Console()
_LOOK_S = 0.2

Name = Annotated[str, typer.Option("--name", help="Cluster name; the default comes from the checkout's path.")]


class Nodes(StrEnum):
    """What the nodes are made of."""

    process = "process"
    container = "container"


@app.command()
def up(
    name: Name = "",
    nodes: Annotated[
        Nodes,
        typer.Option(
            help="process: nodes are agents, pods native processes. container (Linux, root): linux-N is a real kubelet"
            " with containerd, every host has a network and a cable of its own."
        ),
    ] = Nodes.process,
    linux: Annotated[int, typer.Option(min=1, max=MAX_LINUX, help="How many Linux hosts; with --nodes container.")] = 1,
) -> None:
    """Start the cluster with our charts on it, or bring it up to date; container nodes run images of this checkout."""
    with sentences():
        places, chosen = _choose(name)
        if linux != 1 and nodes is Nodes.process:
            raise Misconfigured("--linux goes with --nodes container")
        began = time.monotonic()
        profiles = PROFILES if nodes is Nodes.process else container_profiles(linux)
        found = cluster.up(chosen, places, Terminal(), profiles=profiles, kind=nodes.value)
        release.install(found, places, Terminal())
        how = f"up after {time.monotonic() - began:.1f} s" if found.is_new else "already up"
        _console.print(f"cluster {chosen} is {how}: {found.server}")
        _console.print(f"export KUBECONFIG={found.kubeconfig}", soft_wrap=True, highlight=False)


@app.command()
def down(name: Name = "") -> None:
    """Stop the cluster and remove everything of it."""
    with sentences():
        places, chosen = _choose(name)
        was_there = cluster.down(chosen, places, Terminal())
        _console.print(f"cluster {chosen} is gone" if was_there else f"there is no cluster {chosen}; nothing to do")


@app.command()
def status(name: Name = "") -> None:
    """Show each process with its restarts, each node, and what is wrong. Exit code 1 if something is."""
    with sentences():
        places, chosen = _choose(name)
        found = cluster.status(chosen, places)
        if found.exists:
            _console.print(_table(found))
            _console.print(f"{found.server}  export KUBECONFIG={found.kubeconfig}", soft_wrap=True, highlight=False)
        if found.problem:
            _console.print(f"[red]{found.problem}[/]", soft_wrap=True)
            raise typer.Exit(1)


@app.command()
def cut(node: Annotated[str, typer.Argument(help="A node's name.")], name: Name = "") -> None:
    """Take a node off the network: its pods go on, the cluster hears nothing of it."""
    with sentences():
        places, chosen = _choose(name)
        cluster.cut(chosen, places, node)
        _console.print(f"{node} is cut off; espalier local mend {node} puts it back")


@app.command()
def mend(node: Annotated[str, typer.Argument(help="A node's name.")], name: Name = "") -> None:
    """Put a node back on the network."""
    with sentences():
        places, chosen = _choose(name)
        cluster.mend(chosen, places, node)
        _console.print(f"{node} is back on the network")


@app.command()
def shape(
    node: Annotated[str, typer.Argument(help="A node's name.")],
    rate: Annotated[str, typer.Option(help="What its cable carries each way, such as 1mbit or 500kbit.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Let it carry what it can.")] = False,
    name: Name = "",
) -> None:
    """Limit the bandwidth of a node's cable; with --nodes container."""
    with sentences():
        if bool(rate) == off:
            raise Misconfigured("say either --rate, such as --rate 1mbit, or --off")
        places, chosen = _choose(name)
        cluster.shape(chosen, places, node, None if off else shaping.parse_rate(rate))
        how = "what it can" if off else f"{rate} each way"
        _console.print(f"the cable of {node} carries {how}")


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="etcd, kube-apiserver, …, supervisor, or a node's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    name: Name = "",
) -> None:
    """Print a process's log."""
    with sentences():
        places, chosen = _choose(name)
        _print_log(Layout(places.clusters / chosen), component, follow=follow)


def _choose(name: str) -> tuple[Places, str]:
    places = places_from(os.environ)
    return places, checked_name(name or default_name(places.checkout))


def _table(found: cluster.Status) -> Table:
    table = Table("process", "state", "pid", "restarts", "last exit", box=None)
    for process in found.processes:
        state = str(process.phase)
        if process.name in found.node_names:
            state += ", Ready" if process.name in found.ready_nodes else ", not Ready"
        if process.name in found.rates:
            state += f", {shaping.show_rate(found.rates[process.name])}"
        table.add_row(process.name, state, str(process.pid or "-"), str(process.restarts), process.last_exit or "-")
    return table


def _print_log(layout: Layout, component: str, *, follow: bool) -> None:
    known = sorted(path.stem for path in layout.logs.glob("*.log"))
    if component not in known:
        raise NotFound(f"no log of {component!r}; there is: {', '.join(known) or 'nothing, the cluster is down'}")
    with layout.log(component).open(errors="replace") as log:
        while True:
            for line in log:
                typer.echo(line, nl=False)
            if not follow:
                return
            time.sleep(_LOOK_S)
