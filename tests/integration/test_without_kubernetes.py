"""The how-to page's commands and the examples, run as they stand: real programs, no cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from espalier_coordinator.callers import Callers, Entry
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from tests.support.completions import completions
from tests.support.programs import DEADLINE_S, Programs

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/coordinator"
PAGE = (ROOT / "docs/how-to/run-without-kubernetes.md").read_text()
BASH = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.M | re.S)
COORDINATOR, WORKER, HEALTH, SUBMIT, LOOK, TLS_COORDINATOR, TLS_WORKER, NEW_KEY = BASH


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


class Shell(Programs):
    """Runs the page's blocks in one folder, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.grpc, self.http = free_ports(2)
        own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
        self.environ = own | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES),
            "ESPALIER_COORDINATOR_GRPC_PORT": str(self.grpc), "ESPALIER_COORDINATOR_HTTP_PORT": str(self.http),
        }

    def start(self, block: str, **environ: str) -> subprocess.Popen[bytes]:
        """In the background."""
        return self.begin(["bash", "-c", self.adapted(block)], self.environ | environ)

    def run(self, block: str) -> str:
        done = subprocess.run(["bash", "-ec", self.adapted(block)], cwd=self.folder, env=self.environ, text=True,
                              capture_output=True, check=False, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout + done.stderr

    def adapted(self, block: str) -> str:
        return block.replace("50051", str(self.grpc)).replace("8081", str(self.http))

    def until(self, what: str, block: str = HEALTH) -> str:
        """Until the block says it."""
        end = time.monotonic() + DEADLINE_S
        said = ""
        while time.monotonic() < end:
            done = subprocess.run(["bash", "-c", self.adapted(block)], cwd=self.folder, env=self.environ, timeout=20,
                                  capture_output=True, text=True, check=False)
            said = done.stdout
            if what in said:
                return said
            time.sleep(0.1)
        raise AssertionError(f"never {what}: {said}\n{self.logs()}")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with completions() as url:
        yield url


def test_the_pages_two_commands_run_a_job_and_leave_in_order(shell: Shell, target: str) -> None:
    coordinator = shell.start(COORDINATOR)
    shell.until('"healthy"')
    worker = shell.start(WORKER)
    shell.until('"healthy":1')
    shell.run(SUBMIT.replace("http://127.0.0.1:8100", target))
    said = shell.run(LOOK)
    assert "first: complete" in said
    assert "worker-1" in said
    assert "0/8" in said, "CAPACITY=8"
    assert shell.stop(worker) == 0
    shell.until('"healthy":0')
    assert shell.stop(coordinator) == 0


def test_a_hundred_jobs_and_tagged_workers(shell: Shell, target: str) -> None:
    shell.start(COORDINATOR)
    shell.until('"healthy"')
    for name, tags in (("gpu-worker-1", "gpu"), ("cpu-worker-1", "cpu,fast")):
        shell.start(WORKER.replace("worker-1", name), TAGS=tags)
    shell.until('"healthy":2')
    arguments = f"http://127.0.0.1:8081 espalier-data/submitter.token {target} qwen"
    addresses = re.findall(r"health and metrics.*?(127\.0\.0\.1:\d+)", shell.logs())
    assert len(set(addresses)) == 2, "each has a port of its own"
    assert all(httpx.get(f"http://{address}/readyz").text == "ok" for address in addresses)
    said = shell.run(f"python {EXAMPLES}/hundred_jobs.py {arguments}")
    assert "All jobs completed: 100" in said
    said = shell.run(f"python {EXAMPLES}/tagged_jobs.py {arguments}")
    assert "needs-gpu: complete, run by gpu-worker-1\nneeds-cpu: complete, run by cpu-worker-1\n" in said


@pytest.mark.parametrize("transport", ["session", "calls"])
def test_with_tls_by_stream_or_by_calls(shell: Shell, target: str, transport: str) -> None:
    shell.start(TLS_COORDINATOR, ESPALIER_COORDINATOR_HOST="127.0.0.1")
    curl = "curl -s --cacert espalier-data/tls/ca.crt https://localhost:8081"
    shell.until('"healthy"', f"{curl}/health")
    worker = shell.start(TLS_WORKER, ESPALIER_WORKER_TRANSPORT=transport, ESPALIER_WORKER_PULL_INTERVAL_S="0.2")
    shell.until('"healthy":1', f"{curl}/health")
    submit = SUBMIT.replace("http://127.0.0.1:8081", "https://localhost:8081").replace("http://127.0.0.1:8100", target)
    shell.run(submit.replace("curl ", "curl --cacert espalier-data/tls/ca.crt "))
    look = f"export ESPALIER_CLI_CA_FILE=espalier-data/tls/ca.crt\n{LOOK}".replace("http://", "https://")
    assert "first: complete" in shell.run(look)
    (address,) = re.findall(r"health and metrics.*?(127\.0\.0\.1:\d+)", shell.logs())
    assert transport == "session" or address in shell.run(f"{look}\nespalier workers list -o json")
    assert shell.stop(worker) == 0
    shell.until('"healthy":0', f"{curl}/health")


def test_a_client_certificate_says_who_calls(shell: Shell, target: str) -> None:
    data, now = shell.folder / "espalier-data", SystemClock().now()
    shell.run(NEW_KEY.replace("callers.yaml", "first.yaml"))
    authority = make_authority("lab", now)
    pair = issue(authority, "gpu-7", now, hosts=["gpu-7.lab.example"], is_client=True)
    for name, content in (("lab.crt", authority.certificate), ("gpu.crt", pair.certificate), ("gpu.key", pair.key)):
        (shell.folder / name).write_bytes(content)
    named = page_callers()
    assert [entry.name for entry in named.entries] == ["gpu-lab", "gpu-7"]
    told = {"name": "gpu-7", "role": "worker", "namespaces": ["default"], "certificate": "gpu-7.lab.example"}
    environ = {"ESPALIER_COORDINATOR_HOST": "127.0.0.1", "ESPALIER_COORDINATOR_CLIENT_CA": "lab.crt"}
    prepared = shell.start(TLS_COORDINATOR, **environ)
    curl = "curl -s --cacert espalier-data/tls/ca.crt https://localhost:8081"
    shell.until('"healthy"', f"{curl}/health")
    callers = yaml.safe_load((data / "callers.yaml").read_text())
    (data / "callers.yaml").write_text(yaml.safe_dump({"callers": [*callers["callers"], told]}))
    without_key = TLS_WORKER.replace('ESPALIER_WORKER_API_KEY="$(cat espalier-data/worker.token)"',
                                     "ESPALIER_WORKER_CERT_FILE=gpu.crt ESPALIER_WORKER_KEY_FILE=gpu.key")
    assert without_key != TLS_WORKER
    shell.start(without_key)
    shell.until('"healthy":1', f"{curl}/health")
    listed = shell.run(f"{curl}/v1/workers --cert gpu.crt --key gpu.key")
    assert '"namespace": "default"' in listed
    refused = shell.start(TLS_WORKER)  # a key alone: gRPC wants a certificate
    shell.until("session lost", f"cat *-{shell.running.index(refused)}.log")
    assert prepared.poll() is None


def page_callers() -> Callers:
    """Those of the page's YAML."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.M | re.S)
    return Callers(tuple(Entry.model_validate(item) for item in yaml.safe_load(text)["callers"]))


def test_the_pages_executor_is_the_example_and_short() -> None:
    page = (ROOT / "docs/how-to/custom-executor.md").read_text()
    (shown,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    example = (EXAMPLES / "my_executor.py").read_text()
    assert shown == example
    code = [line for line in example.splitlines() if line.strip() and not line.startswith('"""')]
    assert len(code) <= 15


async def test_plain_to_another_machine_is_refused() -> None:
    environ: dict[str, Any] = {"COORDINATOR_ADDRESS": "http://192.0.2.7:50051", "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "espalier_worker", "--check-settings", env=environ, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 78
    assert b"without TLS the key" in said
    assert httpx.URL("http://192.0.2.7:50051").host.encode() in said
