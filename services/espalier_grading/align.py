"""Align a student's cells to the release: by grade_id, else by content, else by position; tests always from the bundle.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from espalier_grading.bundle import Cell, Notebook, Role
from espalier_grading.model import Finding, RunCell

MIN_SIMILARITY = 0.5
"""Below this ratio a cell without a grade_id between the right neighbours is not taken for the answer of another type.
"""
MAX_COMPARED = 2000
"""Characters of each text whose similarity is measured: the measure takes time by the square, and students write it."""
MAX_CANDIDATES = 200
"""Cells that are compared with one that lost its mark."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """`cells` to run in the student's order; `answers` by release key, None where the answer is gone."""

    cells: tuple[RunCell, ...]
    answers: dict[str, str | None]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Matching:
    """Which student cell stands for which release cell, while it is being worked out."""

    by_key: dict[str, int] = field(default_factory=dict)
    by_index: dict[int, str] = field(default_factory=dict)
    copies: dict[int, str] = field(default_factory=dict)

    def add(self, key: str, index: int) -> None:
        self.by_key[key] = index
        self.by_index[index] = key

    def is_free(self, index: int) -> bool:
        return index not in self.by_index and index not in self.copies


def align(notebook: Notebook, student: Sequence[Cell]) -> Aligned:
    """The student's notebook against the bundle's; pure."""
    findings: list[Finding] = []
    matching = _match(notebook.release, student, findings=findings, name=notebook.name)
    cells = _run_cells(notebook, student, matching=matching, findings=findings)
    return Aligned(tuple(cells), _answers(notebook, student, matching=matching), tuple(findings))


def is_same(a: str, b: str) -> bool:
    """Whether two sources differ in white space only."""
    return a.split() == b.split()


def _match(release: Sequence[Cell], student: Sequence[Cell], *, findings: list[Finding], name: str) -> _Matching:
    matching = _Matching()
    for cell in release:
        _match_by_id(cell, student, matching=matching, findings=findings, name=name)
    for cell in release:
        if cell.key not in matching.by_key:
            _match_by_content(cell, release, student, matching=matching)
    for cell in release:
        if cell.key in matching.by_key or cell.role is Role.PLAIN:
            continue
        if cell.role is Role.ANSWER and _match_by_place(cell, release, student, matching=matching):
            findings.append(
                _finding("MatchedByPlace", name, cell.key, "the cell lost its mark; its place was taken instead")
            )
        else:
            findings.append(_finding("DeletedCell", name, cell.key, f"the {cell.role.value} cell was deleted"))
    return matching


def _match_by_id(
    cell: Cell, student: Sequence[Cell], *, matching: _Matching, findings: list[Finding], name: str
) -> None:
    if cell.key.startswith("#"):
        return
    candidates = [index for index, other in enumerate(student) if other.key == cell.key]
    if not candidates:
        return
    best = max(
        candidates, key=lambda i: (student[i].type == cell.type, not is_same(student[i].source, cell.source), -i)
    )
    if cell.role is not Role.ANSWER:
        best = candidates[0]
    matching.add(cell.key, best)
    if len(candidates) > 1:
        matching.copies.update({index: cell.key for index in candidates if index != best})
        findings.append(
            _finding("CopiedCell", name, cell.key, f"the cell is there {len(candidates)} times; one counts")
        )
    if student[best].type != cell.type:
        findings.append(
            _finding("RetypedCell", name, cell.key, f"the cell was {cell.type} and is {student[best].type}")
        )


def _match_by_content(cell: Cell, release: Sequence[Cell], student: Sequence[Cell], *, matching: _Matching) -> None:
    low, high = _neighbours(cell, release, matching=matching, end=len(student))
    same = [
        i
        for i, other in enumerate(student)
        if matching.is_free(i) and is_same(other.source, cell.source) and other.source.strip()
    ]
    between = [index for index in same if low < index < high]
    if between or same:
        matching.add(cell.key, (between or same)[0])


def _match_by_place(cell: Cell, release: Sequence[Cell], student: Sequence[Cell], *, matching: _Matching) -> bool:
    low, high = _neighbours(cell, release, matching=matching, end=len(student))
    free = [
        i
        for i in range(low + 1, high)
        if matching.is_free(i) and student[i].key.startswith("#") and student[i].source.strip()
    ][:MAX_CANDIDATES]
    ratios = {i: _similarity(cell.source, student[i].source) for i in free}
    fitting = [i for i in free if student[i].type == cell.type or ratios[i] >= MIN_SIMILARITY]
    if not fitting:
        return False
    matching.add(cell.key, max(fitting, key=lambda i: (student[i].type == cell.type, ratios[i], -i)))
    return True


def _similarity(ours: str, theirs: str) -> float:
    return difflib.SequenceMatcher(None, ours[:MAX_COMPARED], theirs[:MAX_COMPARED]).ratio()


def _neighbours(cell: Cell, release: Sequence[Cell], *, matching: _Matching, end: int) -> tuple[int, int]:
    """Student indices of the nearest matched release cells before and after."""
    position = release.index(cell)
    before = [matching.by_key[c.key] for c in release[:position] if c.key in matching.by_key]
    after = [matching.by_key[c.key] for c in release[position + 1 :] if c.key in matching.by_key]
    return (before[-1] if before else -1), (after[0] if after else end)


def _run_cells(
    notebook: Notebook, student: Sequence[Cell], *, matching: _Matching, findings: list[Finding]
) -> Iterable[RunCell]:
    tests = notebook.tests()
    late = _missing_tests(notebook, matching=matching)
    cells: list[RunCell] = [_test(notebook.name, tests[key]) for key in late.get(-1, ())]
    for index, cell in enumerate(student):
        cells += _placed(notebook, cell, index=index, matching=matching, findings=findings)
        cells += [_test(notebook.name, tests[key]) for key in late.get(index, ())]
    return cells


def _placed(
    notebook: Notebook, cell: Cell, *, index: int, matching: _Matching, findings: list[Finding]
) -> list[RunCell]:
    """What runs in the place of one student cell."""
    tests = notebook.tests()
    key = matching.by_index.get(index, matching.copies.get(index))
    release = notebook.cell(key) if key else None
    if release is not None and key in tests:
        if index in matching.copies:
            return []
        if not is_same(cell.source, release.source):
            findings.append(
                _finding("RestoredTest", notebook.name, release.key, "the test was changed; the original ran instead")
            )
        return [_test(notebook.name, tests[release.key])]
    if release is not None and release.role is Role.LOCKED and release.is_code:
        if not is_same(cell.source, release.source):
            findings.append(
                _finding(
                    "RestoredCell", notebook.name, release.key, "a locked cell was changed; the original ran instead"
                )
            )
        return [RunCell(key=f"{notebook.name}/{release.key}", source=release.source)]
    if not cell.is_code or not cell.source.strip():
        return []
    return [RunCell(key=f"{notebook.name}/{release.key if release else f'+{index}'}", source=cell.source)]


def _missing_tests(notebook: Notebook, *, matching: _Matching) -> dict[int, list[str]]:
    """Tests without a cell of the student's, by the student index they run after."""
    late: dict[int, list[str]] = {}
    order = [cell.key for cell in notebook.release]
    for key in notebook.tests():
        if key in matching.by_key:
            continue
        before = order[: order.index(key)] if key in order else order
        places = [matching.by_key[k] for k in before if k in matching.by_key]
        late.setdefault(max(places, default=-1), []).append(key)
    return late


def _answers(notebook: Notebook, student: Sequence[Cell], *, matching: _Matching) -> dict[str, str | None]:
    answers: dict[str, str | None] = {}
    for cell in notebook.release:
        if cell.role is Role.TASK:
            answers[cell.key] = _after_task(cell.key, student, matching=matching)
        elif cell.role is Role.ANSWER:
            index = matching.by_key.get(cell.key)
            answers[cell.key] = None if index is None else student[index].source
    return answers


def _after_task(key: str, student: Sequence[Cell], *, matching: _Matching) -> str | None:
    """A task is answered in the student's own cells after it, up to the next cell of the release."""
    if key not in matching.by_key:
        return None
    own: list[str] = []
    for index in range(matching.by_key[key] + 1, len(student)):
        if not matching.is_free(index):
            break
        own.append(student[index].source)
    return "\n\n".join(text for text in own if text.strip())


def _test(name: str, cell: Cell) -> RunCell:
    return RunCell(key=f"{name}/{cell.key}", source=cell.source, test=f"{name}/{cell.key}")


def _finding(kind: str, name: str, key: str, message: str) -> Finding:
    return Finding(kind=kind, where=f"{name}/{key}", message=message)
