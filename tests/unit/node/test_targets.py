"""Where a pod may mount: nothing that root runs or reads in its view can be covered, directly or through a link."""

from __future__ import annotations

import pytest

from espalier_node import targets
from tests.support.node import container


def problems(*paths: str, message: str = targets.MESSAGE_PATH) -> list[str]:
    """Of mounts of a volume each, `v0` being the only one that containers write to."""
    mounts = [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(paths)]
    return list(targets.problems(container(volumeMounts=mounts, terminationMessagePath=message), {"v0"}))


@pytest.mark.parametrize("path", [
    "/", "/usr", "/usr/sbin", "usr/bin/setpriv", "/bin", "/sbin/mount", "/lib", "/lib64/x", "/libx32", "/proc/1",
    "/sys", "/dev", "/dev/null", "/dev/termination-log", "/etc", "/etc/ld.so.preload", "/etc/alternatives",
    "/etc/ld.so.conf.d/x", "//usr/lib", "/data/../usr/sbin", "/data/../..", "/./bin/",
])  # fmt: skip
def test_the_machines_own_places_are_refused(path: str) -> None:
    sentence, *_ = problems(path)
    assert sentence.startswith(f"container main: mountPath {targets.normal(path)} is not available on this node")


@pytest.mark.parametrize("path", [
    "/tmp", "/data", "data/", "/dev/shm", "/etc/espalier/tls", "/etc/ssl/certs", "/var/run/secrets/espalier",
    "/library", "/users", "/opt", "/root",
])  # fmt: skip
def test_others_are_free(path: str) -> None:
    assert problems(path) == []


@pytest.mark.parametrize(("path", "is_refused"), [
    ("/tmp/message", False), ("/dev/shm/message", False), ("/usr/bin/setpriv", True), ("/dev/other", True),
    ("/data/message", True),
])  # fmt: skip
def test_a_message_is_written_like_a_mount(path: str, is_refused: bool) -> None:
    found = problems("/data", message=path)
    assert bool(found) is is_refused
    assert all("terminationMessagePath" in sentence for sentence in found)


@pytest.mark.parametrize(("inner", "is_refused"), [
    ("/data/in", True), ("/data/a/../b/c", True), ("/data", False), ("/database", False), ("/other", False),
])  # fmt: skip
def test_no_mount_lies_inside_a_volume_that_containers_write_to(inner: str, is_refused: bool) -> None:
    found = problems("/data", inner)
    assert ["lies inside volume v0" in sentence for sentence in found] == [True] * is_refused


def test_a_mount_inside_a_volume_of_files_is_fine() -> None:
    assert problems("/tmp", "/etc/app", "/etc/app/certificates") == []
