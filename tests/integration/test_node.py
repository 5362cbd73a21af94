"""The node agent on a real API server: pods as a kubelet would run them, and what survives the agent."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from espalier_kit.clock import SystemClock
from espalier_kit.errors import NotFound, Permanent
from espalier_kube import signing
from espalier_kube.client import Client, connect
from espalier_kube.cluster import CONFIG_MAP, CSR, JOB, LEASE, NODE, PERSISTENT_VOLUME, POD, SECRET, Cluster, Object
from espalier_kube.watch import follow
from espalier_local.cluster import Cluster as LocalCluster
from espalier_local.layout import Layout
from espalier_local.places import Places
from espalier_node import identity
from espalier_node.settings import NodeSettings
from tests.support import waiting

pytestmark = pytest.mark.cluster

NODE_NAME = "linux-1"
TIMEOUT_S = 30
ROOT = Path(__file__).resolve().parents[2]
Kubectl = Callable[..., str]
_RESTRICTED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def container(name: str, *command: str, **fields: Any) -> Object:
    base = {"name": name, "image": "espalier-worker:test", "command": list(command), "securityContext": _RESTRICTED}
    return {**base, **fields}


def pod(namespace: str, name: str, *containers: Object, **spec: Any) -> Object:
    selector = {"espalier.dev/node-kind": "linux"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": list(containers), "nodeSelector": selector, "terminationGracePeriodSeconds": 5, **spec},
    }  # fmt: skip


def is_ready(found: Object) -> bool:
    return waiting.condition(found, "Ready").get("status") == "True"


def state(found: Object, name: str) -> Object:
    statuses = [*found["status"].get("initContainerStatuses", ()), *found["status"].get("containerStatuses", ())]
    return next((status for status in statuses if status["name"] == name), {})


def waits_with(reason: str, text: str) -> Callable[[Object], bool]:
    def predicate(found: Object) -> bool:
        held = state(found, "main").get("state", {}).get("waiting", {})
        return held.get("reason") == reason and text in held.get("message", "")

    return predicate


async def until_pod(
    client: Cluster, namespace: str, name: str, predicate: Callable[[Object], bool], what: str
) -> Object:
    return await waiting.until(client, POD, namespace, name, predicate, timeout_s=TIMEOUT_S, what=what)


async def until_phase(client: Cluster, namespace: str, name: str, phase: str) -> Object:
    return await until_pod(client, namespace, name, lambda found: found["status"].get("phase") == phase, phase)


@pytest.fixture
async def serving(cluster: LocalCluster, client: Client) -> None:
    """The node's serving certificate, approved as the operator does it."""
    async for event in follow(client, CSR):
        spec = event.object["spec"]
        if spec["signerName"] == signing.SERVING_SIGNER and spec["username"] == f"system:node:{NODE_NAME}":
            if not signing.is_decided(event.object):
                approved = signing.decided(
                    event.object, approve=True, reason="Test", message="approved by the test", now=datetime.now(UTC)
                )
                await client.replace(approved, subresource="approval")
            return


def state_directory(cluster: LocalCluster, places: Places) -> Path:
    return Layout(places.clusters / cluster.name).nodes / NODE_NAME / "state"


def kill_agent(cluster: LocalCluster, places: Places) -> None:
    os.kill(int((state_directory(cluster, places) / "agent.pid").read_text()), signal.SIGKILL)


def processes_with(word: str) -> list[int]:
    """Pids of Python or shell processes whose command line carries a word of ours, wrappers left out."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        name = Path(arguments[0]).name if arguments else ""
        if name.startswith(("python", "sh", "sleep")) and any(word in argument for argument in arguments[1:]):
            found.append(process.pid)
    return found


async def test_the_node_is_a_node(cluster: LocalCluster, client: Client) -> None:
    linux, mac = [await client.get(NODE, name) for name in (NODE_NAME, "mac-studio-1")]
    assert linux["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    assert mac["metadata"]["labels"]["kubernetes.io/os"] == "darwin"
    assert mac["metadata"]["labels"]["espalier.dev/simulated"] == "true"
    assert {"key": "espalier.dev/mlx", "effect": "NoSchedule"} in mac["spec"]["taints"]
    assert mac["status"]["allocatable"]["espalier.dev/metal"] == "1"
    assert "espalier.dev/metal" not in linux["status"]["allocatable"]
    lease = await client.get(LEASE, NODE_NAME, "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == NODE_NAME
    assert lease["metadata"]["ownerReferences"][0]["uid"] == linux["metadata"]["uid"]


SCRIPT = """
import http.server, os, pathlib
read = lambda path: pathlib.Path(path).read_text()
assert read("/work/made") == "by init"
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
        "work": "/work", "settings": "/etc/settings", "key": "/etc/key", "token": "/var/run/secrets/espalier",
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
        "first", "sh", "-c", "printf 'by init' > /work/made", volumeMounts=[{"name": "work", "mountPath": "/work"}]
    )
    volumes = [
        {"name": "work", "emptyDir": {}},
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


async def create_sources(client: Cluster, namespace: str) -> None:
    meta = {"namespace": namespace}
    await client.create({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": "settings"}, "data": {"colour": "green"},
    })  # fmt: skip
    await client.create({
        "apiVersion": "v1", "kind": "Secret", "metadata": {**meta, "name": "key"}, "stringData": {"password": "s3cret"},
    })  # fmt: skip


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


async def test_a_crashing_container_is_restarted_with_back_off(
    cluster: LocalCluster, client: Client, namespace: str, kubectl: Kubectl, serving: None
) -> None:
    script = "echo attempt; echo because > /dev/termination-log; exit 3"
    await client.create(pod(namespace, "crash", container("main", "sh", "-c", script)))
    found = await until_pod(
        client, namespace, "crash", waits_with("CrashLoopBackOff", "back-off 10s"), "CrashLoopBackOff"
    )
    held = state(found, "main")
    assert held["restartCount"] == 1
    last = held["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "because\n")
    assert kubectl("logs", "-n", namespace, "crash", "--previous") == "attempt\n"
    again = await until_pod(
        client, namespace, "crash", lambda p: state(p, "main").get("restartCount") == 2, "a second restart"
    )
    assert again["status"]["phase"] == "Running"
    await waiting.until_event(
        client, namespace, lambda e: e["reason"] == "BackOff" and e["involvedObject"]["name"] == "crash",
        timeout_s=TIMEOUT_S, what="BackOff",
    )  # fmt: skip


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


async def test_delete_is_graceful_then_firm(cluster: LocalCluster, client: Client, namespace: str) -> None:
    probe = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1}
    wait = "touch /tmp/up; while :; do sleep 0.05; done"
    polite = container("main", "sh", "-c", f"trap 'exit 0' TERM; {wait}", readinessProbe=probe)
    stubborn = container("main", "sh", "-c", f"trap '' TERM; {wait}", readinessProbe=probe)
    await client.create(pod(namespace, "polite", polite, terminationGracePeriodSeconds=60))
    await client.create(pod(namespace, "stubborn", stubborn, terminationGracePeriodSeconds=2))
    for name in ("polite", "stubborn"):
        await until_pod(client, namespace, name, is_ready, "readiness")
    ended: dict[str, tuple[float, Object]] = {}
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S):
        async for event in follow(client, POD, namespace):
            name = event.object["metadata"]["name"]
            if event.type == "ADDED":
                await client.delete(POD, name, namespace)
            elif event.type == "DELETED":
                ended[name] = time.monotonic() - began, event.object
            if len(ended) == 2:
                break
    assert ended["polite"][0] < 2
    assert 2 <= ended["stubborn"][0] < 10
    assert ended["polite"][1]["status"]["phase"] == "Succeeded"
    assert state(ended["stubborn"][1], "main")["state"]["terminated"]["exitCode"] == 137


async def test_a_failing_liveness_probe_restarts_the_container(
    cluster: LocalCluster, client: Client, namespace: str
) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo ill; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await client.create(pod(namespace, "ill", container("main", "sleep", "100", livenessProbe=probe)))
    await until_pod(client, namespace, "ill", lambda p: state(p, "main").get("restartCount", 0) >= 1, "a restart")
    await waiting.until_event(
        client, namespace, lambda e: e["reason"] == "Unhealthy" and "Liveness probe failed: ill" in e["message"],
        timeout_s=TIMEOUT_S, what="Unhealthy",
    )  # fmt: skip


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


async def test_a_killed_agent_leaves_pods_running_and_its_successor_adopts_them(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    word = f"adopted-{namespace}"
    script = f"import time; print('up', flush=True); time.sleep(600)  # {word}"
    made = container(
        "main", "python3", "-c", script, readinessProbe={"exec": {"command": ["true"]}, "periodSeconds": 1}
    )
    await client.create(pod(namespace, "stays", made))
    before = await until_pod(client, namespace, "stays", is_ready, "readiness")
    pids = processes_with(word)
    assert len(pids) == 1
    seen = await waiting.seen_events(client)
    kill_agent(cluster, places)
    await waiting.until_event(
        client, None, lambda e: e["reason"] == "AgentRestarted" and e["involvedObject"]["name"] == NODE_NAME,
        timeout_s=TIMEOUT_S, what="AgentRestarted", seen=seen,
    )  # fmt: skip
    assert processes_with(word) == pids
    after = await client.get(POD, "stays", namespace)
    assert state(after, "main")["containerID"] == state(before, "main")["containerID"]
    assert state(after, "main")["restartCount"] == 0
    await client.delete(POD, "stays", namespace)
    await waiting.until_gone(client, POD, namespace, timeout_s=TIMEOUT_S)
    assert processes_with(word) == []


async def test_a_container_that_ended_while_no_agent_was_there_keeps_its_exit_code(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    host = next(host for host in cluster.hosts if host.name == NODE_NAME)
    script = "while ! test -f /work/go; do sleep 0.05; done; exit 5"
    await client.create(pod(
        namespace, "ends", container("main", "sh", "-c", script, volumeMounts=[{"name": "w", "mountPath": "/work"}]),
        restartPolicy="Never", volumes=[{"name": "w", "emptyDir": {}}],
    ))  # fmt: skip
    found = await until_pod(client, namespace, "ends", is_ready, "readiness")
    pod_directory = state_directory(cluster, places) / "pods" / found["metadata"]["uid"]
    host.stop()
    try:
        (pod_directory / "volumes" / "w" / "go").touch()
        ending = pod_directory / "containers" / "main" / "0" / "exit.json"
        deadline = time.monotonic() + TIMEOUT_S
        while not ending.exists():
            assert time.monotonic() < deadline, "the shim wrote no exit status"
    finally:
        host.start()
    found = await until_phase(client, namespace, "ends", "Failed")
    assert state(found, "main")["state"]["terminated"]["exitCode"] == 5


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


async def test_a_node_reads_only_what_its_pods_name(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    await create_sources(client, namespace)
    node = await connect(state_directory(cluster, places) / "kubeconfig")
    try:
        with pytest.raises(Permanent, match="no relationship found"):
            await node.get(SECRET, "key", namespace)
        with pytest.raises(Permanent):
            await node.list(CONFIG_MAP, namespace)
    finally:
        await node.close()


async def test_logs_of_a_pod_that_is_not_there_are_a_sentence(
    cluster: LocalCluster, client: Client, namespace: str, serving: None
) -> None:
    await client.create(pod(namespace, "quiet", {**container("main", "sleep", "60"), "image": "nginx:1"}))
    await until_pod(client, namespace, "quiet", waits_with("ErrImagePull", "nginx"), "ErrImagePull")
    with pytest.raises((Permanent, NotFound), match="waiting to start"):
        await client.logs("quiet", namespace)


def touch_inside(path: str) -> None:
    """Make a file in the container whose command line names it."""
    (pid,) = processes_with(path)
    Path(f"/proc/{pid}/root{path}").touch()


async def test_a_followed_log_ends_with_the_container(
    cluster: LocalCluster, client: Client, namespace: str, kubectl: Kubectl, serving: None
) -> None:
    script = "echo first; while ! test -f /tmp/go; do sleep 0.05; done; echo last"
    probe = {"exec": {"command": ["true"]}}
    made = container("main", "sh", "-c", script, readinessProbe=probe)
    await client.create(pod(namespace, "talks", made, restartPolicy="Never"))
    found = await until_pod(client, namespace, "talks", is_ready, "readiness")
    following = asyncio.create_task(asyncio.to_thread(kubectl, "logs", "-n", namespace, "-f", "talks"))
    touch_inside("/tmp/go")
    assert await asyncio.wait_for(following, TIMEOUT_S) == "first\nlast\n"
    assert found["status"]["phase"] == "Running"


def administrators_tls(cluster: LocalCluster, directory: Path) -> ssl.SSLContext:
    """The administrator's client certificate, as the kubeconfig has it."""
    values = yaml.safe_load(cluster.kubeconfig.read_text())
    user, authority = values["users"][0]["user"], values["clusters"][0]["cluster"]
    files = {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
    for name, data in files.items():
        (directory / name).write_bytes(base64.b64decode(data))
    tls = ssl.create_default_context(cadata=base64.b64decode(authority["certificate-authority-data"]).decode())
    tls.load_cert_chain(directory / "crt", directory / "key")
    return tls


async def test_the_kubelet_api_serves_those_who_may(cluster: LocalCluster, serving: None, tmp_path: Path) -> None:
    # The API server proxies to no loopback address, so the administrator asks the node itself.
    url = f"https://{cluster.address_range.node(1)}:10250"
    async with httpx.AsyncClient(verify=administrators_tls(cluster, tmp_path), trust_env=False) as web:
        assert (await web.get(f"{url}/healthz")).text == "ok"
        assert "espalier_node_container_starts_total" in (await web.get(f"{url}/metrics")).text
        assert (await web.get(f"{url}/pods")).json()["kind"] == "PodList"
        assert (await web.get(f"{url}/stats/summary")).json()["node"]["nodeName"] == NODE_NAME
        assert "node_cpu_usage_seconds_total" in (await web.get(f"{url}/metrics/resource")).text
        absent = await web.get(f"{url}/containerLogs/a/b/c")
        later = await web.get(f"{url}/exec/a/b/c")
    assert (absent.status_code, absent.text) == (404, "pod a/b is not on this node\n")
    assert (later.status_code, "is not available on this node" in later.text) == (501, True)


async def test_the_kubelet_api_refuses_strangers(
    cluster: LocalCluster, client: Client, namespace: str, serving: None
) -> None:
    token, _ = await client.create_token("default", namespace, audience=None, expiration_s=600)
    url = f"https://{cluster.address_range.node(1)}:10250/metrics"
    async with httpx.AsyncClient(verify=False, trust_env=False) as web:
        nobody = await web.get(url)
        unknown = await web.get(url, headers={"Authorization": "Bearer no"})
        somebody = await web.get(url, headers={"Authorization": f"Bearer {token}"})
    assert [answer.status_code for answer in (nobody, unknown, somebody)] == [401, 401, 403]
    assert f"system:serviceaccount:{namespace}:default may not get nodes/metrics" in somebody.text


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


class NextYear(SystemClock):
    """A clock by which every certificate of today is near its end."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=330)


async def test_an_identity_near_its_end_is_renewed_by_itself(
    cluster: LocalCluster, places: Places, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes((state_directory(cluster, places) / "kubeconfig").read_bytes())
    before = identity.client_certificate(kubeconfig)
    settings = NodeSettings.model_validate({
        "name": NODE_NAME, "address": cluster.address_range.node(1), "state_dir": tmp_path, "kubeconfig": kubeconfig,
        "bootstrap_kubeconfig": tmp_path / "none",
    })  # fmt: skip
    for _ in range(2):
        node = await connect(kubeconfig)
        try:
            assert (await node.get(NODE, NODE_NAME))["metadata"]["name"] == NODE_NAME
            if identity.client_certificate(kubeconfig) == before:
                await asyncio.wait_for(identity.renew_when_due(node, settings, NextYear()), TIMEOUT_S)
        finally:
            await node.close()
    assert identity.client_certificate(kubeconfig) != before
