"""Report: the class page, a page per student, CSV and JSON, from scored submissions. Pure: bytes out, no I/O but the
templates.

Everything a student wrote is hostile here: pages are escaped, carry no script, and say so in their Content-Security-
Policy;
CSV cells cannot be formulas. Pages and `grades.csv` know pseudonyms only; the names are in `restricted/`.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from espalier_api.gradingjob import Scores, SubmissionCounts
from espalier_api.tasks import ReportValue
from espalier_grading.model import Call, Graded
from espalier_grading.performance import combined, judge_performance, seed_metrics

BINS = 10
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "pseudonym",
    "state",
    "points",
    "scale",
    "earned",
    "total",
    "tests_earned",
    "tests_total",
    "review",
    "reason",
)


@dataclass(frozen=True, slots=True)
class Class:
    """All that a report is made from. `names` maps pseudonyms to the students' folders."""

    job: str
    title: str
    scale: float
    graded: tuple[Graded, ...]
    names: Mapping[str, str]
    is_shared_hardware: bool = False


def report_files(class_: Class) -> dict[str, bytes]:
    """Every file of the report by path."""
    environment = Environment(
        loader=PackageLoader("espalier_grading", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    value = summary(class_, index="")
    page = environment.get_template("class.html").render(
        job=class_.job,
        title=class_.title,
        scale=class_.scale,
        rows=class_.graded,
        value=value,
        bars=bars(value.scores),
        shared=class_.is_shared_hardware,
        models=[(name, seed) for name, seed in _judges(class_.graded).items() if seed],
    )
    student = environment.get_template("student.html")
    files = {"index.html": page.encode()}
    for graded in class_.graded:
        files[f"students/{graded.pseudonym}.html"] = student.render(
            title=class_.title, job=class_.job, scale=class_.scale, s=graded
        ).encode()
    files["grades.csv"] = grades_csv(class_)
    files["report.json"] = _json(report_json(class_))
    files["restricted/names.json"] = _json(dict(class_.names))
    files["restricted/grades.csv"] = grades_csv(class_, with_names=True)
    return files


def summary(class_: Class, *, index: str) -> ReportValue:
    """The value of the report task."""
    code, feedback = calls(class_.graded)
    both = combined(code, feedback)
    return ReportValue(
        index=index,
        submissions=counts(class_.graded),
        scores=scores(class_.graded, scale=class_.scale),
        code=judge_performance(code),
        feedback=judge_performance(feedback),
        combined_tokens_per_second=None if both is None else round(both.tokens_per_second, 2),
        parallel_speedup=None if both is None else round(both.speedup, 3),
        parallel_efficiency=None if both is None else round(both.efficiency, 3),
        submissions_per_hour=per_hour(class_.graded),
    )


def calls(graded: Sequence[Graded]) -> tuple[list[Call], list[Call]]:
    """The model calls of each judge."""
    return [g.code for g in graded if g.code], [g.feedback for g in graded if g.feedback]


def counts(graded: Sequence[Graded]) -> SubmissionCounts:
    """`graded` have points, those that await review included."""
    by_state = Counter(g.state for g in graded)
    return SubmissionCounts(
        total=len(graded),
        graded=by_state["graded"] + by_state["needsReview"],
        needs_review=by_state["needsReview"],
        not_gradable=by_state["notGradable"],
        failed=by_state["failed"],
    )


def scores(graded: Sequence[Graded], *, scale: float) -> Scores | None:
    """Over the submissions with points; None without any."""
    points = [g.points for g in graded if g.points is not None]
    if not points:
        return None
    bins = [0] * BINS
    for value in points:
        bins[min(BINS - 1, int(value / scale * BINS))] += 1
    return Scores(
        mean=round(statistics.fmean(points), 2),
        median=round(statistics.median(points), 2),
        min=min(points),
        max=max(points),
        histogram=tuple(bins),
    )


def per_hour(graded: Sequence[Graded]) -> float | None:
    """Submissions an hour, from the first intake to the last score."""
    starts = [g.started for g in graded if g.started]
    seconds = max((g.ended for g in graded), default=0.0) - min(starts, default=0.0)
    return round(len(graded) * 3600 / seconds, 1) if starts and seconds > 0 else None


def report_json(class_: Class) -> dict[str, Any]:
    """The class and each submission, with performance in the seed's names."""
    code, feedback = calls(class_.graded)
    return {
        "job": class_.job,
        "assignment": class_.title,
        "scale_points": class_.scale,
        "shared_hardware": class_.is_shared_hardware,
        **seed_metrics(code, feedback),
        "submissions": [_submission(graded) for graded in class_.graded],
    }


def grades_csv(class_: Class, *, with_names: bool = False) -> bytes:
    """One row for each submission, whatever became of it; UTF-8 with a byte order mark for spreadsheets."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([*(["student"] if with_names else []), *_COLUMNS])
    for g in class_.graded:
        name = [class_.names.get(g.pseudonym, "")] if with_names else []
        row = [
            *name,
            g.pseudonym,
            g.state,
            "" if g.points is None else f"{g.points:.2f}",
            f"{class_.scale:g}",
            f"{g.earned:g}",
            f"{g.total:g}",
            f"{sum(t.earned for t in g.tests):g}",
            f"{sum(t.points for t in g.tests):g}",
            "; ".join(g.review),
            g.message or g.reason,
        ]
        writer.writerow([safe_cell(cell) for cell in row])
    return "\ufeff".encode() + buffer.getvalue().encode()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def bars(value: Scores | None) -> list[tuple[int, float]]:
    """Count and height (0..1) of each histogram bar."""
    histogram = value.histogram if value else (0,) * BINS
    top = max(histogram, default=0) or 1
    return [(count, count / top) for count in histogram]


def _judges(graded: Sequence[Graded]) -> dict[str, Any]:
    code, feedback = calls(graded)
    figures = seed_metrics(code, feedback)
    return {"code": figures["code_performance"], "feedback": figures["feedback_performance"]}


def _submission(g: Graded) -> dict[str, Any]:
    own = seed_metrics([g.code] if g.code else [], [g.feedback] if g.feedback else [])
    return g.model_dump(mode="json", exclude={"code", "feedback"}) | own


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False).encode()
