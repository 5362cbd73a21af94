"""A small class of our own: one notebook, one tested function, one reflection. For life stories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BLANK_CODE = "def square(n):\n    # YOUR CODE HERE\n    raise ValueError('not yet')"
BLANK_TEXT = "YOUR ANSWER HERE"
GOOD_CODE = "def square(n):\n    return n * n"
WRONG_CODE = "def square(n):\n    return n + n"
SLOW_CODE = "import time\ndef square(n):\n    time.sleep({seconds})\n    return n * n"
GOOD_TEXT = "The loop runs once for each number, so twice the numbers take twice the time."
TEST_CODE = "assert square(3) == 9\nassert square(-2) == 4"


def laid_out(files: Mapping[str, bytes], folder: Path) -> Path:
    """The files below a folder that is made for them; returns it."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def notebook(code: str, text: str) -> bytes:
    """The class's notebook with these two answers."""
    cells = [
        new_code_cell(code, metadata={"nbgrader": _marks("square", is_solution=True)}),
        new_code_cell(TEST_CODE, metadata={"nbgrader": _marks("square_test", is_test=True)}),
        new_markdown_cell(text, metadata={"nbgrader": _marks("reflection", is_solution=True)}),
    ]
    made = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    return nbformat.writes(made).encode()


def bundle(*, total: float = 4) -> dict[str, bytes]:
    """The bundle's files; another `total` than 4 is a rubric that does not add up."""
    assignment = {
        "name": "squares",
        "total": total,
        "judging": {"quoteCharacters": 40, "commentCharacters": 60},
        "notebooks": [{"name": "squares", "release": "release/squares.ipynb", "solution": "solution/squares.ipynb"}],
        "rubric": [
            {
                "id": "style",
                "points": 1,
                "judge": "code",
                "cells": ["squares/square"],
                "question": "Is the function short and clear?",
            },
            {
                "id": "reflection",
                "points": 1,
                "judge": "feedback",
                "cells": ["squares/reflection"],
                "question": "Does the answer give a reason?",
            },
        ],
    }
    return {
        "assignment.yaml": yaml.safe_dump(assignment, sort_keys=False).encode(),
        "release/squares.ipynb": notebook(BLANK_CODE, BLANK_TEXT),
        "solution/squares.ipynb": notebook(GOOD_CODE, GOOD_TEXT),
    }


def submissions(answers: dict[str, bytes]) -> dict[str, bytes]:
    """One folder per student; a value is the student's notebook file."""
    return {f"{student}/squares.ipynb": content for student, content in answers.items()}


def good_class(size: int) -> dict[str, bytes]:
    """`size` students with right answers of their own."""
    return submissions(
        {f"student-{n:03d}": notebook(f"{GOOD_CODE}  # take {n}", f"{GOOD_TEXT} ({n})") for n in range(size)}
    )


def _marks(grade_id: str, *, is_solution: bool = False, is_test: bool = False) -> dict[str, Any]:
    return {
        "schema_version": 3,
        "grade_id": grade_id,
        "solution": is_solution,
        "grade": is_test or grade_id == "reflection",
        "locked": is_test,
        "task": False,
        "points": 2 if is_test else 1,
    }
