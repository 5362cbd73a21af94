"""nbgrader's own example course as a bundle: real notebooks with known results, read in place from the installed wheel.

`pip install --no-deps nbgrader==0.9.6`. Its `grades.csv` gives the raw scores: bitdiddle 1.5, hacker 3.0; the tests sum
to 3.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from espalier_grading.archive import write_tar
from espalier_kit.errors import NotFound

STUDENTS = ("bitdiddle", "hacker")
BLANK = "blank"
TESTS = {"bitdiddle": 1.5, "hacker": 3.0, BLANK: 0.0}
"""Test points of 3 that each submission must get: nbgrader's own numbers, and nothing for the untouched release."""
_NOTEBOOKS = ("problem1", "problem2")


def bundle() -> bytes:
    """The assignment's tar: our `assignment.yaml` beside the wheel's release and reference solution."""
    guide = _guide()
    content = {"assignment.yaml": files("espalier_grading").joinpath("course.yaml").read_bytes()}
    for name in _NOTEBOOKS:
        content[f"release/{name}.ipynb"] = (guide / "release/ps1" / f"{name}.ipynb").read_bytes()
        content[f"solution/{name}.ipynb"] = (guide / "source/ps1" / f"{name}.ipynb").read_bytes()
    return write_tar(content)


def submissions() -> bytes:
    """The class's tar: the wheel's two students and the untouched release as `blank`."""
    guide = _guide()
    sources = {student: guide / "submitted" / student / "ps1" for student in STUDENTS} | {BLANK: guide / "release/ps1"}
    return write_tar(
        {
            f"{student}/{name}.ipynb": (folder / f"{name}.ipynb").read_bytes()
            for student, folder in sources.items()
            for name in _NOTEBOOKS
        }
    )


def _guide() -> Path:
    try:
        return Path(str(distribution("nbgrader").locate_file("nbgrader/docs/source/user_guide")))
    except PackageNotFoundError as error:
        raise NotFound(
            "nbgrader 0.9.6 is not installed: pip install --no-deps nbgrader==0.9.6", reason="NotFound"
        ) from error
