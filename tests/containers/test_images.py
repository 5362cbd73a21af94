"""Our images on a real kubelet: what they are made of, and what a container of them cannot do."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import IO

import pytest

from espalier_local import api, loading, pushing, recipe
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.containers import LinuxHost
from espalier_local.debian import USER
from espalier_local.imagebuilder import file_of
from espalier_local.places import Places
from tests.support.machines import eventually, kubectl, pod, ready, tried

pytestmark = pytest.mark.cluster

READ_ONLY = {"readOnlyRootFilesystem": True}
DISTRIBUTIONS = (
    "import json, os; from importlib.metadata import distributions;"
    "found = sorted([x.name.lower().replace('_', '-'), x.version] for x in distributions());"
    "print(json.dumps({'uid': os.getuid(), 'found': found}))"
)
WRITES = "open('/tmp/of-the-image', 'w')"
"""A directory that anybody may write to, were it not for the root file system."""
FORKS = """
import os, time
made = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
    except OSError as error:
        print('no more processes after', made, error.errno)
        raise SystemExit(7)
    made += 1
"""


def image(program: str, places: Places) -> str:
    """The reference that charts use."""
    return recipe.image_name(program, recipe.read_project((places.checkout / "pyproject.toml").read_text()).version)


def ended(lab: Cluster, name: str) -> tuple[int, str]:
    """Exit code and log of a pod that has ended by itself."""
    path = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"
    eventually(lambda: bool(kubectl(lab, "get", "pod", name, f"--output={path}")), f"the end of pod {name}", 60.0)
    return int(kubectl(lab, "get", "pod", name, f"--output={path}")), kubectl(lab, "logs", name)


def test_every_program_starts_unprivileged_with_a_read_only_root(released: Cluster, places: Places) -> None:
    api.apply(released.kubeconfig, [
        pod(f"version-{program}", "--version", image=image(program, places), memory="256Mi", security=READ_ONLY,
            command=(f"espalier-{program}",))
        for program in recipe.PROGRAMS
    ])  # fmt: skip
    for program in recipe.PROGRAMS:
        code, log = ended(released, f"version-{program}")
        assert code == 0
        assert log.split()[-1] == image(program, places).partition(":")[2]


def test_the_bill_of_materials_names_what_is_installed(released: Cluster, built: Built, places: Places) -> None:
    """The bill in the image, the one beside it, and what Python finds in a container are the same."""
    api.apply(released.kubeconfig, [
        pod("materials", "-c", DISTRIBUTIONS, image=image("worker", places), memory="128Mi", security=READ_ONLY,
            command=("python",))
    ])  # fmt: skip
    (worker,) = built.of("worker")
    inside = file_of(built.store, worker, "usr/share/sbom/espalier-worker.cdx.json")
    assert inside == (built.bills / "espalier-worker.cdx.json").read_bytes()
    components = json.loads(inside)["components"]
    listed = sorted([c["name"], c["version"]] for c in components if c["purl"].startswith("pkg:pypi/"))
    code, log = ended(released, "materials")
    assert code == 0
    told = json.loads(log)
    assert told["uid"] == USER
    assert listed == [entry for entry in told["found"] if entry[0] != "espalier"]
    debian = {c["name"] for c in components if c["purl"].startswith("pkg:deb/")}
    assert {"libc6", "python3.11-minimal", "dash"} <= debian


def test_labels_tell_version_and_revision(built: Built) -> None:
    for program, found in zip(recipe.PROGRAMS, built.images, strict=True):
        config = json.loads(built.store.blob(found.blobs[0]).read_text())["config"]
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        assert labels["title"] == f"espalier-{program}"
        assert labels["version"] == found.name.partition(":")[2]
        assert len(labels["revision"].removesuffix("-dirty")) == 40
        assert config["User"] == f"{USER}:{USER}"


def test_images_are_pushed_under_their_names(built: Built, places: Places, tmp_path: Path) -> None:
    """Into files, twice: as the files that `docker load` reads they name what the Compose example asks for."""
    for told in (list(pushing.push(places, f"docker-archive:{tmp_path}")) for _ in range(2)):
        assert len(told) == len(recipe.PROGRAMS)
    for program in recipe.PROGRAMS:
        with tarfile.open(pushing.archive(str(tmp_path), program)) as archive:
            (entry,) = json.load(member(archive, "manifest.json"))
            assert image(program, places) in entry["RepoTags"]
            assert json.load(member(archive, entry["Config"]))["config"]["Cmd"] == [f"espalier-{program}"]


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found


def test_images_share_their_layers_and_travel_once(released: Cluster, built: Built, tmp_path: Path) -> None:
    """All four have one base; a node that has an image is given nothing, one that has its layers little."""
    assert len({found.blobs[1] for found in built.images}) == 1
    (host,) = (host for host in released.hosts if isinstance(host, LinuxHost))
    loading.load(host.containerd, built.store, built.images)
    assert loading.load(host.containerd, built.store, built.images) == ()
    (operator,), (coordinator,) = built.of("operator"), built.of("coordinator")
    with (tmp_path / "images.tar").open("wb") as archive:
        written = built.store.pack([coordinator], operator.blobs, archive)
    assert written < len(coordinator.blobs) + 1
    assert (tmp_path / "images.tar").stat().st_size < coordinator.packed_bytes / 2


def test_a_container_that_writes_outside_its_volumes_is_refused(released: Cluster, places: Places) -> None:
    api.apply(released.kubeconfig, [
        pod("writer", "-c", WRITES, image=image("worker", places), memory="128Mi", security=READ_ONLY,
            command=("python",))
    ])  # fmt: skip
    code, log = ended(released, "writer")
    assert code == 1
    assert "Read-only file system" in log


def test_a_container_that_would_run_as_root_is_refused_twice(released: Cluster, places: Places) -> None:
    """By Pod Security where the namespace says so, by the kubelet where it does not."""
    security, command = {"runAsUser": 0}, ("espalier-worker",)
    root = pod("root", "--version", image=image("worker", places), security=security, command=command)
    refused = tried(released, "apply", "-f", "-", stdin=json.dumps(root))
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr
    kubectl(released, "create", "namespace", "lenient")
    root["metadata"] = {"name": "root", "namespace": "lenient"}
    kubectl(released, "apply", "-f", "-", stdin=json.dumps(root))
    path = "jsonpath={.status.containerStatuses[0].state.waiting}"
    query = ("get", "pod", "root", "--namespace=lenient", f"--output={path}")
    eventually(lambda: "CreateContainerConfigError" in kubectl(released, *query), "refused by the kubelet")
    assert "non-root" in kubectl(released, *query)


def test_a_container_that_forks_without_end_is_stopped(released: Cluster, places: Places) -> None:
    api.apply(released.kubeconfig, [
        pod("forks", "-c", FORKS, image=image("worker", places), memory="1Gi", security=READ_ONLY, command=("python",))
    ])  # fmt: skip
    code, log = ended(released, "forks")
    assert code == 7
    made, errno = log.removeprefix("no more processes after ").split()
    assert 100 < int(made) < 512
    assert errno == "11"
    assert "linux-1" in ready(released)
