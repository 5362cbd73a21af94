"""The linter: what contradicts itself in a bundle, as sentences; all of it at once, before any submission is opened."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from espalier_api.tasks import GradingSettings, Judge
from espalier_grading.bundle import FILE, Bundle, Criterion, Notebook, Role
from espalier_grading.model import TestResult
from espalier_kit.digest import sha256

CHARACTERS_PER_TOKEN = 2.0
"""Worst case of the tokenizers we serve on JSON with short keys; measured 2.2 with SmolLM2's on such verdicts."""


def lint(bundle: Bundle, settings: GradingSettings) -> list[str]:
    """Every finding about a bundle by itself and with its job; empty if it is sound. Pure."""
    return [
        *_sums(bundle),
        *_sections(bundle),
        *_scale(bundle, settings),
        *_notebooks(bundle),
        *_criteria(bundle),
        *_data(bundle),
        *_room(bundle, settings),
    ]


def lint_runs(solution: list[TestResult], blank: list[TestResult]) -> list[str]:
    """Findings of the self-test: the solution passes every automatic test, the blank template none."""
    failed = [f"the solution fails its own test {test.id} ({test.reason})" for test in solution if test.reason]
    passed = [
        f"the blank template passes test {test.id}: it would give points for nothing"
        for test in blank
        if not test.reason
    ]
    return failed + passed


def worst_verdict(criteria: tuple[Criterion, ...], *, quote: int, comment: int | None) -> str:
    """The longest answer that a judge's schema allows."""
    answer: dict[str, object] = {
        str(number): {"v": "CANNOT_ASSESS", "q": "x" * quote, "c": str(len(criterion.cells))}
        for number, criterion in enumerate(criteria, 1)
    }
    if comment is not None:
        answer["comment"] = "x" * comment
    return json.dumps(answer)


def _sums(bundle: Bundle) -> list[str]:
    tests = sum(bundle.tests().values())
    rubric = sum(criterion.points for criterion in bundle.assignment.rubric)
    total = bundle.assignment.total
    if math.isclose(tests + rubric, total, abs_tol=1e-6):
        return []
    return [f"points do not add up: tests {tests:g} + rubric {rubric:g} = {tests + rubric:g}, but total is {total:g}"]


def _sections(bundle: Bundle) -> list[str]:
    assignment = bundle.assignment
    if not assignment.sections:
        used = sorted({c.section for c in assignment.rubric if c.section} | set(assignment.tests.values()))
        return [f"section {name} is used but not declared" for name in used]
    points = bundle.tests()
    sums: defaultdict[str, float] = defaultdict(float)
    findings = []
    for criterion in assignment.rubric:
        if criterion.section is None:
            findings.append(f"criterion {criterion.id} names no section")
        sums[criterion.section or ""] += criterion.points
    for test, section in assignment.tests.items():
        if test not in points:
            findings.append(f"tests: {test} is no test of the notebooks")
        sums[section] += points.get(test, 0)
    findings += [f"test {test} is in no section" for test in points if test not in assignment.tests]
    declared = {section.id: section.points for section in assignment.sections}
    findings += [f"section {name} is used but not declared" for name in sums if name and name not in declared]
    for name, wished in declared.items():
        if not math.isclose(sums[name], wished, abs_tol=1e-6):
            findings.append(
                f"section {name} declares {wished:g} points, but its tests and criteria sum to {sums[name]:g}"
            )
    return findings


def _scale(bundle: Bundle, settings: GradingSettings) -> list[str]:
    wished = bundle.assignment.scale
    if wished is None or math.isclose(wished, settings.scale_points, abs_tol=1e-6):
        return []
    return [f"the bundle is made for a scale of {wished:g}, but spec.scale.points is {settings.scale_points:g}"]


def _notebooks(bundle: Bundle) -> list[str]:
    findings = [
        f"notebook {name} is named {count} times" for name, count in _repeated(n.name for n in bundle.notebooks)
    ]
    for notebook in bundle.notebooks:
        findings += _cells(notebook)
    return findings


def _cells(notebook: Notebook) -> list[str]:
    keys = [cell.key for cell in notebook.release if not cell.key.startswith("#")]
    findings = [f"notebook {notebook.name}: grade_id {key} is there {count} times" for key, count in _repeated(keys)]
    solved = {cell.key for cell in notebook.solution}
    for cell in notebook.release:
        if cell.role is Role.TEST and cell.key not in solved:
            findings.append(f"notebook {notebook.name}: test {cell.key} of the release is not in the solution")
    findings += [
        f"notebook {notebook.name}: test {key} has no points"
        for key, cell in notebook.tests().items()
        if cell.points <= 0
    ]
    return findings


def _criteria(bundle: Bundle) -> list[str]:
    rubric = bundle.assignment.rubric
    tests = bundle.tests()
    findings = [f"criterion {name} is there {count} times" for name, count in _repeated(c.id for c in rubric)]
    for criterion in rubric:
        for path in criterion.cells:
            cell = bundle.release_cell(path)
            if cell is None or cell.role not in (Role.ANSWER, Role.TASK):
                findings.append(f"criterion {criterion.id}: {path} is no answer cell of the release")
        findings += [
            f"criterion {criterion.id}: cappedBy {test} is no test" for test in criterion.capped_by if test not in tests
        ]
        findings += [
            f"criterion {criterion.id}: credit {level} must be between 0 and 1"
            for level, share in criterion.credit.items()
            if not 0 <= share <= 1
        ]
        if criterion.credit.get("UNMET", 0) or criterion.credit.get("CANNOT_ASSESS", 0):
            findings.append(
                f"criterion {criterion.id}: UNMET and CANNOT_ASSESS earn nothing, or blank work would score"
            )
    return findings


def _data(bundle: Bundle) -> list[str]:
    return [
        f"data file {entry.path} has sha256 {sha256(bundle.data[entry.path])}, but {FILE} says {entry.sha256}"
        for entry in bundle.assignment.data
        if sha256(bundle.data[entry.path]) != entry.sha256
    ]


def _room(bundle: Bundle, settings: GradingSettings) -> list[str]:
    """Whether the longest verdict fits the judge's maxTokens: one cut short is no JSON."""
    bounds = bundle.assignment.judging
    findings = []
    judges: tuple[tuple[Judge, int, int | None], ...] = (
        ("code", settings.code.max_tokens, None),
        ("feedback", settings.feedback.max_tokens, bounds.comment_characters),
    )
    for judge, room, comment in judges:
        criteria = bundle.criteria(judge)
        if not criteria:
            continue
        needed = math.ceil(
            len(worst_verdict(criteria, quote=bounds.quote_characters, comment=comment)) / CHARACTERS_PER_TOKEN
        )
        if needed > room:
            findings.append(
                f"the {judge} judge's longest verdict needs about {needed} tokens, "
                f"but models.{judge}.maxTokens is {room}: "
                f"raise it, or lower judging.quoteCharacters or commentCharacters"
            )
    return findings


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]
