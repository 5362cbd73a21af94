"""`espalier report`: a class's report files, and its grades and speed as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier_cli.connection import artifacts_of, cluster_of, job_of
from espalier_cli.objects import status_line
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where, job_name
from espalier_cli.terminal import out, run
from espalier_kit.artifacts import SCHEME, ArtifactStore
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import Object

_NAMES = "restricted/names.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One submission, as the table shows it. `points` is None where there are none."""

    name: str
    tests: str
    points: float | None
    scale: float
    state: str
    reason: str = ""


def report(
    name: Annotated[str, typer.Argument(help="The job, as NAME or gj/NAME.")],
    target: Annotated[Path | None, typer.Option("--out", help="Write every report file into this folder.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Show a job's grades and speed; with --out, fetch its HTML, CSV and JSON. The folder holds students' names."""

    async def work() -> None:
        where = Where(kubeconfig, namespace, system)
        async with cluster_of(where) as cluster:
            job = await job_of(cluster, job_name(name), namespace)
            async with artifacts_of(cluster, where) as store:
                files = await index_of(store, job)
                rows = rows_of(await _json(store, files, "report.json"), await _json(store, files, _NAMES))
                if target is not None:
                    await fetch(store, files, target)
        out.print(grades_table(rows))
        if speed := speed_table((job.get("status") or {}).get("performance")):
            out.print(speed)
        if target is not None:
            out.print(f"report: {escape(str((target / 'index.html').resolve()))}")

    run(work())


async def index_of(store: ArtifactStore, job: Object) -> Mapping[str, str]:
    """sha256 of each report file by its path. Raises `NotFound` while there is no report."""
    uri = (job.get("status") or {}).get("resultUri") or ""
    if not uri.startswith(SCHEME):
        raise NotFound(f"GradingJob {job['metadata']['name']} has no report yet: {status_line(job)}")
    index = parse(await store.get(uri.removeprefix(SCHEME)), "the report's index")
    files = index.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise Permanent("the report's index names no files")
    return files


async def fetch(store: ArtifactStore, files: Mapping[str, str], target: Path) -> None:
    """Write every file below `target`, readable for its owner only."""
    for path, digest in files.items():
        place = target / safe_path(path)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.write_bytes(await store.get(digest))
        place.chmod(0o600)


def safe_path(path: str) -> PurePosixPath:
    """A path that stays below its folder. Raises `Permanent`."""
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise Permanent(f"the report's index names a file outside its folder: {path!r}")
    return pure


def rows_of(report: Mapping[str, Any], names: Mapping[str, Any]) -> tuple[Row, ...]:
    """Rows by name; tests are `earned/total`."""
    scale = float(report.get("scale_points") or 0)
    rows = (_row(entry, scale, names) for entry in report.get("submissions") or ())
    return tuple(sorted(rows, key=lambda row: row.name))


def _row(entry: Mapping[str, Any], scale: float, names: Mapping[str, Any]) -> Row:
    tests: Sequence[Mapping[str, Any]] = entry.get("tests") or ()
    earned, total = (sum(float(test[key]) for test in tests) for key in ("earned", "points"))
    pseudonym = str(entry["pseudonym"])
    return Row(
        name=str(names.get(pseudonym, pseudonym)), tests=f"{earned:.1f}/{total:g}" if tests else "-",
        points=entry.get("points"), scale=scale, state=str(entry.get("state", "")),
        reason=str(entry.get("message") or entry.get("reason") or "; ".join(entry.get("review") or ())),
    )


def grades_table(rows: Sequence[Row]) -> Table:
    """Name, tests, points, state, reason."""
    table = Table("name", "tests", "points", "state", "reason", box=None)
    for row in rows:
        points = "-" if row.points is None else f"{row.points:.2f}/{row.scale:g}"
        table.add_row(escape(row.name), row.tests, points, row.state, escape(row.reason))
    return table


def speed_table(performance: Mapping[str, Any] | None) -> Table | None:
    """Both judges' tok/s, their overlap and efficiency; None before anything was measured."""
    if not performance:
        return None
    table = Table("speed", "", box=None)
    for judge, figures in (performance.get("models") or {}).items():
        half, most = figures["p50Seconds"], figures["p95Seconds"]
        detail = f"{figures['outputTokens']} tokens, p50 {half:.1f} s, p95 {most:.1f} s"
        table.add_row(f"{judge} judge", f"{figures['tokensPerSecond']:.1f} tok/s ({detail})")
    is_shared = performance.get("sharedHardware")
    for key, label, form in (
        ("combinedTokensPerSecond", "both judges", "{:.1f} tok/s"),
        ("parallelSpeedup", "overlap" if is_shared else "speed-up", "{:.2f}"),
        ("parallelEfficiency", "efficiency", "{:.0%} of the bound"),
        ("submissionsPerHour", "submissions", "{:.0f}/h"),
    ):
        if performance.get(key) is not None:
            table.add_row(label, form.format(performance[key]))
    if is_shared:
        table.add_row("note", "the Macs are simulated and share this machine's cores: an overlap, no speed-up")
    return table


async def _json(store: ArtifactStore, files: Mapping[str, str], name: str) -> dict[str, Any]:
    if name not in files:
        raise NotFound(f"the report has no {name}")
    return parse(await store.get(files[name]), name)


def parse(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises `Permanent`."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Permanent(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Permanent(f"{what} is no JSON object")
    return value
