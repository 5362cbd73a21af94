"""The report: hostile text stays text, every submission has its row, figures add up."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_grading.model import CriterionScore, Finding, Graded, TestResult, Verdict
from espalier_grading.report import BINS, Class, counts, grades_csv, report_files, safe_cell, scores, summary

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "p",
        "div",
        "span",
        "b",
        "table",
        "tr",
        "th",
        "td",
        "a",
        "svg",
        "rect",
        "text",
        "blockquote",
        "code",
        "ul",
        "li",
        "q",
        "br",
    ]
)


def _graded(
    name: str, points: float | None, *, state: str = "graded", text: str = "ok", review: tuple[str, ...] = ()
) -> Graded:
    criterion = CriterionScore(
        id="c",
        title=text,
        points=1,
        earned=0,
        verdict=Verdict(criterion="c", level="MET", quote=text, void=text),
        capped_by=(text,),
    )
    return Graded(
        pseudonym=name, state=state, points=points, tests=(TestResult(id=text, points=2, earned=1, reason=text),),  # type: ignore[arg-type]
        criteria=(criterion,), comment=text, message=text, review=review,
        findings=(Finding(kind="k", where=text, message=text),),
        total=4, earned=2, started=10, ended=100,
    )  # fmt: skip


def _class(*graded: Graded) -> Class:
    return Class(job="ps1", title=HOSTILE, scale=37.5, graded=graded, names={g.pseudonym: "=Ann" for g in graded})


class _Page(HTMLParser):
    """Collects tags and event attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_pages_carry_no_script_whatever_a_student_wrote() -> None:
    files = report_files(
        _class(
            _graded("s-1", 20.0, text=HOSTILE, review=(HOSTILE,)), _graded("s-2", None, state="failed", text=HOSTILE)
        )
    )
    for name, content in files.items():
        if name.endswith(".html"):
            page = _Page()
            page.feed(content.decode())
            assert page.tags <= TAGS, name
            assert not {a for a in page.attributes if a.startswith("on") or a == "src"}, name
            assert "default-src 'none'" in content.decode()


def test_every_submission_has_one_row_and_one_page() -> None:
    class_ = _class(
        _graded("s-1", 20.0), _graded("s-2", None, state="notGradable"), _graded("s-3", None, state="failed")
    )
    files = report_files(class_)
    rows = list(csv.DictReader(io.StringIO(files["grades.csv"].decode("utf-8-sig"))))
    assert [(row["pseudonym"], row["points"], row["state"]) for row in rows] == [
        ("s-1", "20.00", "graded"), ("s-2", "", "notGradable"), ("s-3", "", "failed"),
    ]  # fmt: skip
    assert {f"students/s-{n}.html" for n in (1, 2, 3)} <= set(files)
    assert len(json.loads(files["report.json"])["submissions"]) == 3


def test_names_are_in_the_restricted_table_only_and_are_no_formulas() -> None:
    class_ = _class(_graded("s-1", 20.0))
    assert "Ann" not in grades_csv(class_).decode()
    assert "'=Ann" in grades_csv(class_, with_names=True).decode()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text).startswith("'")


@given(st.lists(st.integers(0, 3750).map(lambda n: n / 100), min_size=1, max_size=30))
def test_the_histogram_counts_every_score(points: list[float]) -> None:
    value = scores([_graded(f"s-{i}", p) for i, p in enumerate(points)], scale=37.5)
    assert value is not None
    assert sum(value.histogram) == len(points)
    assert len(value.histogram) == BINS
    assert value.min - 0.01 <= value.median <= value.max + 0.01


def test_graded_counts_those_that_await_review() -> None:
    found = counts([_graded("a", 1), _graded("b", 2, state="needsReview"), _graded("c", None, state="failed")])
    assert (found.total, found.graded, found.needs_review, found.failed) == (3, 2, 1, 1)


def test_a_class_without_any_score_still_has_a_report() -> None:
    class_ = _class(_graded("s-1", None, state="failed"))
    assert summary(class_, index="0" * 64).scores is None
    assert b"No model was asked" in report_files(class_)["index.html"]


def test_submissions_per_hour_count_from_the_first_intake_to_the_last_score() -> None:
    assert summary(_class(_graded("s-1", 1.0), _graded("s-2", 2.0)), index="").submissions_per_hour == 80


def test_the_histogram_is_drawn_with_a_bar_for_each_bin() -> None:
    page = report_files(_class(_graded("s-1", 20.0)))["index.html"].decode()
    assert len(re.findall("<rect", page)) == BINS
