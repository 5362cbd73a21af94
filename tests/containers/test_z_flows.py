"""Runs after every test that records flows, and judges them all: it means something only when the whole lane ran."""

from __future__ import annotations

import pytest

from tests.support.flows import UNUSED, declared_pairs, unproven, used_by_all

pytestmark = pytest.mark.cluster


def test_every_declared_edge_was_used_by_some_test_or_has_a_reason() -> None:
    problems = unproven(declared_pairs(), used_by_all(), excused=UNUSED)
    assert not problems, "\n".join(problems)
