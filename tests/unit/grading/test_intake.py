"""Intake: pseudonyms, broken and missing notebooks, what a judge may see."""

from __future__ import annotations

import unicodedata

import nbformat
import pytest

from espalier_grading import bundle
from espalier_grading.archive import write_tar
from espalier_grading.intake import MAX_NOTEBOOK_BYTES, USER_REASONS, prepare, pseudonyms, redact
from espalier_grading.report import Class, report_files
from espalier_grading.score import grade
from espalier_kit.execution import Outcome, TaskState, UserFault
from tests.support import classroom

BUNDLE = bundle.parse(write_tar(classroom.bundle()))


def _prepare(files: dict[str, bytes], folder: str = "student-ann"):  # type: ignore[no-untyped-def]
    return prepare(BUNDLE, write_tar(files), pseudonym="s-1", folder=folder)


def test_pseudonyms_are_stable_within_a_job_and_differ_between_jobs() -> None:
    one = pseudonyms(["ann", "ben"], job_uid="1")
    assert one == pseudonyms(["ben", "ann"], job_uid="1")
    assert set(one.values()).isdisjoint(pseudonyms(["ann", "ben"], job_uid="2").values())
    assert len(set(one.values())) == 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({"squares.ipynb": b"this is no notebook"}, "NotANotebook", id="text"),
        pytest.param({"squares.ipynb": b"\xff\xfe"}, "NotANotebook", id="bytes"),
        pytest.param(
            {"squares.ipynb": b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5}'}, "NotANotebook", id="cells"
        ),
        pytest.param({"squares.ipynb": b"[" * 100_000}, "NotANotebook", id="nesting"),
        pytest.param({"other.ipynb": b""}, "NoNotebook", id="missing"),
    ],
)
def test_what_cannot_be_graded_is_the_submissions_own_fault(files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(UserFault) as caught:
        _prepare(files)
    assert caught.value.reason == reason
    assert reason in USER_REASONS


def test_a_submission_that_is_no_tar_is_not_gradable() -> None:
    with pytest.raises(UserFault, match="not a readable tar"):
        prepare(BUNDLE, b"zip", pseudonym="s-1", folder="x")


def test_half_characters_in_a_notebook_are_replaced() -> None:
    good = classroom.notebook(classroom.GOOD_CODE, "because HALF").replace(b"HALF", b"\\ud800")
    prepared = _prepare({"squares.ipynb": good})
    assert prepared.answers[1].text == "because ?"
    assert prepared.model_dump_json()


def test_the_shallowest_notebook_of_that_name_counts() -> None:
    good = classroom.notebook(classroom.GOOD_CODE, "because")
    prepared = _prepare({"old/deep/squares.ipynb": b"broken", "ps/squares.ipynb": good})
    assert [answer.is_unchanged for answer in prepared.answers] == [False, False]


def test_the_blank_release_has_only_unchanged_answers() -> None:
    prepared = _prepare({"squares.ipynb": classroom.notebook(classroom.BLANK_CODE, classroom.BLANK_TEXT)})
    assert all(answer.is_unchanged for answer in prepared.answers)


def test_judges_see_neither_the_students_name_nor_invisible_characters() -> None:
    text = "by Student-Ann:\u202e be\u200bcause\x00"
    prepared = _prepare({"squares.ipynb": classroom.notebook(classroom.GOOD_CODE, text)})
    (answer,) = [a for a in prepared.answers if a.cell == "squares/reflection"]
    assert answer.text == "by s-1: because"
    assert answer.flags == ("invisible characters",)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["Anna_Müller", "ANNA_MÜLLER", "Anna_Mu\u200b\u0308ller"])
def test_a_name_is_found_in_whatever_form_the_file_system_kept_it(form: str, written: str) -> None:
    folder = unicodedata.normalize(form, "Anna_Müller")  # type: ignore[arg-type]
    assert redact(f"by {written}", folder=folder, pseudonym="s-1") == "by s-1"


@pytest.mark.parametrize("written", ["Anna Müller", "anna.müller", "Müller, Anna", "AnnaMüller", "Müller-Anna"])
def test_a_name_of_several_words_is_found_as_people_write_it(written: str) -> None:
    assert redact(f"by {written}!", folder="Anna_Müller", pseudonym="s-1") == "by s-1!"


@pytest.mark.parametrize(
    ("text", "folder"), [("algorithm", "al_go"), ("x 1 and ps 1", "x_1_ps"), ("Anna and Müller", "Anna_Müller")]
)
def test_what_only_resembles_a_name_stays(text: str, folder: str) -> None:
    assert redact(text, folder=folder, pseudonym="s-1") == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param({"squares.ipynb": b"Anna_M\xc3\xbcller, homework 1"}, "NotANotebook", id="text"),
        pytest.param({"squares.ipynb": b" " * (MAX_NOTEBOOK_BYTES + 1)}, "NotebookTooLarge", id="large"),
        pytest.param({f"{n}.txt": b"" for n in range(2001)}, "BadArchive", id="many files"),
    ],
)
def test_no_report_but_the_restricted_one_quotes_a_submissions_path(content: dict[str, bytes], reason: str) -> None:
    files = {f"Anna_Müller/{name}": data for name, data in content.items()}
    with pytest.raises(UserFault) as caught:
        _prepare(files, folder="s1")
    ended = {"intake": Outcome(TaskState.FAILED, reason=caught.value.reason, message=str(caught.value))}
    graded = grade(BUNDLE, ended, pseudonym="s-1", scale=37.5, now=9.0)
    made = report_files(Class(job="ps1", title="ps1", scale=37.5, graded=(graded,), names={"s-1": "Anna_Müller"}))
    assert (graded.state, graded.reason) == ("notGradable", reason)
    told = {name for name, data in made.items() if "Anna" in data.decode()}
    assert told == {"restricted/names.json", "restricted/grades.csv"}


def test_a_short_name_is_not_replaced_inside_words() -> None:
    assert redact("an algorithm", folder="al", pseudonym="s-1") == "an algorithm"


def test_outputs_and_metadata_stay_behind() -> None:
    notebook = nbformat.reads(classroom.notebook(classroom.GOOD_CODE, "because").decode(), as_version=4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="ALL TESTS PASSED")]
    notebook.metadata["grade"] = "A"
    prepared = _prepare({"squares.ipynb": nbformat.writes(notebook).encode()})
    assert "PASSED" not in prepared.model_dump_json()
    assert '"A"' not in prepared.model_dump_json()
