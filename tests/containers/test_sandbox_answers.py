"""Answers that run, on a real kubelet: restricted pods, the packs' data in the image, each answer on its own.

The model is a script at the cluster's switch, so that what it says is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from espalier_benchmark.packs import human_eval
from espalier_cli.connection import artifacts_of
from espalier_cli.options import Where
from espalier_kube.client import Client
from espalier_kube.cluster import BENCHMARK_JOB, NODE, POD, Object
from espalier_kube.objects import has_condition, metadata, typed
from espalier_local.cluster import Cluster
from tests.support.answers import SPAWN, UNSEEN, answer, solutions
from tests.support.completions import completions
from tests.support.waiting import has, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MODEL_PORT = 8100
"""Of model servers outside containers, which the policies let generators reach."""
ENDED_S = 150
RIGHT = {"humaneval": 8, "reasoning-gym:chain_sum": 6, "bfcl:simple": 10, "bfcl:parallel": 10}
HOSTILE = {
    0: ("import socket\nsocket.create_connection(('10.96.0.1', 443), 2)", "opened a socket"),
    2: (f"{UNSEEN}\nwhile True: {SPAWN}", "more than 32 processes"),
    4: ("x = []\nwhile True: x.append(bytearray(10**8))", "MemoryError"),
    6: ("for i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(10**7))", "No space left"),
    8: ("import os\nfor s in (15, 2, 9): os.kill(1, s)\nos._exit(0)", "ended before its tests did"),
}  # fmt: skip
"""Which of HumanEval's questions is answered so, and how the record then begins to say why it is wrong."""
ASKED = 10
JOBS = ("right", "hostile", "gvisor")


def scripts() -> dict[str, dict[str, str]]:
    """Answers by model and question."""
    right = {asked: text for name, items in RIGHT.items() for asked, text in solutions(name, items).items()}
    code = solutions("humaneval", ASKED)
    asked, problems = list(code), list(human_eval.problems().values())
    for number, (body, _) in HOSTILE.items():
        code[asked[number]] = answer(body, head=f"def {problems[number]['entry_point']}(*_, **__):\n")
    return {"right": right, "hostile": code}


@pytest.fixture
def model(released: Cluster) -> Iterator[str]:
    """Its address, which hosts and pods reach."""
    known = scripts()
    assert released.cables is not None
    with completions(lambda name, asked: known[name].get(asked, "hello"),
                     address=(released.cables.server, MODEL_PORT)) as url:  # fmt: skip
        yield url


def asking(namespace: str, name: str, url: str, packs: dict[str, int], **more: Any) -> Object:
    spec = {
        **more,
        "targets": [{"endpoint": {"url": url, "model": "hostile" if name == "hostile" else "right"}}],
        "accuracy": {"packs": [{"name": pack, "items": items} for pack, items in packs.items()]},
    }
    return typed(BENCHMARK_JOB, metadata(name, namespace), spec=spec)


async def test_packs_score_as_they_should_and_hostile_answers_harm_nobody(
    released: Cluster, client: Client, namespace: str, model: str
) -> None:
    await client.create(asking(namespace, "right", model, RIGHT))
    await client.create(asking(namespace, "hostile", model, {"humaneval": ASKED}))
    few = {"humaneval": 2, "reasoning-gym:chain_sum": 2}
    await client.create(asking(namespace, "gvisor", model, few, execution={"sandbox": "gvisor"}))
    right, hostile, apart = [await ended(client, namespace, name) for name in JOBS]
    assert {found["name"]: found["value"] for found in right["accuracy"]} == dict.fromkeys(RIGHT, 1.0)
    assert {found["name"]: found.get("sandbox") for found in right["accuracy"]} == {
        "humaneval": "container", "reasoning-gym:chain_sum": "container", "bfcl:simple": None, "bfcl:parallel": None,
    }  # fmt: skip
    assert (right["sandbox"], right["validity"]["verdict"]) == ("container", "Valid")
    assert [(found["value"], found["sandbox"]) for found in apart["accuracy"]] == [(1.0, "gvisor")] * 2
    records = await answers_of(released, client, namespace, hostile)
    for number, record in enumerate(records):
        expected = HOSTILE[number][1] if number in HOSTILE else ""
        assert (record["score"], expected in record["why"]) == (float(number not in HOSTILE), True), record
    assert len(records) == ASKED
    await nobody_was_harmed(client, namespace)


async def ended(client: Client, namespace: str, name: str) -> dict[str, Any]:
    job = await until(client, BENCHMARK_JOB, namespace, name, has("Complete"), timeout_s=ENDED_S, what="Complete")
    status: dict[str, Any] = job["status"]
    return status


async def answers_of(
    released: Cluster, client: Client, namespace: str, status: dict[str, Any]
) -> list[dict[str, Any]]:
    """One record a question, in their order."""
    (uri,) = [found["uri"] for found in status["files"] if found["name"].startswith("accuracy-")]
    async with artifacts_of(client, Where(released.kubeconfig, namespace)) as store:
        content = await store.get(uri.removeprefix("artifact://"))
    return [json.loads(line) for line in content.splitlines()]


async def nobody_was_harmed(client: Client, namespace: str) -> None:
    """The node is well, and no container of a generator had to be started again."""
    node = await client.get(NODE, "linux-1")
    assert has_condition(node, "Ready")
    assert not [kind for kind in ("MemoryPressure", "DiskPressure", "PIDPressure") if has_condition(node, kind)]
    pods = (await client.list(POD, namespace, labels="app.kubernetes.io/component=worker")).items
    assert len(pods) == len(JOBS)
    for pod in pods:
        status = pod["status"]
        found = [*status["containerStatuses"], *status["initContainerStatuses"]]
        assert {(each["name"], each["restartCount"]) for each in found} == {("worker", 0), ("sandbox", 0)}
