"""Check: automatic tests and their points, from executed cells. A test without a clean run earns nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from espalier_grading.model import CellResult, NotebookResult, TestResult


def check(points: Mapping[str, float], results: Iterable[NotebookResult]) -> tuple[TestResult, ...]:
    """One result for each test of the bundle, in its order; a test that never ran has the reason NotRun."""
    ran = {cell.key: cell for result in results for cell in result.cells}
    return tuple(_test(test, worth, ran.get(test)) for test, worth in points.items())


def _test(test: str, worth: float, cell: CellResult | None) -> TestResult:
    if cell is None:
        return TestResult(id=test, points=worth, earned=0.0, reason="NotRun")
    return TestResult(id=test, points=worth, earned=0.0 if cell.reason else worth, reason=cell.reason)
