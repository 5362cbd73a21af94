"""`espalier benchmark`: measure servers from this machine, compare two such measurements, show one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier_cli import measuring
from espalier_cli.connection import artifacts_of, cluster_of, job_of
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where, job_reference
from espalier_cli.report import fetch
from espalier_cli.terminal import notes, out, run
from espalier_kit.artifacts import SCHEME
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import BENCHMARK_JOB

if TYPE_CHECKING:
    from espalier_benchmark.verdict import Decision

app = typer.Typer(help="Measure model servers, honestly; compare and show what was measured.", no_args_is_help=True)
INVALID = 3
NOT_PASSED = 4
_SHOWN = ("p50", "p90", "p99")


@app.command("run")
def run_(
    file: Annotated[Path | None, typer.Argument(help="A BenchmarkJob in YAML whose targets are endpoints.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Base address of a server, without /v1; two are run in turns.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model's name over there.")] = "",
    rate: Annotated[float | None, typer.Option(help="Requests per second, by a Poisson process.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight instead of a rate.")] = None,
    requests: Annotated[int | None, typer.Option(help="End after so many (of one block, with two targets).")] = None,
    duration: Annotated[int | None, typer.Option(help="End after so many seconds.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Of a synthetic prompt.")] = 128,
    output_tokens: Annotated[int, typer.Option(help="Of an answer.")] = 128,
    pack: Annotated[list[str] | None, typer.Option(help="Questions with known answers, as NAME or NAME=FILE.")] = None,
    items: Annotated[int | None, typer.Option(help="Of each pack, the first so many.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="JSON lines with prompt or messages, instead of synthetic ones.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the servers' API key.")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority that the servers' certificates are from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals and synthetic prompts.")] = 0,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder for the report; the same one again goes on where a run was killed.")
    ] = Path("benchmark"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of answers to questions; equal ones are not asked again.")
    ] = None,
) -> None:
    """Measure from this machine, without a cluster. Exits with 3 if the run is Invalid."""

    async def work() -> dict[str, Any]:
        wish = measuring.Wish(
            file=file, targets=tuple(target or ()), model=model, rate=rate, concurrency=concurrency, requests=requests,
            duration=duration, prompt_tokens=prompt_tokens, output_tokens=output_tokens, packs=tuple(pack or ()),
            items=items, dataset=dataset, api_key_file=api_key_file, ca=ca, seed=seed,
        )  # fmt: skip
        return await measuring.measure(wish, folder, cache=cache, told=_tell)

    report = run(work())
    _show(report)
    out.print(f"report: {escape(str((folder / 'report.html').resolve()))}")
    if report["validity"]["verdict"] != "Valid":
        raise typer.Exit(INVALID)


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="Folder of a report, as `run --out` or `report --out` wrote it.")],
    candidate: Annotated[Path, typer.Argument(help="Another; or the same, if it had two targets.")],
    metric: Annotated[list[str] | None, typer.Option(help="ttft, itl, tpot, e2e, throughput, accuracy.")] = None,
    margin: Annotated[float, typer.Option(help="How much worse is still good enough; 0.05 is 5 %.")] = 0.05,
    alpha: Annotated[float, typer.Option(help="False alarms, over all metrics together.")] = 0.05,
) -> None:
    """Is the candidate better, as good, or worse? Exits with 4 unless it is better or as good."""
    metrics = tuple(metric or ("ttft", "itl", "e2e", "throughput"))

    async def work() -> Decision:
        return measuring.decide(baseline, candidate, metrics=metrics, margin=margin, alpha=alpha)

    decision = run(work())
    table = Table("metric", "Δ", "interval", "p", "verdict", "why", box=None)
    for each in decision.differences:
        known = None not in (each.delta, each.low, each.high)
        cells = [f"{each.delta:+.2%}", f"[{each.low:+.2%}, {each.high:+.2%}]", f"{each.p:.4f}"] if known else ["-"] * 3
        table.add_row(each.metric, *map(escape, cells), each.verdict, escape(each.why))
    out.print(table)
    out.print(f"{decision.verdict}: {escape(decision.message)}")
    if decision.verdict not in ("Improved", "Passed"):
        raise typer.Exit(NOT_PASSED)


@app.command()
def report(
    reference: Annotated[str, typer.Argument(help="A folder, or a BenchmarkJob as bj/NAME.")],
    folder: Annotated[Path | None, typer.Option("--out", help="Write every report file into this folder.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Show what was measured; with --out, fetch a BenchmarkJob's files."""

    is_folder = Path(reference).is_dir()

    async def work() -> dict[str, Any]:
        if is_folder:
            return measuring.read_report(Path(reference))
        kind, name = job_reference(reference)
        if kind != BENCHMARK_JOB:
            raise Permanent(f"{reference!r} is neither a folder nor bj/NAME")
        where = Where(kubeconfig, namespace, system)
        async with cluster_of(where) as cluster:
            job = await job_of(cluster, name, namespace, BENCHMARK_JOB)
            files = {
                entry["name"]: entry["uri"].removeprefix(SCHEME)
                for entry in (job.get("status") or {}).get("files") or ()
            }
            if "report.json" not in files:
                raise NotFound(f"BenchmarkJob {name} has no report yet: `espalier explain bj/{name}` says why")
            async with artifacts_of(cluster, where) as store:
                if folder is not None:
                    await fetch(store, files, folder)
                found: dict[str, Any] = json.loads(await store.get(files["report.json"]))
                return found

    _show(run(work()))


def _tell(key: str, fraction: float, message: str) -> None:
    notes.print(f"[dim]{escape(key)}: {escape(message)} ({fraction:.0%})[/]")


def _show(found: dict[str, Any]) -> None:
    for each in found["runs"]:
        out.print(_latencies(each))
        speed = each["throughput"]
        answered = f"{each['requests']['succeeded']} of {each['requests']['sent']} answered"
        out.print(f"{answered}, {speed['requests_per_s']:.2f} requests/s, {speed['output_tokens_per_s']:.1f} tokens/s")
    if found["accuracy"]:
        out.print(_answers(found["accuracy"]))
    for reason in found["validity"]["reasons"]:
        out.print(f"{reason['reason']}: {escape(reason['message'])}")
    if found["stopped"]:
        out.print(f"stopped: {escape(found['stopped'])}")
    out.print(found["validity"]["verdict"])


def _latencies(each: dict[str, Any]) -> Table:
    table = Table(escape(each["target"]), "clock", *(f"{name}, ms" for name in _SHOWN), box=None)
    for latency in each["latencies"]:
        cells = [_bounded(latency["percentiles"][name]) for name in _SHOWN]
        table.add_row(latency["figure"], latency["clock"], *cells)
    return table


def _bounded(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return f"unresolved, n={found['n']}"
    value, low, high = (1e3 * found[name] for name in ("value", "low", "high"))
    return escape(f"{value:.1f} [{low:.1f}, {high:.1f}]")


def _answers(figures: list[dict[str, Any]]) -> Table:
    table = Table("answers", "of", "measure", "items", "value", "95 %", "sandbox", box=None)
    for each in figures:
        value = each.get("value")
        cells = ["-", "-"] if value is None else [f"{value:.3g}", escape(f"[{each['low']:.3g}, {each['high']:.3g}]")]
        cells.append(each.get("sandbox") or "-")
        table.add_row(escape(each["name"]), escape(each["target"]), each["metric"], str(each["items"]), *cells)
    return table
