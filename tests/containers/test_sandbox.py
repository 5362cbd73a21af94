"""One-shot pods on a real kubelet: whatever a submission tries ends in its own pod, and each is graded exactly once."""

from __future__ import annotations

import asyncio

import pytest

from espalier_cli.connection import artifacts_of
from espalier_cli.options import Where
from espalier_cli.report import index_of, parse
from espalier_kube.client import Client
from espalier_kube.cluster import GRADING_JOB, JOB, NODE, POD
from espalier_kube.objects import has_condition
from espalier_local.cluster import Cluster
from tests.support import classroom
from tests.support.machines import kubectl
from tests.support.platform import Job, Platform
from tests.support.waiting import has, until, until_gone

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GRADED_S = 300
PODS = "app.kubernetes.io/component=sandbox"
FUNCTION = "def square(n):\n"
HOSTILE = {
    "connects": ("import socket\n    socket.create_connection(('10.96.0.1', 443), 2)", {"PermissionError"}),
    "resolves": ("import socket\n    socket.getaddrinfo('kubernetes.default.svc', 443)", {"gaierror"}),
    "token": ("open('/var/run/secrets/espalier/token')", {"FileNotFoundError"}),
    "disk": ("for i in range(9): open(f'/tmp/{i}', 'wb').write(b'x' * (100 << 20))", {"OSError"}),
    "log": ("open('/dev/termination-log', 'w').write('seen by everybody')", {"PermissionError"}),
    "forks": (
        "import os\n    while True:\n        if os.fork() == 0: os.execvp('sleep', ['sleep', '60'])",
        {"BlockingIOError"},
    ),
    "memory": (
        "import os\n    for _ in range(9):\n        if os.fork() == 0: x = bytearray(500 << 20); os._exit(0)\n"
        "    x = bytearray(500 << 20)\n    os.wait()\n    raise MemoryError",
        {"OutOfMemory", "MemoryError", "KernelDied"},
    ),
}
"""What a submission does, and the names that its failed test may bear."""


async def test_hostile_submissions_end_in_their_own_pods(released: Cluster, client: Client, namespace: str) -> None:
    platform = Platform(released, client)
    students = {
        f"{name}/squares.ipynb": classroom.notebook(f"{FUNCTION}    {code}\n    return n * n", classroom.GOOD_TEXT)
        for name, (code, _) in HOSTILE.items()
    } | classroom.good_class(1)
    execution = {"sandbox": "container", "kernelTimeoutSeconds": 30, "memory": "512Mi", "warmPods": 2}
    job = await platform.submit(namespace, "hostile", students=students, execution=execution)
    done = await platform.until(job, has("Complete"), timeout_s=GRADED_S, what="Complete")
    reasons = await _reasons(released, client, job)
    assert reasons.pop("student-000") == ""
    assert {name: why for name, why in reasons.items() if why not in HOSTILE[name][1]} == {}
    assert done["status"]["submissions"]["graded"] == len(students)
    node = await client.get(NODE, "linux-1")
    assert has_condition(node, "Ready")
    assert not has_condition(node, "MemoryPressure")
    assert not has_condition(node, "DiskPressure")
    await until_gone(client, POD, namespace, labels=PODS, timeout_s=60)


async def test_gvisor_runs_them_and_a_killed_pod_costs_one_attempt(
    released: Cluster, client: Client, namespace: str
) -> None:
    platform = Platform(released, client)
    slow = classroom.notebook(classroom.SLOW_CODE.format(seconds=8), classroom.GOOD_TEXT)
    job = await platform.submit(
        namespace, "killed", students={"slow/squares.ipynb": slow},
        execution={"sandbox": "gvisor", "kernelTimeoutSeconds": 60, "warmPods": 1},
    )  # fmt: skip
    await until(client, JOB, namespace, "killed-sandbox", lambda _: True, timeout_s=GRADED_S, what="a warm pool")
    pod = await _running(platform, job)
    shown = await client.get(POD, pod, namespace)
    assert shown["spec"]["runtimeClassName"] == "gvisor"
    kubectl(released, "delete", "pod", pod, f"--namespace={namespace}", "--force", "--grace-period=0")
    await platform.until(job, has("Complete"), timeout_s=GRADED_S, what="Complete")
    (task,) = [task for task in await platform.tasks(job) if task["type"] == "grading.execute"]
    assert (task["state"], task["attempts"]) == ("done", 2)
    assert task["worker"] != pod
    (row,) = await platform.report_rows(job)
    assert row["tests"] == "2.0/2"


async def _running(platform: Platform, job: Job) -> str:
    """The pod that runs the submission."""
    async with asyncio.timeout(GRADED_S):
        while True:
            tasks = await platform.tasks(job)
            found = [t["worker"] for t in tasks if t["type"] == "grading.execute" and t["state"] == "running"]
            if found:
                return str(found[0])
            await asyncio.sleep(0.2)


async def _reasons(released: Cluster, client: Client, job: Job) -> dict[str, str]:
    """Why each student's test failed, by the student's folder."""
    obj = await client.get(GRADING_JOB, job.name, job.namespace)
    async with artifacts_of(client, Where(released.kubeconfig, job.namespace)) as store:
        files = await index_of(store, obj)
        report = parse(await store.get(files["report.json"]), "report.json")
        names = parse(await store.get(files["restricted/names.json"]), "names")
    return {names[entry["pseudonym"]]: entry["tests"][0]["reason"] for entry in report["submissions"]}
