"""Reading a bundle: every fault is a sentence, and all faults come at once."""

from __future__ import annotations

import pytest
import yaml

from espalier_grading import bundle
from espalier_grading.archive import write_tar
from espalier_grading.bundle import Role
from espalier_kit.execution import EvaluatorFault
from tests.support import classroom


def test_tests_come_from_the_solution_with_their_points() -> None:
    parsed = bundle.parse(write_tar(classroom.bundle()))
    assert parsed.tests() == {"squares/square_test": 2.0}
    cell = parsed.release_cell("squares/reflection")
    assert cell is not None
    assert cell.role is Role.ANSWER


def _assignment(**changes: object) -> dict[str, bytes]:
    files = classroom.bundle()
    content = yaml.safe_load(files["assignment.yaml"]) | changes
    return {**files, "assignment.yaml": yaml.safe_dump(content).encode()}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param({}, "no assignment.yaml", id="no-assignment"),
        pytest.param({"assignment.yaml": b"a: [1"}, "is not YAML", id="no-yaml"),
        pytest.param({"assignment.yaml": b"- 1"}, "must be a mapping", id="no-mapping"),
        pytest.param(_assignment(totl=4), "unknown key; did you mean total?", id="typing-error"),
        pytest.param(_assignment(colour="red"), "unknown key; remove it", id="unknown-key"),
        pytest.param(_assignment(total=-1), "total", id="negative-total"),
        pytest.param(_assignment(data=[{"path": "x.csv", "sha256": "0" * 64}]), "data file x.csv is not", id="no-data"),
        pytest.param(
            {**_assignment(), "release/squares.ipynb": b"{}"}, "is not a Jupyter notebook", id="broken-notebook"
        ),
    ],
)
def test_a_bundle_that_cannot_be_read_is_rejected_with_a_sentence(files: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(EvaluatorFault, match=r".") as caught:
        bundle.parse(write_tar(files))
    assert caught.value.reason == "BundleRejected"
    assert sentence in str(caught.value)


def test_bytes_that_are_no_tar_are_rejected() -> None:
    with pytest.raises(EvaluatorFault, match="not a readable tar"):
        bundle.parse(b"hello")
