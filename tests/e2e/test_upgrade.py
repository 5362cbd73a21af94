"""A job in the middle of `helm upgrade` from the chart before this one, `helm test` and `helm rollback`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import JOB_NAMESPACES, install, values
from tests.support.platform import Platform
from tests.support.upgrades import (
    PREVIOUS_VERSION,
    Release,
    begun_under_the_old_chart,
    graded_once,
    release_of,
    rights,
    slow_students,
    until_done,
)

pytestmark = pytest.mark.timeout(900)

STUDENTS = 6


@pytest.fixture
def release(released: Cluster, places: Places, tmp_path: Path) -> Iterator[Release]:
    """Leaves the chart of this checkout behind, whatever happened."""
    yield release_of(released, values(released.address_range, JOB_NAMESPACES), tmp_path)
    install(released, places, Terminal())


async def test_a_running_job_survives_upgrade_and_rollback(
    platform: Platform, namespace: str, release: Release
) -> None:
    current, students = release.chart(), slow_students(STUDENTS, seconds=3)
    with rights(release):
        job = await begun_under_the_old_chart(release, platform, namespace, students=students)
        release.upgrade(release.new)
        assert release.chart() == current
        tested = release.helm("test", "espalier", "--logs", "--timeout=120s")
        assert "canary: submitted, run and read back in" in tested
        await until_done(platform, job, 4)
        release.helm("rollback", "espalier", "--wait", "--timeout=180s")
        assert release.chart() == PREVIOUS_VERSION
        await graded_once(platform, job, students)
