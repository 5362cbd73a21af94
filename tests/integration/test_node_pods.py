"""Pods on the node agent as a kubelet would run them: what they get, what they see, and what holds them back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from espalier_kube.client import Client
from espalier_kube.cluster import JOB, PERSISTENT_VOLUME, POD, Object
from espalier_local.cluster import Cluster as LocalCluster
from espalier_local.places import Places
from tests.support import waiting
from tests.support.pods import (
    NODE_NAME,
    TIMEOUT_S,
    container,
    create_sources,
    is_ready,
    pod,
    state,
    until_phase,
    until_pod,
    waits_with,
)

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
Kubectl = Callable[..., str]
SCRIPT = """
import http.server, os, pathlib
read = lambda path: pathlib.Path(path).read_text()
assert read("/scratch/made") == "by init"
assert read("/etc/settings/colour") == "green"
assert read("/etc/key/password") == "s3cret"
assert len(read("/var/run/secrets/espalier/token").split(".")) == 3
assert read("/podinfo/labels") == 'app="life"'
assert os.environ["COLOUR"] == "green" and os.environ["PASSWORD"] == "s3cret"
assert os.environ["URL"] == "http://" + os.environ["IP"] + ":8080"
assert os.environ["CPU"] == "1" and os.getuid() != 0
for place in ("/etc/settings/x", "/x", "/usr/x"):
    try:
        pathlib.Path(place).write_text("x")
    except OSError:
        continue
    raise SystemExit("could write " + place)
pathlib.Path("/tmp/x").write_text("x")
print("serving", os.environ["URL"], flush=True)
http.server.HTTPServer((os.environ["IP"], 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def full_pod(namespace: str) -> Object:
    environment = [
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP):8080"},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    mounts = {
        "scratch": "/scratch", "settings": "/etc/settings", "key": "/etc/key", "token": "/var/run/secrets/espalier",
        "info": "/podinfo",
    }  # fmt: skip
    main = container(
        "main", "python3", "-c", SCRIPT, env=environment,
        volumeMounts=[{"name": name, "mountPath": path} for name, path in mounts.items()],
        resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
        startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30},
        readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        livenessProbe={"exec": {"command": ["sh", "-c", "test $COLOUR = green && test -f /tmp/x"]}, "periodSeconds": 1},
    )  # fmt: skip
    first = container(
        "first", "sh", "-c", "printf 'by init' > /scratch/made",
        volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}],
    )  # fmt: skip
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
        {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "espalier-coordinator", "expirationSeconds": 600}},
        ]}},
    ]  # fmt: skip
    made = pod(namespace, "life", main, initContainers=[first], volumes=volumes)
    made["metadata"]["labels"] = {"app": "life"}
    return made


async def test_a_pod_gets_all_it_asks_for_and_becomes_ready(
    cluster: LocalCluster, client: Client, namespace: str, kubectl: Kubectl, serving: None
) -> None:
    await create_sources(client, namespace)
    await client.create(full_pod(namespace))
    found = await until_pod(client, namespace, "life", is_ready, "readiness")
    status = found["status"]
    assert status["podIP"].startswith("127.")
    assert status["podIP"] != status["hostIP"]
    assert status["phase"] == "Running"
    assert status["qosClass"] == "Burstable"
    assert state(found, "first")["state"]["terminated"]["reason"] == "Completed"
    assert state(found, "main")["started"] is True
    assert f"serving http://{status['podIP']}:8080" in kubectl("logs", "-n", namespace, "life", "-c", "main")
    stamped = kubectl("logs", "-n", namespace, "life", "-c", "main", "--tail=1", "--timestamps")
    assert stamped.startswith(str(datetime.now(UTC).year))


async def test_a_pinned_address_is_given(cluster: LocalCluster, client: Client, namespace: str) -> None:
    base = str(cluster.address_range.node(1)).rpartition(".")[0]
    made = pod(namespace, "pinned", container("main", "sleep", "60"))
    made["metadata"]["annotations"] = {"espalier.dev/pod-ip": f"{base}.5"}
    await client.create(made)
    found = await until_pod(client, namespace, "pinned", is_ready, "readiness")
    assert found["status"]["podIP"] == f"{base}.5"


async def test_a_job_completes(cluster: LocalCluster, client: Client, namespace: str) -> None:
    template = pod(namespace, "x", container("main", "sh", "-c", "exit 0"), restartPolicy="Never")["spec"]
    await client.create({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": namespace},
        "spec": {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "template": {"spec": template}},
    })  # fmt: skip
    await waiting.until(
        client, JOB, namespace, "once", waiting.has("Complete"), timeout_s=TIMEOUT_S, what="completion"
    )


async def test_a_failed_pod_keeps_its_exit_code(cluster: LocalCluster, client: Client, namespace: str) -> None:
    await client.create(pod(namespace, "failed", container("main", "sh", "-c", "exit 78"), restartPolicy="Never"))
    found = await until_phase(client, namespace, "failed", "Failed")
    assert state(found, "main")["state"]["terminated"]["exitCode"] == 78
    assert waiting.condition(found, "Ready")["reason"] == "PodCompleted"


WAITS: dict[str, tuple[Object, str, str]] = {
    "missing secret key": (
        container("main", "sleep", "60", env=[
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "later", "key": "password"}}},
        ]),
        "CreateContainerConfigError", "Secret later does not exist",
    ),
    "unknown image": (
        {**container("main", "sleep", "60"), "image": "nginx:1"}, "ErrImagePull", "image nginx:1 has no runtime",
    ),
    "tty": (container("main", "sh", tty=True), "CreateContainerConfigError", "stdin and tty are not available"),
    "a message over a program": (
        container("main", "sleep", "60", terminationMessagePath="/usr/bin/setpriv"), "CreateContainerConfigError",
        "terminationMessagePath /usr/bin/setpriv is not available on this node",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WAITS)
async def test_what_cannot_start_waits_with_a_sentence(
    cluster: LocalCluster, client: Client, namespace: str, case: str
) -> None:
    made, reason, text = WAITS[case]
    await client.create(pod(namespace, "waits", made))
    found = await until_pod(client, namespace, "waits", waits_with(reason, text), reason)
    assert found["status"]["phase"] == "Pending"


async def test_a_missing_secret_is_told_and_waited_for(cluster: LocalCluster, client: Client, namespace: str) -> None:
    mounts = [{"name": "k", "mountPath": "/key"}]
    made = container("main", "sh", "-c", "cat /key/password; sleep 60", volumeMounts=mounts)
    await client.create(pod(namespace, "later", made, volumes=[{"name": "k", "secret": {"secretName": "late"}}]))
    await waiting.until_event(
        client, namespace, lambda e: e["reason"] == "FailedMount" and "Secret late does not exist" in e["message"],
        timeout_s=TIMEOUT_S, what="FailedMount",
    )  # fmt: skip
    await client.create({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late", "namespace": namespace},
        "stringData": {"password": "here"},
    })  # fmt: skip
    await until_pod(client, namespace, "later", is_ready, "readiness")


async def test_a_sandbox_of_its_own_works_inside_a_pod(cluster: LocalCluster, client: Client, namespace: str) -> None:
    inner = (
        "bwrap --unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib"
        " --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp"
        " sh -c 'test $(ls /proc | grep -c ^[0-9]) -lt 8'"
    )
    await client.create(pod(namespace, "inner", container("main", "sh", "-c", inner), restartPolicy="Never"))
    await until_phase(client, namespace, "inner", "Succeeded")


async def test_pods_see_neither_each_other_nor_the_machines_files(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    await client.create(pod(namespace, "one", container("main", "sleep", "60")))
    await until_pod(client, namespace, "one", is_ready, "readiness")
    look = f"test $(ls /proc | grep -c '^[0-9]') -lt 8 && ! ls {places.cache} && ! ls {ROOT / '.git'}"
    await client.create(pod(namespace, "two", container("main", "sh", "-c", look), restartPolicy="Never"))
    await until_phase(client, namespace, "two", "Succeeded")


async def test_a_local_volume_outlives_its_pod(
    cluster: LocalCluster, client: Client, namespace: str, tmp_path: Path
) -> None:
    affinity = {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]},
    ]}]}  # fmt: skip
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": ""}
    volume = {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "local": {"path": str(tmp_path)},
        "nodeAffinity": {"required": affinity}, "claimRef": {"name": "data", "namespace": namespace},
        "persistentVolumeReclaimPolicy": "Retain",
    }  # fmt: skip
    name = f"local-{namespace}"
    await client.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
    await client.create({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": namespace},
        "spec": {**claim, "volumeName": name},
    })  # fmt: skip
    for writer, script in (("one", "echo kept > /data/x"), ("two", "grep kept /data/x && echo more >> /data/x")):
        made = container("main", "sh", "-c", script, volumeMounts=[{"name": "d", "mountPath": "/data"}])
        volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
        await client.create(pod(namespace, writer, made, restartPolicy="Never", volumes=volumes))
        await until_phase(client, namespace, writer, "Succeeded")
    assert (tmp_path / "x").read_text() == "kept\nmore\n"
    await client.delete(PERSISTENT_VOLUME, name)


async def test_a_mac_runs_one_metal_process_at_a_time(cluster: LocalCluster, client: Client, namespace: str) -> None:
    made = container("main", "sleep", "60", resources={"limits": {"espalier.dev/metal": "1"}})
    on_mac = {
        "nodeSelector": {"kubernetes.io/hostname": "mac-studio-1"},
        "tolerations": [{"key": "espalier.dev/mlx", "operator": "Exists"}],
    }
    for name in ("first", "second"):
        await client.create(pod(namespace, name, made, **on_mac))
        if name == "first":
            await until_pod(client, namespace, name, is_ready, "readiness")
    held = await until_pod(
        client, namespace, "second", lambda p: waiting.condition(p, "PodScheduled").get("status") == "False", "a wait"
    )
    assert "Insufficient espalier.dev/metal" in waiting.condition(held, "PodScheduled")["message"]
    await client.delete(POD, "first", namespace)
    await until_pod(client, namespace, "second", is_ready, "readiness")
