"""From the chart before this one to this one, under a class that is being graded.

`tests/charts/previous` holds the charts as they were packaged then. Programs are those of this checkout in either
case; they need rights for kinds that the old chart does not know, which `rights` gives them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espalier_kube.cluster import Object
from espalier_local.api import clean_environment
from espalier_local.cluster import Cluster
from espalier_local.release import CONTAINER_VALUES, LOCAL_VALUES
from tests.support import classroom
from tests.support.charts import CHART, NAMESPACE, PREVIOUS
from tests.support.platform import SYSTEM, Job, Platform
from tests.support.waiting import has

PREVIOUS_VERSION = "espalier-0.1.0"
OPERATOR = "espalier-operator"
_EXTRA = "upgrade-test"
_GRADED_S = 300


@dataclass(frozen=True)
class Version:
    """A chart, and the values files that it is installed with here."""

    chart: Path
    values: tuple[Path, ...]


@dataclass(frozen=True)
class Release:
    """The cluster's release, as a person upgrades it."""

    cluster: Cluster
    old: Version
    new: Version

    def helm(self, *arguments: str) -> str:
        """Helm's output; it has to succeed."""
        return self._run("helm", *arguments, f"--namespace={NAMESPACE}")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """The same of kubectl."""
        return self._run("kubectl", *arguments, given=given)

    def upgrade(self, version: Version) -> None:
        """To that one, until its pods are ready."""
        files = (f"--values={file}" for file in version.values)
        self.helm("upgrade", "espalier", str(version.chart), *files, "--wait", "--timeout=180s")

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


def release_of(cluster: Cluster, computed: Mapping[str, Any], folder: Path) -> Release:
    """Over the values that `espalier local up` computes for the cluster; files go to `folder`."""
    with tarfile.open(PREVIOUS / f"{PREVIOUS_VERSION}.tgz") as package:
        package.extractall(folder, filter="data")
    chart = folder / "espalier"
    known = yaml.safe_load((chart / "values.yaml").read_text())
    local = () if cluster.cables is None else (CHART / CONTAINER_VALUES,)

    def version(chart: Path, name: str, wished: Mapping[str, Any]) -> Version:
        (folder / name).write_text(yaml.safe_dump(dict(wished)))
        return Version(chart, (chart / LOCAL_VALUES, *local, folder / name))

    # The old chart refuses what it does not know.
    old = {key: value for key, value in computed.items() if key in known}
    return Release(cluster, version(chart, "old.yaml", old), version(CHART, "new.yaml", computed))


@contextmanager
def rights(release: Release) -> Iterator[None]:
    """What this checkout's operator may do, under another name: the old chart takes some of it away."""
    role = json.loads(release.kubectl("get", "clusterrole", OPERATOR, "--output=json"))
    role = {key: role[key] for key in ("apiVersion", "kind", "rules")} | {"metadata": {"name": _EXTRA}}
    release.kubectl("apply", "-f", "-", given=json.dumps(role))
    account = f"--serviceaccount={SYSTEM}:{OPERATOR}"
    release.kubectl("create", "clusterrolebinding", _EXTRA, f"--clusterrole={_EXTRA}", account)
    try:
        yield
    finally:
        release.kubectl("delete", f"clusterrole/{_EXTRA}", f"clusterrolebinding/{_EXTRA}")


async def begun_under_the_old_chart(
    release: Release, platform: Platform, namespace: str, *, students: Mapping[str, bytes], **spec: Any
) -> Job:
    """A class that the previous chart's programs grade, with two tasks done. It is pushed before: nobody forwards a
    port to the coordinator of that chart, which listens on its pod's address alone."""
    wished = await platform.prepare(namespace, "upgraded", students=classroom.submissions(dict(students)), **spec)
    assert release.chart() != PREVIOUS_VERSION
    release.upgrade(release.old)
    assert release.chart() == PREVIOUS_VERSION
    job = await platform.apply(wished)
    await until_done(platform, job, 2)
    return job


async def until_done(platform: Platform, job: Job, tasks: int) -> None:
    """Until so many tasks of the job are done."""
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= tasks, timeout_s=_GRADED_S,
        what=f"{tasks} done",
    )  # fmt: skip


async def graded_once(platform: Platform, job: Job, students: Mapping[str, bytes]) -> Object:
    """The job at its end: each student graded, each with one row, each task with one result."""
    done = await platform.until(job, has("Complete"), timeout_s=_GRADED_S, what="Complete")
    assert done["status"]["submissions"]["graded"] == len(students)
    assert Counter(row["name"] for row in await platform.report_rows(job)) == dict.fromkeys(students, 1)
    results = Counter(task["key"] for task in await platform.tasks(job) if task["state"] == "done")
    assert set(results.values()) == {1}
    assert len(results) == done["status"]["tasks"]["done"]
    return done


def slow_students(size: int, *, seconds: int) -> dict[str, bytes]:
    """Right answers that take so long."""
    slow = classroom.SLOW_CODE.format(seconds=seconds)
    return {f"s{n}": classroom.notebook(slow, f"because of {n}") for n in range(size)}
