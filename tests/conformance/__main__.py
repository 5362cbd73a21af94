"""`make conformance`: Kubernetes' own end-to-end tests against a local cluster of real Linux nodes.

Builds e2e.test and agnhost from their module, makes the three images, starts a cluster of its own, runs the tests one
after the other, writes docs/reference/conformance.md, takes the cluster down. Exit code 1 if a test failed that
the page does not explain.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from espalier_api.names import MLX_TAINT
from espalier_local import containers
from espalier_local.assets import GO_ENVIRONMENT, find_go
from espalier_local.cables import run
from espalier_local.cluster import Cluster, down, up
from espalier_local.containerd import ctr
from espalier_local.hosts import container_profiles
from espalier_local.places import Places, places_from
from espalier_local.progress import Progress, Terminal
from tests.conformance import images, page

AREAS = {
    "network": r"\[sig-network\] (Services|DNS).*\[Conformance\]",
    "apps": r"\[sig-apps\] (Job|Deployment|ReplicaSet|StatefulSet).*\[Conformance\]",
    "node": r"\[sig-node\].*\[Conformance\]",
    "api-machinery": r"\[sig-api-machinery\].*\[Conformance\]",
}
"""Which tests; those of one area run one after the other, areas beside each other, as most of a test is waiting."""
END = r"\[Conformance\]"
ALONE = r"\[Serial\]"
"""Tests that change nodes or count what is in the cluster run by themselves, at the end."""
NAME = "conformance"
TEST_PACKAGE, AGNHOST_PACKAGE = "k8s.io/kubernetes/test/e2e", "k8s.io/kubernetes/test/images/agnhost"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--focus", default="", help="regular expression of the tests to run; no page is written then")
    parser.add_argument("--timeout", default="2h", help="of the whole run (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    arguments = parser.parse_args()
    places, progress = places_from(os.environ), Terminal()
    home = places.cache / "conformance"
    home.mkdir(parents=True, exist_ok=True)
    programs = _programs(places, home, progress)
    try:
        with progress.step("cluster of two Linux nodes"):
            cluster = up(NAME, places, progress, profiles=container_profiles(2), kind="container")
        _keep_to_linux(cluster)
        with progress.step("images"):
            _load(cluster, home, programs)
        began = time.monotonic()
        suites = {"focus": arguments.focus} if arguments.focus else AREAS
        reports = _run_all(cluster, programs["e2e.test"], home, suites, arguments.timeout)
        results = sorted((result for report in reports for result in page.read(report)), key=lambda found: found.name)
        if not arguments.focus:
            page.write(places.checkout / "docs/reference/conformance.md", results,
                       selected=_selected(programs["e2e.test"]), seconds=time.monotonic() - began)
    finally:
        if not arguments.keep:
            down(NAME, places, progress)
    unexplained = [result for result in results if result.is_failure and page.reason_of(result.name) is None]
    for result in unexplained:
        print(f"FAILED {result.name}: {result.message}", file=sys.stderr)
    passed = sum(not result.is_failure for result in results)
    print(f"{passed} of {len(results)} passed; {len(results) - passed - len(unexplained)} failures are explained")
    return 1 if unexplained else 0


def _programs(places: Places, home: Path, progress: Progress) -> dict[str, Path]:
    """e2e.test and agnhost; go's own cache knows what has changed."""
    go, module = str(find_go(places.path)), places.tools / "conformance"
    environment = {**os.environ, **GO_ENVIRONMENT}
    built = {"e2e.test": home / "e2e.test", "agnhost": home / "agnhost"}
    with progress.step("building e2e.test and agnhost (the first time: minutes)"):
        for line in (
            [go, "test", "-c", "-vet=off", "-ldflags", "-s -w", "-o", str(built["e2e.test"]), TEST_PACKAGE],
            [go, "build", "-ldflags", "-s -w", "-o", str(built["agnhost"]), AGNHOST_PACKAGE],
        ):
            subprocess.run(line, cwd=module, env=environment, check=True)
    found = subprocess.run(
        [go, "list", "-f", "{{.Dir}}", AGNHOST_PACKAGE], cwd=module, env=environment, check=True, capture_output=True,
        text=True,
    )
    return {**built, "agnhost's sources": Path(found.stdout.strip())}


def _load(cluster: Cluster, home: Path, programs: dict[str, Path]) -> None:
    listed = subprocess.run([programs["e2e.test"], "--list-images"], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        directory = Path(scratch)
        images.agnhost_tree(directory / "agnhost", programs["agnhost"], programs["agnhost's sources"])
        images.busybox_tree(directory / "busybox")
        images.nginx_tree(directory / "nginx")
        images.pause_tree(directory / "pause", cluster.assets["tiny"])
        for name, recipe in (
            ("agnhost", images.AGNHOST_IMAGE), ("busybox", images.BUSYBOX_IMAGE), ("nginx", images.NGINX_IMAGE),
            ("pause", images.PAUSE_IMAGE),
        ):  # fmt: skip
            archive = directory / f"{name}.tar"
            images.pack(directory / name, images.names(listed, recipe), recipe, archive)
            for host in cluster.hosts:
                if isinstance(host, containers.LinuxHost):
                    run(ctr(host.containerd, "images", "import", str(archive)), timeout_s=300)


def _selected(program: Path) -> int:
    """How many tests the areas have."""
    command = [
        str(program), "--provider=skeleton", "--kubeconfig=/dev/null", "--ginkgo.dry-run", "--ginkgo.no-color",
        f"--ginkgo.focus={'|'.join(AREAS.values())}",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Ran (\d+) of", told)
    return int(found[1]) if found else 0


def _keep_to_linux(cluster: Cluster) -> None:
    """The tests take every schedulable node for a Linux one: the Macs' taint keeps pods away, cordoning says so."""
    kubectl = [str(cluster.assets["kubectl"]), f"--kubeconfig={cluster.kubeconfig}"]
    macs = [host.name for host in cluster.hosts if isinstance(host, containers.MacHost)]
    subprocess.run([*kubectl, "cordon", *macs], check=True, stdout=subprocess.DEVNULL)


def _run_all(cluster: Cluster, program: Path, home: Path, suites: Mapping[str, str], timeout: str) -> list[Path]:
    """Areas beside each other, then what must be alone; returns the reports."""
    reports = {name: home / f"{name}.xml" for name in (*suites, "alone")}
    for report in reports.values():
        report.unlink(missing_ok=True)
    running = [
        subprocess.Popen(_command(cluster, program, reports[name], focus=focus, skip=ALONE, timeout=timeout))
        for name, focus in suites.items()
    ]
    for process in running:
        process.wait()
    alone = "|".join(f"{focus.removesuffix(END)}.*{ALONE}.*{END}" for focus in suites.values())
    subprocess.run(_command(cluster, program, reports["alone"], focus=alone, skip="", timeout=timeout), check=False)
    return [report for report in reports.values() if report.exists()]


def _command(cluster: Cluster, program: Path, report: Path, *, focus: str, skip: str, timeout: str) -> list[str]:
    return [
        "env", *(f"{name}={value}" for name, value in containers.UNPROXIED.items()), str(program),
        "--provider=skeleton", f"--kubeconfig={cluster.kubeconfig}", f"--ginkgo.focus={focus}",
        *([f"--ginkgo.skip={skip}"] if skip else []), f"--ginkgo.junit-report={report}",
        f"--ginkgo.timeout={timeout}", "--ginkgo.no-color", "--ginkgo.succinct",
        f"--kubectl-path={cluster.assets['kubectl']}", "--allowed-not-ready-nodes=2",
        "--dump-logs-on-failure=false", f"--non-blocking-taints={MLX_TAINT},node-role.kubernetes.io/control-plane",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
