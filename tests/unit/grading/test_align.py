"""Alignment: whatever a student did to cells, the bundle's tests run and the answers are found."""

from __future__ import annotations

from espalier_grading.align import Aligned, align
from espalier_grading.bundle import Cell, Notebook, Role

ANSWER = Cell("f", "code", "def f():\n    raise ValueError", Role.ANSWER)
TEST = Cell("t", "code", "assert f() == 1", Role.TEST, points=1)
HIDDEN = Cell("t", "code", "assert f() == 1\nassert hidden()", Role.TEST, points=1)
LOCKED = Cell("setup", "code", "limit = 10", Role.LOCKED)
TEXT = Cell("why", "markdown", "YOUR ANSWER HERE", Role.ANSWER)
TASK = Cell("task", "markdown", "Do something of your own.", Role.TASK)
PLAIN = Cell("#9", "code", "f()", Role.PLAIN)
RELEASE = (LOCKED, ANSWER, TEST, TEXT, TASK)
NOTEBOOK = Notebook("n", "python3", RELEASE, (LOCKED, ANSWER, HIDDEN, TEXT, TASK))


def _own(key: str, source: str, type_: str = "code") -> Cell:
    return Cell(key, type_, source, Role.PLAIN)


def _kinds(aligned: Aligned) -> set[str]:
    return {f"{finding.kind}:{finding.where}" for finding in aligned.findings}


def test_an_untouched_release_runs_with_the_full_tests_and_no_findings() -> None:
    aligned = align(NOTEBOOK, RELEASE)
    assert [cell.source for cell in aligned.cells] == [LOCKED.source, ANSWER.source, HIDDEN.source]
    assert [cell.test for cell in aligned.cells] == [None, None, "n/t"]
    assert aligned.findings == ()
    assert aligned.answers == {"f": ANSWER.source, "why": TEXT.source, "task": ""}


def test_a_changed_test_and_a_changed_locked_cell_are_restored_and_told() -> None:
    aligned = align(NOTEBOOK, (_own("setup", "limit = 99"), ANSWER, _own("t", "pass"), TEXT, TASK))
    assert [cell.source for cell in aligned.cells] == [LOCKED.source, ANSWER.source, HIDDEN.source]
    assert _kinds(aligned) == {"RestoredTest:n/t", "RestoredCell:n/setup"}


def test_a_deleted_test_runs_after_its_answer() -> None:
    aligned = align(NOTEBOOK, (LOCKED, _own("f", "def f(): return 1"), TEXT, TASK, _own("#5", "del f")))
    assert [cell.key for cell in aligned.cells] == ["n/setup", "n/f", "n/t", "n/+4"]
    assert "DeletedCell:n/t" in _kinds(aligned)


def test_everything_deleted_still_runs_every_test() -> None:
    aligned = align(NOTEBOOK, ())
    assert [cell.test for cell in aligned.cells] == ["n/t"]
    assert aligned.answers == {"f": None, "why": None, "task": None}


def test_of_a_copied_answer_the_changed_copy_counts_and_a_copied_test_runs_once() -> None:
    changed = _own("f", "def f(): return 1")
    aligned = align(NOTEBOOK, (LOCKED, ANSWER, changed, TEST, TEST, TEXT, TASK))
    assert aligned.answers["f"] == changed.source
    assert [cell.test for cell in aligned.cells if cell.test] == ["n/t"]
    assert {"CopiedCell:n/f", "CopiedCell:n/t"} <= _kinds(aligned)


def test_a_retyped_cell_keeps_its_answer() -> None:
    aligned = align(NOTEBOOK, (LOCKED, ANSWER, TEST, _own("why", "because", "raw"), TASK))
    assert aligned.answers["why"] == "because"
    assert "RetypedCell:n/why" in _kinds(aligned)


def test_cells_without_marks_are_found_by_content_and_place() -> None:
    bare = [_own(f"#{i}", source, type_) for i, (source, type_) in enumerate([
        (LOCKED.source, "code"), ("def f():\n    return 1", "code"), (TEST.source, "code"),
        ("because it is", "markdown"), (TASK.source, "markdown"), ("my own work", "markdown"),
    ])]  # fmt: skip
    aligned = align(NOTEBOOK, bare)
    assert aligned.answers == {"f": "def f():\n    return 1", "why": "because it is", "task": "my own work"}
    assert [cell.test for cell in aligned.cells] == [None, None, "n/t"]
    assert "MatchedByPlace:n/f" in _kinds(aligned)


def test_a_huge_cell_without_its_mark_is_compared_by_its_beginning() -> None:
    huge = "".join(chr(0x4E00 + i * i % 997) for i in range(300_000))  # would take hours as a whole
    aligned = align(NOTEBOOK, (LOCKED, _own("#1", f"def f():\n    return 1 # {huge}"), _own("#2", huge), TEST))
    assert (aligned.answers["f"] or "").startswith("def f():")


def test_a_task_is_answered_in_the_cells_after_it() -> None:
    own = (_own("#6", "first", "markdown"), _own("#7", "1 + 1"))
    aligned = align(NOTEBOOK, (*RELEASE, *own))
    assert aligned.answers["task"] == "first\n\n1 + 1"


def test_a_second_copy_of_a_mark_on_foreign_code_does_not_hide_the_test() -> None:
    aligned = align(NOTEBOOK, (LOCKED, ANSWER, _own("t", "import os"), _own("t", TEST.source), TEXT, TASK))
    assert [cell.source for cell in aligned.cells if cell.test] == [HIDDEN.source]
    assert "import os" not in [cell.source for cell in aligned.cells]
