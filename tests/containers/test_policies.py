"""`helm test` on container nodes: the canary's way is open where policies are enforced, and no other was tried."""

from __future__ import annotations

import os
import subprocess

import pytest

from espalier_local.api import clean_environment
from espalier_local.bootstrap import NAMESPACE
from espalier_local.cluster import Cluster
from tests.support.flows import recording

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_canary_reaches_the_coordinator_and_nothing_was_dropped(released: Cluster) -> None:
    helm = [str(released.assets["helm"]), f"--kubeconfig={released.kubeconfig}", f"--namespace={NAMESPACE}"]
    with recording(released) as sight:
        done = subprocess.run(
            [*helm, "test", "espalier", "--logs", "--timeout=120s"], capture_output=True, text=True, check=False,
            timeout=180, env=clean_environment(os.environ),
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "canary: submitted, run and read back in" in done.stdout
    assert sight.seen is not None
    assert ("canary", "coordinator") in sight.seen.used()
    assert sight.seen.refused() == []
    assert sight.seen.forbidden() == []
