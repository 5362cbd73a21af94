"""`espalier demo`: the real course, the real model, every figure checked by the command itself."""

from __future__ import annotations

import pytest

from espalier_local.cluster import Cluster
from tests.support.demo import demonstrated

pytestmark = pytest.mark.timeout(900)


def test_the_demo_grades_the_real_course_and_checks_its_own_figures(released: Cluster) -> None:
    assert "submissions run in a sandbox on the worker's own machine" in demonstrated(released.name)
