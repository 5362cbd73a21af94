"""One drill of `make drill` on the lane's cluster: a Mac is cut off in the middle of a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from espalier_kube.client import Client
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from tests.drills.stories import DRILLS, run
from tests.support.machines import NOTICED_S

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


async def test_a_mac_cut_off_in_the_middle_of_a_class_is_noticed_and_nothing_is_lost(
    released: Cluster, places: Places, client: Client, namespace: str, record_property: Callable[[str, object], None]
) -> None:
    (drill,) = [drill for drill in DRILLS if drill.name == "mac-cut"]
    seen = (await run(drill, released, places, client, namespace, students=3)).times
    for name, value in asdict(seen).items():
        record_property(name, value)
    assert seen.not_ready is not None
    assert seen.not_ready < NOTICED_S
    assert seen.finished is not None
    assert seen.next_result is not None
