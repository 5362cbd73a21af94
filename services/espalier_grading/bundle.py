"""The assignment bundle: `assignment.yaml` typed, its notebooks read, its tests found. Reads bytes, decides nothing."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import nbformat
import yaml
from pydantic import Field, ValidationError

from espalier_api.meta import Model
from espalier_api.tasks import Judge
from espalier_grading.archive import read_tar
from espalier_grading.model import Level
from espalier_kit.errors import Permanent
from espalier_kit.execution import EvaluatorFault

FILE = "assignment.yaml"
_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class NotebookFiles(Model):
    """One notebook of the assignment: what students got and what a full answer looks like, tests included."""

    name: str = Field(pattern=_ID, description="The submission's file name without .ipynb.")
    release: str
    solution: str
    kernel: str = Field(default="python3", pattern=_ID)


class DataFile(Model):
    """A file that notebooks read by this relative path."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Section(Model):
    """A part of the rubric whose points are declared, so that a sum that went wrong is found."""

    id: str = Field(pattern=_ID)
    title: str = ""
    points: float = Field(gt=0)


class Criterion(Model):
    """One question to one judge about one or more cells."""

    id: str = Field(pattern=_ID)
    points: float = Field(gt=0)
    judge: Judge
    cells: tuple[str, ...] = Field(min_length=1, description="`notebook/grade_id` of the cells that hold the answer.")
    question: str = Field(min_length=1, max_length=2000)
    levels: dict[Level, str] = Field(default_factory=dict, description="What each level means here.")
    credit: dict[Level, float] = Field(
        default_factory=dict, description="Share of the points; default MET 1, PARTIAL 0.5, UNMET 0."
    )
    reference: str = Field(default="", max_length=4000)
    section: str | None = None
    capped_by: tuple[str, ...] = Field(
        default=(), description="Tests: the criterion earns no larger share than they do."
    )


class Judging(Model):
    """Bounds of what a judge writes and reads, in characters."""

    quote_characters: int = Field(default=80, ge=8, le=400)
    comment_characters: int = Field(default=400, ge=20, le=4000)
    answer_characters: int = Field(default=6000, ge=100, le=100_000)


class Assignment(Model):
    """`assignment.yaml`."""

    name: str = Field(pattern=_ID)
    title: str = ""
    subject: str = Field(default="programming", max_length=100)
    total: float = Field(gt=0, description="Sum of all tests' and criteria's points.")
    scale: float | None = Field(default=None, gt=0, description="If set, the job's spec.scale.points must be this.")
    notebooks: tuple[NotebookFiles, ...] = Field(min_length=1, max_length=50)
    data: tuple[DataFile, ...] = ()
    sections: tuple[Section, ...] = ()
    tests: dict[str, str] = Field(default_factory=dict, description="Section of each test, by `notebook/grade_id`.")
    rubric: tuple[Criterion, ...] = ()
    judging: Judging = Judging()


class Role(StrEnum):
    """What a cell of the release is for. From the bundle's own metadata, never from a student's."""

    TEST = "test"
    ANSWER = "answer"
    TASK = "task"
    LOCKED = "locked"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a notebook. `key` is its grade_id, or `#n` by position."""

    key: str
    type: str
    source: str
    role: Role
    points: float = 0.0

    @property
    def is_code(self) -> bool:
        return self.type == "code"


@dataclass(frozen=True, slots=True)
class Notebook:
    """One notebook of the bundle, read."""

    name: str
    kernel: str
    release: tuple[Cell, ...]
    solution: tuple[Cell, ...]

    def tests(self) -> dict[str, Cell]:
        """The automatic tests by grade_id, in order; the solution's version, hidden parts included."""
        return {cell.key: cell for cell in self.solution if cell.role is Role.TEST}

    def cell(self, key: str) -> Cell | None:
        """The release's cell of that grade_id."""
        return next((cell for cell in self.release if cell.key == key), None)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An assignment with its notebooks and data files."""

    assignment: Assignment
    notebooks: tuple[Notebook, ...]
    data: Mapping[str, bytes]

    def tests(self) -> dict[str, float]:
        """Points of every automatic test by `notebook/grade_id`."""
        return {
            f"{notebook.name}/{key}": cell.points
            for notebook in self.notebooks
            for key, cell in notebook.tests().items()
        }

    def criteria(self, judge: Judge) -> tuple[Criterion, ...]:
        """The criteria of one judge, in the rubric's order; their numbers in prompts are these positions from 1."""
        return tuple(criterion for criterion in self.assignment.rubric if criterion.judge == judge)

    def release_cell(self, path: str) -> Cell | None:
        """The release's cell by `notebook/grade_id`."""
        name, _, key = path.partition("/")
        return next((notebook.cell(key) for notebook in self.notebooks if notebook.name == name), None)


def rejected(findings: list[str]) -> EvaluatorFault:
    """The fault that lists every finding."""
    return EvaluatorFault("; ".join(findings), reason="BundleRejected")


def parse(data: bytes) -> Bundle:
    """A bundle from its tar. Raises `EvaluatorFault` (BundleRejected) with a sentence for each thing that cannot be
    read.
    """
    try:
        files = read_tar(data)
    except Permanent as error:
        raise rejected([f"the bundle is {error}"]) from error
    assignment = _assignment(files)
    findings: list[str] = []
    notebooks = tuple(_notebook(entry, files, findings) for entry in assignment.notebooks)
    missing = [entry.path for entry in assignment.data if entry.path not in files]
    findings += [f"data file {path} is not in the bundle" for path in missing]
    if findings:
        raise rejected(findings)
    return Bundle(assignment, notebooks, {entry.path: files[entry.path] for entry in assignment.data})


def read_notebook(data: bytes) -> Any:
    """A notebook in the current format. Raises `Permanent` (NotANotebook) with a sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing cell ids and the like: we need none
            notebook = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
        if not all(isinstance(cell.source, str) and cell.cell_type for cell in notebook.cells):
            raise ValueError("a cell has no source")
        return notebook
    except Exception as error:  # nbformat raises whatever its parts do: JSON, schema and key errors
        raise Permanent(
            f"it is not a Jupyter notebook ({type(error).__name__}: {str(error)[:200]})", reason="NotANotebook"
        ) from error


def cells_of(notebook: Any) -> tuple[Cell, ...]:
    """The cells with their roles from nbgrader's metadata."""
    return tuple(_cell(index, cell) for index, cell in enumerate(notebook.cells))


def _assignment(files: Mapping[str, bytes]) -> Assignment:
    if FILE not in files:
        raise rejected([f"the bundle has no {FILE} at its top"])
    try:
        content = yaml.safe_load(files[FILE])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise rejected([f"{FILE} is not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise rejected([f"{FILE} must be a mapping with name, total and notebooks"])
    try:
        return Assignment.model_validate(content)
    except ValidationError as error:
        raise rejected([_sentence(item) for item in error.errors()]) from error


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{FILE}: {where}: {error['msg']}"
    known = [
        field.alias or name
        for model in (Assignment, Criterion, NotebookFiles, Section, DataFile, Judging)
        for name, field in model.model_fields.items()
    ]
    close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; remove it"
    return f"{FILE}: {where}: unknown key{hint}"


def _notebook(entry: NotebookFiles, files: Mapping[str, bytes], findings: list[str]) -> Notebook:
    read: dict[str, tuple[Cell, ...]] = {}
    for part, path in (("release", entry.release), ("solution", entry.solution)):
        read[part] = ()
        if path not in files:
            findings.append(f"notebook {entry.name}: its {part} {path} is not in the bundle")
            continue
        try:
            read[part] = cells_of(read_notebook(files[path]))
        except Permanent as error:
            findings.append(f"notebook {entry.name}: {path}: {error}")
    return Notebook(entry.name, entry.kernel, read["release"], read["solution"])


def _cell(index: int, cell: Any) -> Cell:
    meta = cell.get("metadata", {}).get("nbgrader", {})
    if not isinstance(meta, dict):
        meta = {}
    key = str(meta.get("grade_id") or f"#{index}").encode(errors="replace").decode()
    points = meta.get("points", 0)
    return Cell(
        key=key,
        type=cell.cell_type,
        source=cell.source.encode(errors="replace").decode(),  # JSON may hold half characters; nothing else can
        role=_role(cell.cell_type, meta),
        points=float(points) if isinstance(points, int | float) else 0.0,
    )


def _role(cell_type: str, meta: Mapping[str, Any]) -> Role:
    if meta.get("task"):
        return Role.TASK
    if meta.get("grade") and not meta.get("solution"):
        return Role.TEST if cell_type == "code" else Role.LOCKED
    if meta.get("solution"):
        return Role.ANSWER
    return Role.LOCKED if meta.get("locked") else Role.PLAIN
