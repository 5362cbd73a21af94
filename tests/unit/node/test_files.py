"""Volumes: what they hold, how it gets there, where containers see it."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from espalier_kit.clock import ManualClock
from espalier_kit.errors import Permanent
from espalier_kube.cluster import CONFIG_MAP, PERSISTENT_VOLUME_CLAIM, Object
from espalier_kube.fake import FakeCluster
from espalier_node import inside
from espalier_node.environment import Situation, Sources
from espalier_node.files import File, contents, references, tokens_of, write_atomically
from espalier_node.volumes import Volumes, mounts
from tests.support.node import container, pod

SITUATION = Situation(pod_ip="127.77.1.10", host_ip="127.77.1.1", node_name="linux-1", allocatable={})
SOURCES = Sources(
    config_maps={"settings": {"data": {"a": "1", "b": "2"}}, "gone": None},
    secrets={"key": {"data": {"password": base64.b64encode(b"s").decode()}}},
)  # fmt: skip

CONTENTS: dict[str, tuple[Object, dict[str, File]]] = {
    "config map": ({"configMap": {"name": "settings"}}, {"a": File(b"1"), "b": File(b"2")}),
    "items": (
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}},
        {"x/y": File(b"1", 0o400)},
    ),
    "secret": ({"secret": {"secretName": "key", "defaultMode": 0o440}}, {"password": File(b"s", 0o440)}),
    "optional": ({"configMap": {"name": "gone", "optional": True}}, {}),
    "labels": (
        {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"l": File(b'app="say \\"hi\\""')},
    ),
    "projected": (
        {"projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "settings"}},
            {"secret": {"name": "key", "items": [{"key": "password", "path": "p"}]}},
        ]}},
        {"token": File(b"t", 0o600), "a": File(b"1"), "b": File(b"2"), "p": File(b"s")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_contents(case: str) -> None:
    volume, expected = CONTENTS[case]
    owner = pod(metadata={"labels": {"app": 'say "hi"'}})
    assert contents(volume, owner, SOURCES, SITUATION, {"token": "t"}) == expected


@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        ({"configMap": {"name": "gone"}}, "ConfigMap gone does not exist"),
        ({"secret": {"secretName": "key", "items": [{"key": "x", "path": "x"}]}}, "Secret key has no key x"),
        ({"configMap": {"name": "settings", "items": [{"key": "a", "path": "../x"}]}}, "leaves its volume"),
    ],
    ids=["object", "key", "path"],
)
def test_what_is_missing_is_named(volume: Object, sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence) as caught:
        contents(volume, pod(), SOURCES, SITUATION, {})
    assert caught.value.reason == "FailedMount"


def test_references_and_tokens() -> None:
    volume = CONTENTS["projected"][0]
    assert references([volume, {"secret": {"secretName": "other"}}]) == ({"settings"}, {"key", "other"})
    assert [(t.path, t.audience, t.expiration_s) for t in tokens_of(volume)] == [("token", None, 3600)]


def own_nothing(_path: Path) -> None:
    return


def test_an_update_is_one_swap(tmp_path: Path) -> None:
    assert write_atomically(tmp_path, {"a": File(b"1"), "d/b": File(b"2", 0o400)}, own_nothing)
    first = (tmp_path / "..data").resolve()
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "d" / "b").stat().st_mode & 0o777 == 0o400
    assert not write_atomically(tmp_path, {"a": File(b"1"), "d/b": File(b"2", 0o400)}, own_nothing)
    assert write_atomically(tmp_path, {"a": File(b"3"), "c": File(b"4")}, own_nothing)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if not path.name.startswith("..")} == {
        "a": "3", "c": "4",
    }  # fmt: skip
    assert not first.exists()


def test_a_swap_that_an_agent_did_not_live_to_finish_is_finished_by_the_next(tmp_path: Path) -> None:
    wished = {"a": File(b"1"), "b": File(b"2")}
    write_atomically(tmp_path, {"a": File(b"0"), "gone": File(b"0")}, own_nothing)
    old = (tmp_path / "..data").resolve()
    write_atomically(tmp_path, wished, own_nothing)
    (tmp_path / "b").unlink()  # as it is right after the swap
    (tmp_path / "gone").symlink_to("..data/gone")
    old.mkdir()
    assert not write_atomically(tmp_path, wished, own_nothing)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["a", "b"]
    assert not old.exists()


def test_the_owner_of_a_tree_s_root_is_the_last_to_change(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    for path in ("a", "d/b", "d/e/c"):
        (tmp_path / path).touch()
    (tmp_path / "d" / "link").symlink_to("/etc")
    found = [(name, None if held is None else os.readlink(f"/proc/self/fd/{held}"))
             for name, held in inside.deepest_first(tmp_path)]
    top, below, lowest = (str(path.resolve()) for path in (tmp_path, tmp_path / "d", tmp_path / "d" / "e"))
    assert found[0] == ("c", lowest)
    assert set(found[1:4]) == {("b", below), ("e", below), ("link", below)}
    assert set(found[4:6]) == {("a", top), ("d", top)}
    assert found[6:] == [(top, None)]


def test_mounts_go_outer_before_inner_and_stay_inside(tmp_path: Path) -> None:
    made = container(volumeMounts=[
        {"name": "w", "mountPath": "/data/in", "subPath": "x"}, {"name": "w", "mountPath": "data/"},
        {"name": "s", "mountPath": "/etc/s"}, {"name": "w", "mountPath": "/e", "subPathExpr": "$(N)"},
    ])  # fmt: skip
    owner = pod(made, volumes=[{"name": "w", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "key"}}])
    paths = {"w": tmp_path / "w", "s": tmp_path / "s"}
    for path in paths.values():
        path.mkdir()
    found = mounts(owner.main[0], owner, paths, {"N": "y"})
    assert [(str(m.source.relative_to(tmp_path)), m.target, m.is_read_only) for m in found] == [
        ("w", "/data", False), ("w/y", "/e", False), ("w/x", "/data/in", False), ("s", "/etc/s", True),
    ]  # fmt: skip


@pytest.mark.parametrize("below", ["../x", "/x", "link", "link/new/x", "hidden/x", "loop/x"])
def test_sub_paths_do_not_lead_out(tmp_path: Path, below: str) -> None:
    volume, beside = tmp_path / "w", tmp_path / "beside"
    for directory in (volume, beside):
        directory.mkdir()
    for name, target in (("link", "../beside"), ("hidden", "../none"), ("loop", "loop")):
        (volume / name).symlink_to(target)
    with pytest.raises(Permanent, match=r"leaves its volume|leads out|cannot be made: Not a directory"):
        mounted(volume, below)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "w"]
    assert list(beside.iterdir()) == []


def test_sub_paths_are_made_and_found_also_by_links_that_stay(tmp_path: Path) -> None:
    (tmp_path / "w" / "real").mkdir(parents=True)
    (tmp_path / "w" / "link").symlink_to("real")
    assert mounted(tmp_path / "w", "link/a/b") == tmp_path / "w" / "real" / "a" / "b"
    assert (tmp_path / "w" / "real" / "a" / "b").stat().st_mode & 0o777 == 0o777


def test_a_step_that_becomes_a_link_meanwhile_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a").symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory"), inside.directory(tmp_path / "w", Path("a/x")):
        raise AssertionError("it was taken")
    assert not (tmp_path / "x").exists()


def mounted(volume: Path, below: str) -> Path:
    """What a mount with this subPath shows."""
    owner = pod(container(volumeMounts=[{"name": "w", "mountPath": "/m", "subPath": below}]))
    (found,) = mounts(owner.main[0], owner, {"w": volume}, {})
    return found.source


class CountingCluster(FakeCluster):
    """Tells how many tokens were asked for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.clock, self.asked = clock, 0

    async def create_token(
        self, service_account: str, namespace: str, *, audience: str | None, expiration_s: int,
        bound_pod: tuple[str, str] | None = None,
    ) -> tuple[str, str]:  # fmt: skip
        self.asked += 1
        return f"token-{self.asked}", (self.clock.now() + timedelta(seconds=expiration_s)).isoformat()


async def test_tokens_are_renewed_before_four_fifths_of_their_life(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    cluster = CountingCluster(clock)
    volume = {"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "x", "expirationSeconds": 600}},
    ]}}  # fmt: skip
    owner = pod(volumes=[volume])
    volumes = Volumes(cluster, clock, tmp_path, user=0, group=0)
    seen = []
    for seconds in (0, 470, 20):
        await clock.advance(seconds)
        path = (await volumes.prepare(owner, SITUATION))["t"] / "token"
        seen.append(path.read_text())
    assert seen == ["token-1", "token-1", "token-2"]


async def test_a_changed_config_map_reaches_the_volume(tmp_path: Path) -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    meta = {"name": "settings", "namespace": "class"}
    await cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}})
    owner = pod(volumes=[{"name": "s", "configMap": {"name": "settings"}}])
    volumes = Volumes(cluster, clock, tmp_path, user=0, group=0)
    path = (await volumes.prepare(owner, SITUATION))["s"] / "a"
    assert path.read_text() == "1"
    await cluster.patch(CONFIG_MAP, "settings", "class", {"data": {"a": "2"}})
    await volumes.prepare(owner, SITUATION)
    assert path.read_text() == "2"


async def test_local_claims_are_mounted_and_others_refused(tmp_path: Path) -> None:
    cluster = FakeCluster(clock=ManualClock())
    for name, source in (("here", {"local": {"path": str(tmp_path)}}), ("there", {"nfs": {"path": "/x"}})):
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": source}
        meta = {"name": name, "namespace": "class"}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": {"volumeName": name}}
        await cluster.create(volume)
        await cluster.create(claim)
        bound = {"status": {"phase": "Bound"}}
        await cluster.patch(PERSISTENT_VOLUME_CLAIM, name, "class", bound, subresource="status")
    volumes = Volumes(cluster, ManualClock(), tmp_path / "v", user=0, group=0)

    def with_claim(name: str) -> Object:
        return {"name": "d", "persistentVolumeClaim": {"claimName": name}}

    assert (await volumes.prepare(pod(volumes=[with_claim("here")]), SITUATION))["d"] == tmp_path
    with pytest.raises(Permanent, match="bound to a volume that is not `local`"):
        await volumes.prepare(pod(volumes=[with_claim("there")]), SITUATION)
    with pytest.raises(Permanent, match="none is not bound"):
        await volumes.prepare(pod(volumes=[with_claim("none")]), SITUATION)


async def test_an_empty_volume_that_an_agent_did_not_live_to_open_is_opened_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "..w").mkdir(mode=0o700)
    volumes = Volumes(FakeCluster(clock=ManualClock()), ManualClock(), tmp_path, user=0, group=0)
    path = (await volumes.prepare(pod(volumes=[{"name": "w", "emptyDir": {}}]), SITUATION))["w"]
    assert path.stat().st_mode & 0o777 == 0o777
    assert os.listdir(tmp_path) == ["w"]
