"""A real Prometheus that finds our programs as the chart's scrape configuration says.

Debian's Prometheus is built without Kubernetes discovery, so pods and nodes come from files with the very labels that
discovery gives them; the chart's relabelling and everything after it is Prometheus' own work.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from espalier_kube.cluster import NODE, POD, Object
from espalier_local.files import write_atomically
from tests.support.platform import Platform

INTERVAL = "1s"
LOOK_S = 0.5
KUBELET_PORT = 10250


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    url: str

    async def ask(self, path: str, **query: str) -> Any:
        """`data` of the answer; fails with Prometheus' own words."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answer = (await http.get(f"{self.url}/api/v1/{path}", params=query)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def drawn(self, expression: str, seconds: float) -> bool:
        """Whether a panel over the last so many seconds would show anything."""
        now = time.time()
        answer = await self.ask("query_range", query=expression, start=f"{now - seconds}", end=f"{now}", step="2")
        return bool(answer["result"])


@asynccontextmanager
async def scraping(platform: Platform, scrape_file: Path, folder: Path) -> AsyncIterator[Prometheus]:
    """Runs until the block ends."""
    program = shutil.which("prometheus")
    assert program is not None, "apt install prometheus"
    _configure(platform, scrape_file, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip
    discovering = asyncio.create_task(_discover(platform, folder))
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        discovering.cancel()
        process.terminate()
        await process.wait()


def _configure(platform: Platform, scrape_file: Path, folder: Path) -> None:
    jobs = [_from_files(job, platform, folder) for job in yaml.safe_load(scrape_file.read_text())]
    configuration = {"global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}, "scrape_configs": jobs}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))


async def _discover(platform: Platform, folder: Path) -> None:
    """What service discovery finds, for as long as the test runs."""
    while True:
        pods, nodes = await platform.cluster.list(POD), await platform.cluster.list(NODE)
        write_atomically(folder / "pod.json", json.dumps([target for pod in pods.items for target in pod_targets(pod)]))
        write_atomically(folder / "node.json", json.dumps([node_target(node) for node in nodes.items]))
        await asyncio.sleep(LOOK_S)


def pod_targets(pod: Object) -> list[dict[str, Any]]:
    """One target per declared port, as role `pod` has it."""
    metadata, status = pod["metadata"], pod["status"]
    labels = {
        "__meta_kubernetes_namespace": metadata["namespace"],
        "__meta_kubernetes_pod_name": metadata["name"],
        "__meta_kubernetes_pod_phase": status.get("phase", ""),
        **{f"__meta_kubernetes_pod_label_{_word(key)}": value for key, value in metadata.get("labels", {}).items()},
    }
    return [
        {
            "targets": [f"{status['podIP']}:{port['containerPort']}"],
            "labels": {**labels, "__meta_kubernetes_pod_container_port_name": port.get("name", "")},
        }
        for container in pod["spec"]["containers"] for port in container.get("ports", ()) if status.get("podIP")
    ]  # fmt: skip


def node_target(node: Object) -> dict[str, Any]:
    """As role `node` has it: the kubelet's port at the internal address."""
    metadata = node["metadata"]
    (address,) = [found["address"] for found in node["status"]["addresses"] if found["type"] == "InternalIP"]
    labels = {f"__meta_kubernetes_node_label_{_word(key)}": value for key, value in metadata["labels"].items()}
    return {
        "targets": [f"{address}:{KUBELET_PORT}"], "labels": {**labels, "__meta_kubernetes_node_name": metadata["name"]}
    }


def _word(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _from_files(job: dict[str, Any], platform: Platform, folder: Path) -> dict[str, Any]:
    """Nodes are asked with the administrator's certificate, in a cluster with the token of Prometheus' own account."""
    (discovery,) = job.pop("kubernetes_sd_configs")
    job["file_sd_configs"] = [{"files": [str(folder / f"{discovery['role']}.json")], "refresh_interval": INTERVAL}]
    if discovery["role"] == "node":
        values = yaml.safe_load(platform.local.kubeconfig.read_text())
        user, authority = values["users"][0]["user"], values["clusters"][0]["cluster"]
        files = {
            "cert_file": user["client-certificate-data"], "key_file": user["client-key-data"],
            "ca_file": authority["certificate-authority-data"],
        }  # fmt: skip
        for name, content in files.items():
            (folder / name).write_bytes(base64.b64decode(content))
        job["tls_config"] = {name: str(folder / name) for name in files}
    return job
