"""Report: JSON with OpenTelemetry's names, CSV of every request, one page with pictures. Pure: bytes out.

What a server sent (its model's name, its errors) is hostile here: the page is escaped, carries no script and forbids
any; CSV cells cannot be formulas.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from espalier_benchmark.compare import Comparison
from espalier_benchmark.measure import DEFINITIONS, Latency, Slo, Summary
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
    """All that a report is made from. `load` describes the load in words."""

    name: str
    target: str
    load: str
    records: Sequence[Record]
    summary: Summary
    validity: Validity
    slo: Slo | None = None
    comparison: Comparison | None = None


def report_files(run: Run) -> dict[str, bytes]:
    """Every file of the report by name."""
    return {
        "report.json": (json.dumps(as_json(run), ensure_ascii=False, indent=1) + "\n").encode(),
        "requests.csv": as_csv(run.records).encode(),
        "report.html": as_page(run).encode(),
    }


def as_json(run: Run) -> dict[str, Any]:
    """The figures; times in seconds. A percentile that the samples cannot bound is null."""
    summary = run.summary
    models = sorted({record.model for record in run.records if record.model})
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "run": {"name": run.name, "target": run.target, "load": run.load},
        "attributes": {"gen_ai.operation.name": "chat", "gen_ai.response.model": models},
        "validity": {"verdict": run.validity.verdict, "reasons": [asdict(each) for each in run.validity.reasons]},
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
        "definitions": dict(DEFINITIONS),
    }
    if run.comparison is not None:
        found["comparison"] = {"verdict": run.comparison.verdict, **asdict(run.comparison)}
    return found


def as_csv(records: Sequence[Record]) -> str:
    """One row a request."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in records:
        writer.writerow([_cell(getattr(record, name)) for name in _COLUMNS])
    return out.getvalue()


def as_page(run: Run) -> str:
    """The page: one file, nothing fetched, nothing executed."""
    environment = Environment(
        loader=PackageLoader("espalier_benchmark", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bounded"] = percentile_text
    return environment.get_template("run.html").render(
        run=run, summary=run.summary, plots=_plots(run.records), definitions=DEFINITIONS
    )


def percentile_text(found: Percentile) -> str:
    """Milliseconds with their bound, or how many samples there are and how many are needed."""
    if found.value is None or found.low is None or found.high is None:
        return f"unresolved, n={found.n} (≥ {samples_needed(found.q)} needed)"
    return f"{found.value * 1e3:.1f} [{found.low * 1e3:.1f}, {found.high * 1e3:.1f}]"


def _plots(records: Sequence[Record]) -> list[Plot]:
    answered = [record for record in records if record.is_ok]
    ttft = [record.ttft_s for record in answered if record.ttft_s is not None]
    ends = [record.response_s for record in answered]
    made = (
        cumulative("Time to first token, share of requests", [("TTFT, service clock", ttft)]),
        cumulative(
            "End to end, share of requests",
            [("service clock", [record.service_s for record in answered]), ("response clock", ends)],
        ),
        over_time("Response time in ms over the run", [(r.intended_s, r.response_s) for r in answered]),
    )
    return [plot for plot in made if plot is not None]


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
