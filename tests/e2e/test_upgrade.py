"""A job in the middle of `helm upgrade` from the chart before this one, `helm test` and `helm rollback`.

`tests/charts/previous` holds the charts as they were packaged then. Programs are those of this checkout in either
case; they need rights for kinds that the old chart does not know, which the test gives them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from espalier_local.api import clean_environment
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import install
from tests.support import classroom
from tests.support.charts import CHART, NAMESPACE, PREVIOUS
from tests.support.platform import SYSTEM, Job, Platform
from tests.support.waiting import has

pytestmark = pytest.mark.timeout(900)

PREVIOUS_VERSION = "espalier-0.1.0"
STUDENTS = 6
OPERATOR = "espalier-operator"
EXTRA = "upgrade-test"


@dataclass(frozen=True)
class Release:
    """The cluster's release, as a person upgrades it."""

    cluster: Cluster
    values: Path
    """Of this cluster, as `espalier local up` computed them."""

    def helm(self, *arguments: str) -> str:
        """Helm's output; it has to succeed."""
        return self._run("helm", *arguments, f"--namespace={NAMESPACE}")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """The same of kubectl."""
        return self._run("kubectl", *arguments, given=given)

    def upgrade(self, chart: Path, local_values: Path) -> None:
        """To that chart, until its pods are ready."""
        files = (f"--values={local_values}", f"--values={self.values}")
        self.helm("upgrade", "espalier", str(chart), *files, "--wait", "--timeout=180s")

    def chart(self) -> str:
        """Name and version of the chart that is installed."""
        (release,) = json.loads(self.helm("list", "--filter=^espalier$", "--output=json"))
        assert release["status"] == "deployed"
        return str(release["chart"])

    def _run(self, program: str, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [str(self.cluster.assets[program]), f"--kubeconfig={self.cluster.kubeconfig}", *arguments],
            input=given, capture_output=True, text=True, check=False, timeout=240, env=clean_environment(os.environ),
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def release(released: Cluster, places: Places) -> Iterator[Release]:
    """Leaves the chart of this checkout behind, whatever happened."""
    yield Release(released, released.control.layout.root / "values.yaml")
    install(released, places, Terminal())


@pytest.fixture
def rights(release: Release) -> Iterator[None]:
    """What this checkout's operator may do, under another name: the old chart takes some of it away."""
    role = json.loads(release.kubectl("get", "clusterrole", OPERATOR, "--output=json"))
    role = {key: role[key] for key in ("apiVersion", "kind", "rules")} | {"metadata": {"name": EXTRA}}
    release.kubectl("apply", "-f", "-", given=json.dumps(role))
    account = f"--serviceaccount={SYSTEM}:{OPERATOR}"
    release.kubectl("create", "clusterrolebinding", EXTRA, f"--clusterrole={EXTRA}", account)
    yield
    release.kubectl("delete", f"clusterrole/{EXTRA}", f"clusterrolebinding/{EXTRA}")


async def test_a_running_job_survives_upgrade_and_rollback(
    platform: Platform, namespace: str, release: Release, rights: None, tmp_path: Path
) -> None:
    with tarfile.open(PREVIOUS / f"{PREVIOUS_VERSION}.tgz") as package:
        package.extractall(tmp_path, filter="data")
    current = release.chart()
    assert current != PREVIOUS_VERSION
    release.upgrade(PREVIOUS / f"{PREVIOUS_VERSION}.tgz", tmp_path / "espalier/values-local.yaml")
    assert release.chart() == PREVIOUS_VERSION
    slow = classroom.SLOW_CODE.format(seconds=3)
    students = {f"s{n}": classroom.notebook(slow, f"because of {n}") for n in range(STUDENTS)}
    job = await platform.submit(namespace, "upgraded", students=classroom.submissions(students))
    await _progress(platform, job, 2)
    release.upgrade(CHART, CHART / "values-local.yaml")
    assert release.chart() == current
    assert "canary: submitted, run and read back in" in release.helm("test", "espalier", "--logs", "--timeout=120s")
    await _progress(platform, job, 4)
    release.helm("rollback", "espalier", "--wait", "--timeout=180s")
    assert release.chart() == PREVIOUS_VERSION
    done = await platform.until(job, has("Complete"), timeout_s=300, what="Complete")
    assert done["status"]["submissions"]["graded"] == STUDENTS
    assert Counter(row["name"] for row in await platform.report_rows(job)) == dict.fromkeys(students, 1)
    results = Counter(task["key"] for task in await platform.tasks(job) if task["state"] == "done")
    assert set(results.values()) == {1}


async def _progress(platform: Platform, job: Job, done: int) -> None:
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= done, timeout_s=300, what=f"{done} done"
    )
