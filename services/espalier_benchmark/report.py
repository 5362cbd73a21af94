"""Report: JSON with OpenTelemetry's names, CSV of every request, one page with pictures, PNGs. Pure: bytes out.

What a server sent (its model's name, its errors) is hostile here: the page is escaped, carries no script and forbids
any; CSV cells cannot be formulas.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from espalier_api.benchmarkfigures import AccuracyFigures
from espalier_benchmark.compare import Comparison
from espalier_benchmark.exchange import as_benchmark_report
from espalier_benchmark.measure import DEFINITIONS, Latency, Slo, Summary
from espalier_benchmark.packs.model import Manifest
from espalier_benchmark.pictures import as_png
from espalier_benchmark.plots import Plot, cumulative, over_time
from espalier_benchmark.quantiles import Percentile, samples_needed
from espalier_benchmark.records import Record
from espalier_benchmark.validity import Validity

SCHEMA = "espalier.benchmark.report/1"
OTEL_NAMES = {
    ("ttft", "service"): "gen_ai.client.operation.time_to_first_chunk",
    ("chunk_gap", "service"): "gen_ai.client.operation.time_per_output_chunk",
    ("e2e", "service"): "gen_ai.client.operation.duration",
}
"""Where OpenTelemetry's GenAI conventions (status: development) have a name for the figure as we define it; others get
our own.
"""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "index", "target", "block", "stage", "generator", "intended_s", "sent_s", "held_s", "client_lag_s", "ttft_s",
    "response_ttft_s", "tpot_s", "service_s", "response_s", "prompt_tokens", "output_tokens", "token_source", "model",
    "finish", "error", "detail",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """The load on one target. `load` describes it in words; `records` are those that count."""

    target: str
    load: str
    records: Sequence[Record]
    summary: Summary
    slo: Slo | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the files are made from. `stopped` says which limit ended it early."""

    name: str
    runs: tuple[Run, ...]
    validity: Validity
    accuracy: tuple[AccuracyFigures, ...] = ()
    comparison: Comparison | None = None
    manifests: tuple[Manifest, ...] = ()
    cost: float | None = None
    stopped: str = ""
    job: Mapping[str, Any] | None = None
    """The settings as they were admitted."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Files of raw records by task, for a later comparison."""


def report_files(report: Report) -> dict[str, bytes]:
    """Every file of the report by name."""
    files = {
        "report.json": _dumped(as_json(report)),
        "requests.csv": as_csv([record for run in report.runs for record in run.records]).encode(),
        "report.html": as_page(report).encode(),
    }
    for number, run in enumerate(report.runs):
        suffix = "" if len(report.runs) == 1 else f"-{number}"
        files[f"benchmark-report-v0.2{suffix}.json"] = _dumped(
            as_benchmark_report(run.records, run.summary, name=report.name, target=run.target, load=run.load)
        )
        for title, plot in _plots([run]):
            files[f"{title}{suffix}.png"] = as_png(plot)
    return files


def as_json(report: Report) -> dict[str, Any]:
    """The figures; times in seconds. A percentile that the samples cannot bound is null."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": report.name,
        "validity": {"verdict": report.validity.verdict, "reasons": [asdict(each) for each in report.validity.reasons]},
        "runs": [_run(run) for run in report.runs],
        "accuracy": [figure.wire() for figure in report.accuracy],
        "packs": [{**asdict(pack), "template_sha256": pack.template_sha256} for pack in report.manifests],
        "cost": report.cost,
        "stopped": report.stopped,
        "definitions": dict(DEFINITIONS),
        "job": report.job,
        "raw": dict(report.raw),
    }
    if report.comparison is not None:
        found["comparison"] = {"verdict": report.comparison.verdict, **asdict(report.comparison)}
    return found


def _run(run: Run) -> dict[str, Any]:
    summary = run.summary
    models = sorted({record.model for record in run.records if record.model})
    return {
        "target": run.target,
        "load": run.load,
        "attributes": {"gen_ai.operation.name": "chat", "gen_ai.response.model": models},
        "requests": {"sent": summary.requests, "succeeded": summary.succeeded, "error.type": dict(summary.errors)},
        "throughput": {
            "wall_s": summary.wall_s,
            "requests_per_s": summary.requests_per_s,
            "output_tokens_per_s": summary.output_tokens_per_s,
        },
        "gen_ai.client.token.usage": {"input": summary.prompt_tokens, "output": summary.output_tokens},
        "token_sources": dict(summary.token_sources),
        "goodput": None
        if run.slo is None
        else {"slo": asdict(run.slo), "requests": summary.good, "requests_per_s": summary.goodput_per_s},
        "latencies": [_latency(each) for each in summary.latencies],
    }


def as_csv(records: Sequence[Record]) -> str:
    """One row a request."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in records:
        writer.writerow([_cell(getattr(record, name)) for name in _COLUMNS])
    return out.getvalue()


def as_page(report: Report) -> str:
    """The page: one file, nothing fetched, nothing executed."""
    environment = Environment(
        loader=PackageLoader("espalier_benchmark", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bounded"] = percentile_text
    plots = [plot for _, plot in _plots(report.runs)]
    return environment.get_template("run.html").render(report=report, plots=plots, definitions=DEFINITIONS)


def percentile_text(found: Percentile) -> str:
    """Milliseconds with their bound, or how many samples there are and how many are needed."""
    if found.value is None or found.low is None or found.high is None:
        return f"unresolved, n={found.n} (≥ {samples_needed(found.q)} needed)"
    return f"{found.value * 1e3:.1f} [{found.low * 1e3:.1f}, {found.high * 1e3:.1f}]"


def _plots(runs: Sequence[Run]) -> list[tuple[str, Plot]]:
    """(file name, picture) of one run, or of two in the same picture."""
    answered = [(run.target, [record for record in run.records if record.is_ok]) for run in runs]

    def curves(label: str, read: Callable[[Record], float | None]) -> list[tuple[str, list[float]]]:
        named = [(target, [value for r in records if (value := read(r)) is not None]) for target, records in answered]
        return [(f"{target}, {label}" if len(runs) > 1 else label, values) for target, values in named]

    made = [
        ("ttft", cumulative("Time to first token, share of requests", curves("service clock", lambda r: r.ttft_s))),
        (
            "e2e",
            cumulative(
                "End to end, share of requests",
                [*curves("service clock", lambda r: r.service_s), *curves("response clock", lambda r: r.response_s)],
            ),
        ),
    ]
    for target, records in answered:
        title = f"Response time in ms over the run{f', {target}' if len(runs) > 1 else ''}"
        made.append(("response-over-time", over_time(title, [(r.intended_s, r.response_s) for r in records])))
    return [(name, plot) for name, plot in made if plot is not None]


def _dumped(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "name": OTEL_NAMES.get((latency.name, latency.clock), f"espalier.benchmark.{latency.name}.{latency.clock}"),
        "figure": latency.name,
        "clock": latency.clock,
        "unit": "s",
        "count": latency.count,
        "mean": latency.mean_s,
        "percentiles": {
            p.name: {"value": p.value, "low": p.low, "high": p.high, "n": p.n} for p in latency.percentiles
        },
    }


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return value
