"""`kubectl exec`, `attach` and `port-forward` into a pod on a process node, with a real kubectl and API server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from espalier_kube.client import Client
from espalier_local.api import clean_environment
from espalier_local.cluster import Cluster as LocalCluster
from tests.support.pods import TIMEOUT_S, container, is_ready, pod, until_pod

pytestmark = pytest.mark.cluster

Kubectl = Callable[..., str]
_ADDRESS = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
_SERVER = "echo begun; cd /tmp; echo hello > page; exec python -u -m http.server 8000 --bind $POD_IP"
BYTES = 3_000_000


@pytest.fixture
async def web(client: Client, namespace: str, serving: None) -> str:
    """A pod that serves a page at its own address."""
    probe = {"httpGet": {"port": 8000, "path": "/page"}, "periodSeconds": 1}
    made = container("main", "sh", "-c", _SERVER, env=[_ADDRESS], readinessProbe=probe)
    await client.create(pod(namespace, "web", made))
    await until_pod(client, namespace, "web", is_ready, "readiness")
    return "web"


async def ran(cluster: LocalCluster, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """kubectl, whatever its exit code."""
    command = [str(cluster.assets["kubectl"]), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    environment = clean_environment(os.environ)
    return await asyncio.to_thread(
        subprocess.run, command, input=stdin, capture_output=True, check=False, timeout=TIMEOUT_S, env=environment
    )


async def test_a_command_runs_inside_with_its_streams_and_exit_code(
    cluster: LocalCluster, namespace: str, web: str
) -> None:
    script = "echo out; echo err >&2; cat /tmp/page; id -u; exit 7"
    done = await ran(cluster, "exec", "-n", namespace, web, "--", "sh", "-c", script)
    out, page, uid = done.stdout.split()
    assert (done.returncode, out, page) == (7, b"out", b"hello")
    assert done.stderr.startswith(b"err\n")
    assert int(uid) > 0


async def test_standard_input_arrives_whole_and_ends(cluster: LocalCluster, namespace: str, web: str) -> None:
    sent = os.urandom(BYTES)
    done = await ran(cluster, "exec", "-i", "-n", namespace, web, "--", "cat", stdin=sent)
    assert (done.returncode, done.stdout == sent) == (0, True)


async def test_a_command_that_does_not_exist_says_so(cluster: LocalCluster, namespace: str, web: str) -> None:
    done = await ran(cluster, "exec", "-n", namespace, web, "--", "no-such-program")
    assert (done.returncode, b"cannot start no-such-program" in done.stderr) == (127, True)


async def test_a_terminal_is_one(cluster: LocalCluster, namespace: str, web: str) -> None:
    script = "test -t 0 && test -t 1 && echo yes; read line; echo got $line"
    done = await asyncio.to_thread(_on_terminal, cluster, namespace, web, script)
    assert "yes" in done
    assert "got word" in done


def _on_terminal(cluster: LocalCluster, namespace: str, web: str, script: str) -> str:
    """kubectl asks for a terminal only if it has one itself; script(1) lends it one."""
    words = [
        str(cluster.assets["kubectl"]), f"--kubeconfig={cluster.kubeconfig}", "exec", "-it", "-n", namespace, web,
        "--", "sh", "-c", f"'{script}'",
    ]  # fmt: skip
    done = subprocess.run(
        ["script", "-qec", " ".join(words), "/dev/null"], input="word\n", capture_output=True, text=True, check=False,
        timeout=TIMEOUT_S, env=clean_environment(os.environ),
    )  # fmt: skip
    return done.stdout


async def test_attach_shows_what_comes_and_says_that_there_is_no_input(
    cluster: LocalCluster, namespace: str, web: str
) -> None:
    watching = await asyncio.create_subprocess_exec(
        str(cluster.assets["kubectl"]), f"--kubeconfig={cluster.kubeconfig}", "attach", "-n", namespace, web,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=clean_environment(os.environ),
    )  # fmt: skip
    try:
        assert watching.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            # The readiness probe asks for the page once a second, and the server says so.
            assert b"GET /page" in await watching.stdout.readline()
    finally:
        watching.kill()
        await watching.wait()
    refused = await ran(cluster, "attach", "-i", "-n", namespace, web)
    assert b"no standard input" in refused.stderr


@contextmanager
def forwarded(cluster: LocalCluster, namespace: str, name: str, port: int) -> Iterator[str]:
    """A local address that leads to the pod's port."""
    command = [
        str(cluster.assets["kubectl"]), f"--kubeconfig={cluster.kubeconfig}", "port-forward", "--address=127.0.0.1",
        "-n", namespace, f"pod/{name}", f":{port}",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(os.environ)
    ) as forwarding:
        try:
            assert forwarding.stdout is not None
            found = re.search(r"127\.0\.0\.1:\d+", forwarding.stdout.readline())
            assert found is not None
            yield f"http://{found[0]}"
        finally:
            forwarding.kill()


async def test_connections_are_forwarded_side_by_side(cluster: LocalCluster, namespace: str, web: str) -> None:
    fill = f"head -c {BYTES} /dev/zero > /tmp/big"
    written = await ran(cluster, "exec", "-n", namespace, web, "--", "sh", "-c", fill)
    assert written.returncode == 0
    with forwarded(cluster, namespace, web, 8000) as url:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
            pages = await asyncio.gather(*(http.get(f"{url}/page") for _ in range(8)), http.get(f"{url}/big"))
    assert [page.text for page in pages[:8]] == ["hello\n"] * 8
    assert len(pages[8].content) == BYTES


async def test_a_port_where_nothing_answers_ends_that_connection_only(
    cluster: LocalCluster, namespace: str, web: str
) -> None:
    with forwarded(cluster, namespace, web, 9) as url:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
            with pytest.raises(httpx.TransportError):
                await http.get(url)
    with forwarded(cluster, namespace, web, 8000) as url:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
            assert (await http.get(f"{url}/page")).text == "hello\n"


async def test_who_may_only_look_may_run_nothing(
    cluster: LocalCluster, client: Client, namespace: str, web: str, kubectl: Kubectl
) -> None:
    kubectl("create", "clusterrole", f"look-{namespace}", "--verb=get", "--resource=nodes/proxy")
    binding = ("create", "clusterrolebinding", f"look-{namespace}", f"--clusterrole=look-{namespace}")
    kubectl(*binding, f"--serviceaccount={namespace}:default")
    token, _ = await client.create_token("default", namespace, audience=None, expiration_s=600)
    url = f"https://{cluster.address_range.node(1)}:10250/exec/{namespace}/{web}/main?command=id&output=1"
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        answer = await http.get(url, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, "may not create nodes/proxy" in answer.text) == (403, True)
