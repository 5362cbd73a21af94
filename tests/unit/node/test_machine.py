"""Settings, sandbox lines, Node objects, access."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier_kit.clock import ManualClock, SystemClock
from espalier_kit.errors import Forbidden, Misconfigured
from espalier_kube.cluster import LEASE, NODE, Object
from espalier_kube.fake import FakeCluster
from espalier_node import node, sandbox
from espalier_node.access import Access, Caller, caller_of, subresources
from espalier_node.machine.base import Facts, Pressure, View
from espalier_node.machine.linux import LinuxMachine
from espalier_node.machine.simulated import SimulatedMac
from espalier_node.metrics import Metrics
from espalier_node.node import NodeKeeper
from espalier_node.settings import NodeSettings, parse_file, read_settings

FACTS = Facts(
    operating_system="linux", architecture="amd64", cpus=2, memory_bytes=8 << 30, disk_bytes=100 << 30,
    machine_id="m", boot_id="b", kernel_version="6", os_image="Linux", labels={"espalier.dev/chip": "x"},
)  # fmt: skip
FINE = Pressure(memory_free_bytes=4 << 30, disk_free_bytes=50 << 30, pids_free=10_000)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE_S = 20.0


def settings(**fields: Any) -> NodeSettings:
    base = {"name": "mac-1", "address": "127.77.2.1", "state_dir": "/s", "bootstrap_kubeconfig": "/b"}
    return NodeSettings.model_validate({**base, **fields})


def test_a_settings_file_is_read_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump({
        "name": "linux-1", "address": "127.77.1.1", "pod_range": "127.77.1.0/24", "state_dir": "state",
        "bootstrap_kubeconfig": "b", "runtimes": {"x": "bin"},
    }))  # fmt: skip
    found = read_settings({"ESPALIER_NODE_CONFIG": str(path)})
    assert found.state_dir == tmp_path / "state"
    assert found.own_kubeconfig == tmp_path / "state" / "kubeconfig"
    assert found.runtime_directories()["x"] == tmp_path / "bin"
    assert set(found.runtime_directories()) == {"espalier-*", "x"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: Big\naddress: a\nstate_dir: s\nbootstrap_kubeconfig: b", "name: .*; address: "),
        ("name: a\naddress: 127.0.0.1\nstate_dir: s\nbootstrap_kubeconfig: b\ncolour: red", "colour: Extra inputs"),
        ("name: a\naddress: 127.0.0.1\nstate_dir: s\nbootstrap_kubeconfig: b\nlease_duration_s: 2", "must be shorter"),
        ("{", "is not YAML"),
    ],
    ids=["values", "unknown", "lease", "syntax"],
)
def test_wrong_settings_are_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=sentence):
        parse_file(path)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [({}, "ESPALIER_NODE_CONFIG: Field required"), ({"ESPALIER_NODE_CONFIG": "/no/such"}, "cannot read /no/such")],
    ids=["unset", "absent"],
)
def test_a_missing_file_is_a_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        read_settings(environ)


def line(*, is_root: bool, mounts: tuple[tuple[Path, str, bool], ...] = (), readable: tuple[Path, ...] = ()) -> str:
    view = View(hostname="p", user=1, group=2, groups=(), mounts=mounts, readable=readable)
    return " ".join(
        sandbox.command_line(view, ["x"], bubblewrap="bwrap", is_root=is_root, links={"/bin": "usr/bin"}, etc=["ssl"])
    )


def test_root_builds_the_view_and_drops_inside() -> None:
    found = line(is_root=True)
    assert "--bind /proc /proc" in found
    assert "--symlink usr/bin /bin" in found
    assert "--userspec=+1:+2 --groups= / setpriv" in found
    assert found.endswith("--ambient-caps=-all --inh-caps=-all --bounding-set=-all -- x")


def test_what_root_runs_lies_over_all_that_a_pod_mounts() -> None:
    found = line(is_root=True, readable=(Path("/usr/local/py"),), mounts=((Path("/s/v"), "/usr/sbin", False),))
    assert found.index("--bind /s/v /usr/sbin") < found.index("--ro-bind-try /usr /usr --symlink usr/bin /bin")
    assert "/usr/local/py" not in found


def test_no_step_of_root_asks_who_a_user_is() -> None:
    view = View(hostname="p", user=1, group=2, groups=(3, 4), mounts=(), readable=())
    words = sandbox.drop(view)
    assert {word for word in words if any(number in word for number in "1234")} == {
        "--userspec=+1:+2", "--groups=+3,+4",
    }  # fmt: skip


def test_an_ordinary_user_needs_no_setpriv() -> None:
    found = line(is_root=False)
    assert "setpriv" not in found
    assert "--proc /proc" in found
    assert found.endswith("--ro-bind-try /opt/homebrew /opt/homebrew --remount-ro / --chdir / -- x")


def test_parents_of_a_mount_can_be_entered_and_a_volume_does_not_hide_the_interpreter() -> None:
    home = Path("/home")
    found = line(is_root=True, readable=(home / "me" / "py",), mounts=((Path("/s/v"), "/home", False),))
    volume, parent, interpreter = (
        found.index(part) for part in ("--bind /s/v /home", "--perms 0755 --dir /home/me", "/home/me/py /home/me/py")
    )
    assert volume < parent < interpreter


def test_paths_inside_others_are_bound_once() -> None:
    assert sandbox.outermost([Path("/a/b"), Path("/a"), Path("/ab"), Path("/a")]) == (Path("/a"), Path("/ab"))


def test_this_machine_tells_its_facts_and_processes(tmp_path: Path) -> None:
    machine = LinuxMachine(tmp_path)
    assert machine.facts().cpus >= 1
    assert machine.pressure().memory_free_bytes > 0
    assert machine.identity(os.getpid()) == machine.identity(os.getpid())
    assert machine.identity(2**22 + 1) is None


def test_a_simulated_mac_has_the_profile_and_the_hosts_cpus(tmp_path: Path) -> None:
    host = LinuxMachine(tmp_path)
    facts = SimulatedMac(host, chip="Apple M3 Ultra", memory_gb=512).facts()
    assert (facts.operating_system, facts.architecture, facts.cpus) == ("darwin", "arm64", host.facts().cpus)
    assert facts.memory_bytes == 512 << 30
    assert facts.labels == {"espalier.dev/chip": "apple-m3-ultra", "espalier.dev/memory-gb": "512"}


def test_a_mac_is_registered_with_its_taint_and_one_metal() -> None:
    mac = settings(kind="mlx", simulated=True)
    made = node.registration(mac, FACTS)
    assert made["spec"]["taints"] == [{"key": "espalier.dev/mlx", "effect": "NoSchedule"}]
    assert made["metadata"]["labels"]["espalier.dev/simulated"] == "true"
    assert node.capacity(mac, FACTS)["espalier.dev/metal"] == "1"
    assert "espalier.dev/metal" not in node.capacity(settings(), FACTS)
    assert "taints" not in node.registration(settings(), FACTS)["spec"]


@pytest.mark.parametrize(
    ("pressure", "problem", "false_or_true"),
    [
        (FINE, None, {"Ready": "True", "MemoryPressure": "False"}),
        (FINE, "no disk", {"Ready": "False"}),
        (Pressure(1, 1, 1), None, {"MemoryPressure": "True", "DiskPressure": "True", "PIDPressure": "True"}),
    ],
    ids=["fine", "ill", "pressed"],
)
def test_conditions(pressure: Pressure, problem: str | None, false_or_true: dict[str, str]) -> None:
    found = node.status(settings(), FACTS, pressure, problem=problem, old={}, now=NOW)["conditions"]
    by_type = {c["type"]: c for c in found}
    assert {name: by_type[name]["status"] for name in false_or_true} == false_or_true
    assert by_type["Ready"]["message"] == (problem or "the node agent runs pods")


class Keeping:
    """A NodeKeeper on a fake API server, with a health that the test decides."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.problem: str | None = None
        self.cluster = FakeCluster(clock=self.clock)
        check: Callable[[], str | None] = lambda: self.problem  # noqa: E731 - a test's one-liner
        self.keeper = NodeKeeper(
            settings(lease_duration_s=8, lease_renew_s=2), self.cluster, self.clock, Metrics(), facts=lambda: FACTS,
            pressure=lambda: FINE, check=check,
        )  # fmt: skip

    async def renewed(self) -> str:
        lease = await self.cluster.get(LEASE, "mac-1", "kube-node-lease")
        return str(lease["spec"]["renewTime"])


async def test_the_lease_is_renewed_while_healthy_and_only_then() -> None:
    world = Keeping()
    await world.keeper.register()
    task = asyncio.create_task(world.keeper.keep_lease())
    try:
        await world.clock.advance(0.1)
        first = await world.renewed()
        await world.clock.advance(2)
        second = await world.renewed()
        world.problem = "the disk is full"
        await world.clock.advance(10)
        assert first < second == await world.renewed()
        world.problem = None
        await world.clock.advance(2)
        assert await world.renewed() > second
        await world.cluster.delete(LEASE, "mac-1", "kube-node-lease")
        await world.clock.advance(4)
        assert await world.renewed() > second
    finally:
        task.cancel()


class HangingCluster(FakeCluster):
    """Leaves its first renewal of a Lease without an answer."""

    def __init__(self) -> None:
        super().__init__(clock=SystemClock())
        self.has_hung, self.renewed = False, asyncio.Event()

    async def replace(self, obj: Object, *, subresource: str | None = None) -> Object:
        if not self.has_hung:
            self.has_hung = True
            await asyncio.Event().wait()
        self.renewed.set()
        return await super().replace(obj, subresource=subresource)


async def test_a_call_without_an_answer_costs_one_renewal_and_not_the_lease() -> None:
    cluster = HangingCluster()
    keeper = NodeKeeper(
        settings(lease_duration_s=1, lease_renew_s=0.5), cluster, SystemClock(), Metrics(), facts=lambda: FACTS,
        pressure=lambda: FINE, check=lambda: None,
    )  # fmt: skip
    await keeper.register()
    task = asyncio.create_task(keeper.keep_lease())
    try:
        await asyncio.wait_for(cluster.renewed.wait(), DEADLINE_S)
    finally:
        task.cancel()
    assert cluster.has_hung


def test_a_try_that_hangs_leaves_time_for_another() -> None:
    usual = settings()
    assert usual.lease_renew_s + node.patience_s(usual) < usual.lease_duration_s - 1


async def test_a_deleted_node_registers_again_and_an_unchanged_one_is_left_alone() -> None:
    world = Keeping()
    first = await world.keeper.register()
    task = asyncio.create_task(world.keeper.keep_status())
    try:
        await world.clock.advance(100)
        same = await world.cluster.get(NODE, "mac-1")
        assert same["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        await world.cluster.delete(NODE, "mac-1")
        await world.clock.advance(11)
        again = await world.cluster.get(NODE, "mac-1")
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        assert again["status"]["conditions"]
    finally:
        task.cancel()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pods", ("pods", "proxy")), ("/metrics", ("metrics",)), ("/stats/summary", ("stats",)),
        ("/containerLogs/a/b/c", ("proxy",)), ("/metricsx", ("proxy",)),
    ],
)  # fmt: skip
def test_paths_need_their_subresource(path: str, expected: tuple[str, ...]) -> None:
    assert subresources(path) == expected


def test_a_certificates_user() -> None:
    subject = ((("organizationName", "system:masters"),), (("commonName", "apiserver"),))
    assert caller_of({"subject": subject}) == Caller("apiserver", ("system:masters", "system:authenticated"))
    assert caller_of({"subject": ()}) is None


class ReviewingCluster(FakeCluster):
    """Answers reviews: tokens are user names, and only `proxy` is allowed."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked = 0

    async def create(self, obj: Object) -> Object:
        self.asked += 1
        if obj["kind"] == "TokenReview":
            name = obj["spec"]["token"]
            return {"status": {"authenticated": name != "stolen", "user": {"username": name, "groups": ["g"]}}}
        attributes = obj["spec"]["resourceAttributes"]
        return {"status": {"allowed": (attributes["subresource"], obj["spec"]["user"]) == ("proxy", "monitor")}}


async def test_access_is_asked_once_in_half_a_minute() -> None:
    clock = ManualClock()
    cluster = ReviewingCluster(clock)
    access = Access(cluster, clock, "mac-1")
    assert await access.by_token("stolen") is None
    caller = await access.by_token("monitor")
    assert caller == Caller("monitor", ("g",))
    await access.require(caller, "GET", "/pods")
    asked = cluster.asked
    await access.require(caller, "GET", "/pods")
    assert cluster.asked == asked
    await clock.advance(31)
    await access.require(caller, "GET", "/pods")
    assert cluster.asked == asked + 2
    with pytest.raises(Forbidden, match="monitor may not get nodes/metrics of mac-1"):
        await access.require(caller, "GET", "/metrics")


def test_lease_times_are_far_apart_enough() -> None:
    assert timedelta(seconds=settings().lease_duration_s) > timedelta(seconds=settings().lease_renew_s)
