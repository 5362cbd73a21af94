"""Configuration of a Linux host: its own paths, addresses and cgroup, nothing pulled, nothing shared."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from espalier_kit.errors import Misconfigured
from espalier_local import dns, gvisor
from espalier_local.addresses import Cables, Range
from espalier_local.assets import Assets
from espalier_local.cluster import is_node
from espalier_local.containerd import containerd_config, ctr, network_config
from espalier_local.containers import Cable, LinuxHost, MacHost, hosts_of, unproxied
from espalier_local.controlplane import COMPONENTS, specs
from espalier_local.hosts import container_profiles
from espalier_local.images import TINY_IMAGE, archive
from espalier_local.kubelet import kubelet_config, kubelet_flags
from espalier_local.layout import Layout
from espalier_local.machine import Machine, builder_problem, demand, problem
from espalier_local.pki import Pki
from espalier_local.processes import ProcessHost
from espalier_local.record import Record
from espalier_local.remains import all_cgroup_roots, cgroup_roots, mounts_under
from espalier_node.settings import parse_file

CABLES = Cables(7)
BINARIES = (*COMPONENTS, "kubelet", "kube-proxy", "tiny", "runsc", "containerd-shim-runsc-v1")
HYBRID = """proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


@pytest.fixture
def linux(tmp_path: Path) -> LinuxHost:
    assets = Assets({name: tmp_path / name for name in BINARIES})
    found = hosts_of(Layout(tmp_path), CABLES, container_profiles(1), assets, Path("/usr/lib/cni"))[0]
    assert isinstance(found, LinuxHost)
    return found


def test_containerd_keeps_to_its_own_directory(linux: LinuxHost, tmp_path: Path) -> None:
    config = tomllib.loads(containerd_config(linux.containerd))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    runc = cri["containerd"]["runtimes"]["runc"]["options"]
    paths = (
        config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"], runc["Root"],
        config["plugins"]["io.containerd.internal.v1.opt"]["path"],
    )  # fmt: skip
    assert all(Path(path).is_relative_to(tmp_path / "nodes" / "linux-1") for path in paths)
    runsc = cri["containerd"]["runtimes"]["runsc"]
    assert runsc["runtime_type"] == str(tmp_path / "containerd-shim-runsc-v1")
    assert runsc["options"]["ConfigPath"] == str(linux.containerd.gvisor.config)
    settings = tomllib.loads(gvisor.settings(linux.containerd.gvisor))
    assert settings == {"binary_name": str(tmp_path / "runsc"), "root": f"{linux.directory}/state/runsc"}
    assert cri["sandbox_image"] == TINY_IMAGE
    assert runc["SystemdCgroup"] is False
    assert ctr(linux.containerd, "version")[1] == f"--address={config['grpc']['address']}"


def test_gvisors_runtime_class_fits_nodes_that_have_it(linux: LinuxHost) -> None:
    (runtime_class,) = gvisor.objects()
    (label,) = runtime_class["scheduling"]["nodeSelector"].items()
    assert any("=".join(label) in flag for flag in kubelet_flags(linux.kubelet, Path("/b")))
    cri = tomllib.loads(containerd_config(linux.containerd))["plugins"]["io.containerd.grpc.v1.cri"]
    assert runtime_class["handler"] in cri["containerd"]["runtimes"]


def test_pods_have_routed_addresses_of_the_host(linux: LinuxHost) -> None:
    bridge = network_config(linux.containerd)["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": CABLES.pods(1)}]]
    assert bridge["ipMasq"] is False


def test_the_kubelet_has_a_cgroup_and_an_address_of_its_own(linux: LinuxHost) -> None:
    config = kubelet_config(linux.kubelet)
    assert config["cgroupRoot"] == "/esp7-linux-1"
    assert config["address"] == CABLES.host(1)
    assert config["containerRuntimeEndpoint"] == f"unix://{linux.containerd.socket}"
    # Below the API server's 12 s grace, a quarter of it is when the Lease is renewed.
    assert config["nodeLeaseDurationSeconds"] == 8
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_the_kubelet_joins_by_bootstrap_as_a_linux_node(linux: LinuxHost, tmp_path: Path) -> None:
    flags = kubelet_flags(linux.kubelet, tmp_path / "bootstrap.kubeconfig")
    assert f"--bootstrap-kubeconfig={tmp_path / 'bootstrap.kubeconfig'}" in flags
    assert f"--node-ip={CABLES.host(1)}" in flags
    assert "--node-labels=espalier.dev/node-kind=linux,espalier.dev/gvisor=true" in flags


def test_every_process_of_a_linux_host_runs_on_its_network_without_proxies(linux: LinuxHost) -> None:
    runtime, kubelet, *others = linux.specs()
    assert [spec.name for spec in (runtime, kubelet, *others)] == [
        "linux-1.containerd", "linux-1", "linux-1.kube-proxy", "linux-1.policies",
    ]  # fmt: skip
    assert runtime.order < kubelet.order
    for spec in (runtime, kubelet, *others):
        assert spec.argv[:2] == ("nsenter", "--net=/run/netns/esp7-linux-1")
        assert spec.environment["HTTPS_PROXY"] == spec.environment["https_proxy"] == ""
    assert kubelet.after == (CABLES.server, 6443)


def test_a_mac_is_an_agent_at_its_cables_address(linux: LinuxHost, tmp_path: Path) -> None:
    profile = container_profiles(1)[1]
    cable = Cable(CABLES, profile.name, 2)
    agent = ProcessHost(profile, 2, Range(7), linux.control, tmp_path / "bootstrap.kubeconfig", cable)
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump(agent.settings()))
    settings = parse_file(file)
    assert (str(settings.address), settings.pod_range) == (CABLES.host(2), None)


def test_each_profile_has_its_host(tmp_path: Path) -> None:
    assets = Assets({name: tmp_path / name for name in BINARIES})
    found = hosts_of(Layout(tmp_path), CABLES, container_profiles(3), assets, Path("/usr/lib/cni"))
    addresses = [host.cable.address for host in found if isinstance(host, (LinuxHost, MacHost))]
    assert [host.name for host in found] == ["linux-1", "mac-studio-1", "mac-studio-2", "linux-2", "linux-3"]
    assert addresses == [CABLES.host(k) for k in range(1, 6)]


def test_only_the_api_server_listens_on_cables(tmp_path: Path) -> None:
    assets = Assets({name: tmp_path / name for name in COMPONENTS})
    planned = specs(assets, Pki(tmp_path / "pki"), Range(7), tmp_path / "etcd", cables=CABLES)
    on_cables = [spec.name for spec in planned if any(f"--bind-address={CABLES.server}" == flag for flag in spec.argv)]
    assert on_cables == ["kube-apiserver"]
    assert "--endpoint-reconciler-type=lease" in planned[1].argv
    assert "--etcd-servers=https://127.7.0.1:2379" in planned[1].argv
    assert all(spec.environment["HTTPS_PROXY"] == "" for spec in unproxied(planned))


def test_names_are_answered_on_the_switch_and_asked_of_nobody_else(tmp_path: Path) -> None:
    text = dns.corefile(CABLES, tmp_path / "kubeconfig")
    assert f"bind {CABLES.server}\n" in text
    assert "forward" not in text
    service, endpoints = dns.objects(CABLES)[2:]
    assert service["spec"]["clusterIP"] == dns.DNS_SERVICE
    assert endpoints["endpoints"] == [{"addresses": [CABLES.server]}]
    spec = dns.spec(Assets({"coredns": tmp_path / "coredns"}), Pki(tmp_path), CABLES, tmp_path / "Corefile")
    assert spec.authority
    assert not is_node(spec.name)


def test_a_helper_is_no_node(linux: LinuxHost) -> None:
    assert [spec.name for spec in linux.specs() if is_node(spec.name)] == ["linux-1"]


def test_a_record_knows_its_api_server() -> None:
    assert Record("a", Range(7)).server == "127.7.0.1"
    assert Record("a", Range(7), "container").server == "10.89.7.1"


def test_an_image_is_the_program_alone_and_the_same_every_time(tmp_path: Path) -> None:
    program = tmp_path / "tiny"
    program.write_bytes(b"ELF")
    made = archive("espalier.local/tiny:1", program, "pause")
    assert made == archive("espalier.local/tiny:1", program, "pause")
    with tarfile.open(fileobj=io.BytesIO(made)) as outer:

        def read(name: str) -> bytes:
            member = outer.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        with tarfile.open(fileobj=io.BytesIO(read(manifest["Layers"][0]))) as layer:
            assert [(entry.name, entry.mode) for entry in layer] == [("tiny", 0o755)]
    assert manifest["RepoTags"] == ["espalier.local/tiny:1"]
    assert config["config"]["Entrypoint"] == ["/tiny"]
    assert config["config"]["User"] != "0:0"


def machine(
    *, platform: str = "linux", root: bool = True, lacks: str = "", plugins: bool = True,
    controllers: Collection[str] = ("cpu", "memory", "pids"),
) -> Machine:  # fmt: skip
    return Machine(platform, root, lambda tool: tool != lacks, Path("/p") if plugins else None, controllers)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (machine(platform="darwin"), "need Linux"),
        (machine(root=False), "use sudo"),
        (machine(lacks="nft"), "nftables must be installed"),
        (machine(plugins=False), "apt install containernetworking-plugins"),
        (machine(controllers=("cpu", "pids")), "no control group for memory"),
    ],
    ids=["macOS", "user", "tool", "plugins", "cgroups"],
)
def test_an_unfit_machine_is_one_sentence(found: Machine, words: str) -> None:
    assert words in problem(found)
    with pytest.raises(Misconfigured, match="--nodes process works without"):
        demand(found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (machine(lacks="buildah"), "apt install buildah"),
        (machine(root=False), "the builder needs root"),
        (machine(), ""),
    ],
    ids=["tool", "user", "fit"],
)
def test_whether_images_can_be_built_is_one_sentence(found: Machine, words: str) -> None:
    sentence = builder_problem(found)
    assert words in sentence
    assert bool(words) == bool(sentence)


def test_a_fit_machine_gives_its_plugins() -> None:
    assert demand(machine()) == Path("/p")


def test_cgroups_of_both_kinds_of_machine() -> None:
    each = [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/memory")]
    assert cgroup_roots(HYBRID) == each
    assert all_cgroup_roots(HYBRID) == [*each, Path("/sys/fs/cgroup/unified")]
    assert cgroup_roots(UNIFIED) == all_cgroup_roots(UNIFIED) == [Path("/sys/fs/cgroup")]


def test_mounts_are_undone_from_the_inside() -> None:
    table = "a /c/x tmpfs rw 0 0\nb /c/x/in\\040ner tmpfs rw 0 0\nc /cx tmpfs rw 0 0\nd /c tmpfs rw 0 0\n"
    assert mounts_under(table, Path("/c")) == [Path("/c/x/in ner"), Path("/c/x")]
