"""What a benchmark found: the same figures in the report task's value and in the status."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier_api.meta import Model

Verdict = Literal["Improved", "Passed", "Regressed", "Inconclusive"]


class PercentileFigure(Model):
    """An order statistic with its 95 % bound; no value where the samples cannot bound it."""

    name: str = Field(description="`p50`, `p90`, …")
    value: float | None = None
    low: float | None = None
    high: float | None = None


class LatencyFigure(Model):
    """One latency in milliseconds."""

    name: str = Field(description="`ttft`, `ttft_content`, `itl`, `tpot`, `e2e`, `chunk_gap`.")
    clock: Literal["service", "response"] = Field(description="From the send, or from when the request was due.")
    samples: int
    mean: float | None = None
    percentiles: tuple[PercentileFigure, ...] = ()


class ErrorCount(Model):
    """Requests that failed one way."""

    type: str
    count: int


class TargetFigures(Model):
    """Speed of one target, over the requests that count."""

    name: str
    model: str | None = Field(default=None, description="As the server named it in its answers.")
    requests: int
    succeeded: int
    errors: tuple[ErrorCount, ...] = ()
    latencies: tuple[LatencyFigure, ...] = ()
    requests_per_second: float | None = None
    output_tokens_per_second: float | None = None
    goodput_per_second: float | None = Field(default=None, description="Requests per second that keep the slo.")
    good_share: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    saturation_per_second: float | None = Field(
        default=None, description="A sweep's last offered rate that the target kept up with."
    )
    cost: float | None = None


class AccuracyFigures(Model):
    """One pack or evaluator on one target."""

    target: str
    name: str
    metric: str = Field(description="What `value` is: `share`, `perplexity`, `score`, `winRate`.")
    items: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    abstained: int = 0
    kappa: float | None = Field(default=None, description="Agreement of the judge with itself, positions swapped.")
    cost: float | None = None
    sandbox: str | None = Field(
        default=None, description="Where answers run to be scored: what confined them (`execution.sandbox`)."
    )


class ValidityReason(Model):
    """Why the figures are not the servers' own."""

    reason: str
    message: str


class Validity(Model):
    """Whether the figures are the servers', or the generators' own."""

    verdict: Literal["Valid", "Invalid"]
    reasons: tuple[ValidityReason, ...] = ()


class ReportFile(Model):
    """One file of the report, in the artifact store."""

    name: str = Field(description="`report.json`, `requests.csv`, `report.html`, `….png`, `records-0.jsonl`, …")
    uri: str


class DifferenceFigures(Model):
    """Candidate against baseline in one metric. `delta` is relative: 0.05 is 5 % more; accuracy: a share less a share.

    `low` to `high` holds the true difference at 1 - alpha; `p` is after Holm, over all tests of the comparison.
    """

    metric: str
    verdict: Verdict
    why: str
    samples: int = Field(description="Blocks, or items.")
    higher_is_better: bool
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    min_detectable_effect: float | None = None
