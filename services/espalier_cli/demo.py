"""`espalier demo`: a real class, graded on a local cluster on this machine, and every figure of it checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier_cli.connection import artifacts_of, cluster_of, job_of
from espalier_cli.grade import job_object, read_template
from espalier_cli.local import Nodes
from espalier_cli.objects import conditions, follow_job, status_line
from espalier_cli.options import Where
from espalier_cli.report import Row, fetch, grades_table, index_of, parse, rows_of, speed_table
from espalier_cli.terminal import notes, out, run
from espalier_grading import course
from espalier_kit.artifacts import SCHEME
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import GRADING_JOB, RUNTIME_CLASS, Cluster, Object
from espalier_local import cluster as local
from espalier_local import release
from espalier_local.hosts import PROFILES, container_profiles
from espalier_local.layout import Layout
from espalier_local.places import Places, checked_name, default_name, places_from
from espalier_local.progress import Terminal

JOB = "ps1"
NAMESPACE = "default"
SANDBOXES = {
    "bubblewrap": "in a sandbox on the worker's own machine (bubblewrap)",
    "gvisor": "each in a fresh pod under gVisor",
    "container": "each in a fresh pod under runc, as no node has RuntimeClass gvisor",
}
"""Where submissions run, as `execution.sandbox` and in words."""
_GONE_SECONDS = 120.0
_GRADED_SECONDS = 900.0
"""Of a job that takes about a minute on two idle cores."""
_LOOK_SECONDS = 0.2


def demo(
    name: Annotated[str, typer.Option("--name", help="Cluster name; the default comes from the checkout's path.")] = "",
    nodes: Annotated[
        Nodes, typer.Option(help="What nodes are made of: native processes, or (Linux, root) containers of our images.")
    ] = Nodes.process,
) -> None:
    """Start a local cluster, grade nbgrader's example course on it, show and check the result. The cluster stays up."""
    places = places_from(os.environ)
    run(_demo(places, checked_name(name or default_name(places.checkout)), nodes))


def problems(rows: Sequence[Row], report: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """What differs from the results that are known; empty if all is as it must be. Pure."""
    found = {row.name: row for row in rows}
    wrong = [f"{name} is missing" for name in course.TESTS if name not in found]
    for name, earned in course.TESTS.items():
        if name in found and found[name].tests != f"{earned:.1f}/3":
            wrong.append(f"{name} has tests {found[name].tests}, nbgrader gives {earned:.1f}/3")
        if name in found and found[name].state not in ("graded", "needsReview"):
            wrong.append(f"{name} is {found[name].state}: {found[name].reason}")
    if course.BLANK in found and found[course.BLANK].points != 0:
        wrong.append(f"the blank submission has {found[course.BLANK].points} points, not 0")
    for entry in report.get("submissions") or ():
        wrong += [
            f"{entry['pseudonym']}: the {judge} judge's answer was no valid JSON" for judge in entry["plain_text"]
        ]
    performance = status.get("performance") or {}
    models = performance.get("models") or {}
    for judge in ("code", "feedback"):
        if not (models.get(judge) or {}).get("outputTokens"):
            wrong.append(f"the {judge} judge made no tokens")
    if not performance.get("parallelSpeedup") or not performance.get("parallelEfficiency"):
        wrong.append("the judges' overlap was not measured")
    return wrong


def shortened(reason: str) -> str:
    """The first of several reasons, and how many follow."""
    first, *rest = reason.split("; ")
    return f"{first} (and {len(rest)} more)" if rest else first


async def strongest_sandbox(api: Cluster, nodes: Nodes) -> str:
    """The `execution.sandbox` for this cluster. On container nodes gVisor where they have it."""
    if nodes is Nodes.process:
        return "bubblewrap"
    try:
        await api.get(RUNTIME_CLASS, "gvisor")
    except NotFound:
        return "container"
    return "gvisor"


async def _demo(places: Places, name: str, nodes: Nodes) -> None:
    steps = Terminal(notes)
    bundle, submissions = course.bundle(), course.submissions()
    profiles = PROFILES if nodes is Nodes.process else container_profiles(1)
    cluster = await asyncio.to_thread(local.up, name, places, steps, profiles=profiles, kind=nodes.value)
    await asyncio.to_thread(release.install, cluster, places, steps)
    where = Where(cluster.kubeconfig, NAMESPACE)
    target = Layout(places.clusters / name).root / "reports" / JOB
    async with cluster_of(where) as api:
        with steps.step("a free place for the job"):
            await _remove(api)
        async with artifacts_of(api, where) as store:
            spec = read_template(places.checkout / "examples/grading/course.yaml")
            sandbox = await strongest_sandbox(api, nodes)
            spec["execution"]["sandbox"] = sandbox
            spec["assignment"] = {"uri": SCHEME + await store.put(bundle)}
            spec["submissions"] = {"uri": SCHEME + await store.put(submissions)}
        await api.apply(job_object(JOB, NAMESPACE, spec))
        notes.print(f"submissions run {SANDBOXES[sandbox]}")
        notes.print("grading three submissions; both judges run on this machine's processor, which takes minutes")
        job = await _graded(api)
        async with artifacts_of(api, where) as store:
            files = await index_of(store, job)
            await fetch(store, files, target)
    _show(job, target, cluster)


async def _remove(cluster: Cluster) -> None:
    """Delete the job of an earlier demo and wait until it is gone."""
    end = time.monotonic() + _GONE_SECONDS
    await cluster.delete(GRADING_JOB, JOB, NAMESPACE, propagation="Foreground")
    while time.monotonic() < end:
        try:
            await cluster.get(GRADING_JOB, JOB, NAMESPACE)
        except NotFound:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise Permanent(
        f"the earlier GradingJob {JOB} is still being deleted after {_GONE_SECONDS:.0f} s; "
        f"see: espalier explain gj/{JOB}"
    )


async def _graded(cluster: Cluster) -> Object:
    """The job once it is complete. Raises `Permanent` with what it says of itself when it fails or takes too long."""
    is_complete = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRADED_SECONDS):
            is_complete = await follow_job(cluster, JOB, NAMESPACE)
    job = await job_of(cluster, JOB, NAMESPACE)
    if is_complete:
        return job
    words = "; ".join(f"{c['type']}: {c['message']}" for c in conditions(job) if c.get("message"))
    raise Permanent(
        f"the job is not complete after {_GRADED_SECONDS:.0f} s or less ({status_line(job)}). {words}. "
        f"See: espalier explain gj/{JOB}"
    )


def _show(job: Object, target: Path, cluster: local.Cluster) -> None:
    report = parse((target / "report.json").read_bytes(), "report.json")
    rows = rows_of(report, parse((target / "restricted/names.json").read_bytes(), "names.json"))
    status = job.get("status") or {}
    out.print(grades_table([replace(row, reason=shortened(row.reason)) for row in rows]))
    out.print(speed_table(status.get("performance")) or Table())
    for kind in ("gradingjobs", "nodes"):
        out.print(f"\n$ kubectl get {kind}")
        out.print(escape(_kubectl(cluster, "get", kind)))
    out.print(f"report: {escape(str(target / 'index.html'))}")
    if wrong := problems(rows, report, status):
        raise Permanent("the demo's result is not what it must be: " + "; ".join(wrong))
    out.print("checked: tests are nbgrader's own numbers, the blank one has 0 points, both judges gave JSON")
    program = os.path.relpath(Path(sys.executable).with_name("espalier"))
    words = {"espalier": program, "kubeconfig": cluster.kubeconfig, "kubectl": cluster.assets["kubectl"]}
    out.print(escape(_LAST_WORDS.format(job=JOB, name=cluster.name, **words)), soft_wrap=True)


_LAST_WORDS = """
The Macs are simulated on this machine, and the model is small (135M): the figures show the path, not the speed.
Look around:
  export KUBECONFIG={kubeconfig} ESPALIER_KUBECONFIG={kubeconfig}
  {kubectl} describe gradingjob {job}
  {espalier} report gj/{job}
  {espalier} local status --name {name}
Stop it all:
  {espalier} local down --name {name}"""


def _kubectl(cluster: local.Cluster, *arguments: str) -> str:
    command = [
        str(cluster.assets["kubectl"]),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--namespace={NAMESPACE}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout or done.stderr).rstrip()
