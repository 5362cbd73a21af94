"""Hosts on cables: Linux hosts with a real kubelet and containerd, Macs as node agents, each on a network of its own.

Needs Linux and root. What they make in the kernel carries the cluster's number in its name, so that `remove` finds it
after any crash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from espalier_kit.certificates import KeyPair, issue
from espalier_kit.errors import Permanent, Retryable
from espalier_local import api, dns, gvisor, loading, metricsserver, policies, remains, shaping
from espalier_local import cables as wires
from espalier_local.addresses import API_PORT, Cables, Range
from espalier_local.assets import Assets
from espalier_local.containerd import ContainerdPlan, containerd_config, ctr, network_config
from espalier_local.control import Control, is_phase
from espalier_local.files import write_atomically
from espalier_local.gvisor import Gvisor
from espalier_local.hosts import CONTAINER_PROFILES, Host, HostProfile
from espalier_local.images import TINY_IMAGE, archive
from espalier_local.imagestore import Image, Store
from espalier_local.kubelet import KubeletPlan, kubelet_config, kubelet_flags, proxy_flags
from espalier_local.layout import Layout
from espalier_local.pki import Pki
from espalier_local.processes import NODE_ORDER, ProcessHost
from espalier_local.supervised import Phase, ProcessSpec, Wish

RUNTIME_TIMEOUT_S = 60.0
ADDONS = (dns.DNS, metricsserver.METRICS_SERVER)
"""Processes beside the control plane."""
_LOOK_S = 0.05
_POSITIONS: Mapping[str, int] = {profile.name: k for k, profile in enumerate(CONTAINER_PROFILES, start=1)}
UNPROXIED = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), "")
"""Cable addresses are not loopback: a proxy of the user's would be asked for them."""
ENVIRONMENT = {**UNPROXIED, "PATH": wires.SEARCH_PATH}


def linux_positions() -> tuple[int, ...]:
    """The positions that Linux hosts may have; ways to their pods are laid whether they exist or not."""
    return tuple(_POSITIONS[profile.name] for profile in CONTAINER_PROFILES if profile.kind == "linux")


def lay_switch(cables: Cables) -> None:
    """The switch with the API server's address: before the control plane, which listens there."""
    wires.lay(wires.switch_commands(cables, linux_positions()))


def start_addons(control: Control, pki: Pki, assets: Assets, cables: Cables) -> None:
    """What every cluster has beside its control plane: names of Services for pods, figures for `kubectl top`."""
    file = control.layout.root / "Corefile"
    write_atomically(file, dns.corefile(cables, pki.kubeconfig("coredns")))
    specs = [dns.spec(assets, pki, cables, file), metricsserver.spec(assets, pki, cables)]
    control.put(unproxied(specs))
    objects = [*dns.objects(cables), *metricsserver.objects(cables, pki), *policies.objects(), *gvisor.objects()]
    api.apply(control.layout.kubeconfig, objects)


@dataclass(frozen=True, slots=True)
class Cable:
    """One host's own network and its cable."""

    cables: Cables
    name: str
    k: int

    @property
    def address(self) -> str:
        """The host's address."""
        return self.cables.host(self.k)

    @property
    def server(self) -> str:
        """The API server's address."""
        return self.cables.server

    @property
    def environment(self) -> Mapping[str, str]:
        """No proxy stands between a host and its cluster."""
        return UNPROXIED

    def lay(self) -> None:
        """Make both, or find them."""
        wires.lay(wires.host_commands(self.cables, self.name, self.k, linux_positions()))

    def cut(self) -> None:
        """Pull the plug."""
        wires.run(wires.cut_command(self.cables, self.k))

    def mend(self) -> None:
        """Put it back."""
        wires.run(wires.mend_command(self.cables, self.k))

    def shape(self, rate: int | None) -> None:
        """Let it carry so many bits per second each way; None: what it can."""
        shaping.shape(self.cables, self.name, self.k, rate)

    @property
    def rate(self) -> int | None:
        """What it carries at most, bits per second."""
        return shaping.rate_of(self.cables, self.k)

    def inside(self, *command: str) -> tuple[str, ...]:
        """The command as it runs on the host's network."""
        return wires.inside(self.cables.namespace(self.name), *command)


@dataclass(frozen=True, slots=True)
class MacHost:
    """A Mac: the node agent on a network of its own. Its pods have the host's address, as on a real Mac."""

    profile: HostProfile
    cable: Cable
    control: Control
    bootstrap_kubeconfig: Path

    @property
    def name(self) -> str:
        """The Node's name."""
        return self.profile.name

    def start(self) -> None:
        """Lay the cable, write the agent's settings and wish it to run."""
        self.cable.lay()
        self._agent().start()

    def stop(self) -> None:
        """Wish the agent to stop."""
        self._agent().stop()

    def cut(self) -> None:
        """Pull the plug."""
        self.cable.cut()

    def mend(self) -> None:
        """Put it back."""
        self.cable.mend()

    def _agent(self) -> ProcessHost:
        return ProcessHost(
            self.profile, self.cable.k, Range(self.cable.cables.n), self.control, self.bootstrap_kubeconfig, self.cable
        )


@dataclass(frozen=True, slots=True)
class LinuxHost:
    """A Linux machine to be: containerd, kubelet and kube-proxy on a network of their own."""

    profile: HostProfile
    cable: Cable
    control: Control
    pki: Pki
    assets: Assets
    plugins: Path

    @property
    def name(self) -> str:
        """The Node's name; also that of the kubelet's process."""
        return self.profile.name

    @property
    def directory(self) -> Path:
        """Everything of this host."""
        return self.control.layout.nodes / self.name

    @property
    def containerd(self) -> ContainerdPlan:
        """Its container runtime."""
        cables, here = self.cable.cables, self.directory
        sandboxes = Gvisor(
            self.assets["runsc"], self.assets["containerd-shim-runsc-v1"], here / "runsc.toml", here / "state" / "runsc"
        )
        return ContainerdPlan(
            here, cables.namespace(self.name), cables.pods(self.cable.k), self.plugins, TINY_IMAGE, sandboxes
        )

    @property
    def kubelet(self) -> KubeletPlan:
        """Its kubelet."""
        return KubeletPlan(
            self.name, self.cable.address, self.directory, self.containerd.socket,
            self.cable.cables.namespace(self.name), self.pki.certificate("ca"),
        )  # fmt: skip

    def start(self) -> None:
        """Lay the cable, start the runtime, give it the first image, then wish kubelet and proxy to run."""
        self.cable.lay()
        remains.keep_kernel_settings()
        remains.make_cgroup(self.kubelet.cgroup)
        self._write_files()
        runtime, *others = self.specs()
        self.control.put([runtime])
        self._wait_for_runtime()
        if TINY_IMAGE not in wires.run(ctr(self.containerd, "images", "list", "--quiet")).split():
            self.load(archive(TINY_IMAGE, self.assets["tiny"], "pause"))
        self.control.put(others)
        self.control.wait(self.name, is_phase(Phase.RUNNING))

    def stop(self) -> None:
        """Wish all to stop, the runtime last; containers go on, as they do when a runtime is restarted."""
        for spec in reversed(self.specs()):
            self.control.wish(spec.name, Wish.STOP)
            self.control.wait(spec.name, is_phase(Phase.STOPPED, Phase.WAITING))

    def cut(self) -> None:
        """Pull the plug."""
        self.cable.cut()

    def mend(self) -> None:
        """Put it back."""
        self.cable.mend()

    def load(self, image: bytes) -> None:
        """Give the runtime an image, a Docker archive: this is how images get here, nothing is ever pulled."""
        file = self.directory / "image.tar"
        try:
            file.write_bytes(image)
            wires.run(ctr(self.containerd, "images", "import", str(file)), timeout_s=120)
        finally:
            file.unlink(missing_ok=True)

    def load_images(self, store: Store, images: Sequence[Image]) -> None:
        """Give the runtime images of the project's own."""
        loading.load(self.containerd, store, images)

    def specs(self) -> tuple[ProcessSpec, ...]:
        """In the order in which they start."""
        after = (self.cable.server, API_PORT)
        authority = self.pki.certificate("ca")
        bootstrap = self.pki.kubeconfig("bootstrap")
        kubelet = (str(self.assets["kubelet"]), *kubelet_flags(self.kubelet, bootstrap))
        proxy = (str(self.assets["kube-proxy"]), *proxy_flags(self.name, self.pki.kubeconfig("kube-proxy")))
        runtime = ("containerd", f"--config={self.containerd.config}")
        filtering = policies.command(self.pki.kubeconfig("policies"), self.cable.address)
        return (
            ProcessSpec(f"{self.name}.containerd", self.cable.inside(*runtime), NODE_ORDER, ENVIRONMENT),
            ProcessSpec(
                self.name, self.cable.inside(*kubelet), NODE_ORDER + 1, ENVIRONMENT, after=after, authority=authority
            ),
            ProcessSpec(
                f"{self.name}.kube-proxy", self.cable.inside(*proxy), NODE_ORDER + 1, ENVIRONMENT, after=after,
                authority=authority,
            ),
            ProcessSpec(
                f"{self.name}.policies", self.cable.inside(*filtering), NODE_ORDER + 1, ENVIRONMENT, after=after,
                authority=authority,
            ),
        )  # fmt: skip

    def _write_files(self) -> None:
        runtime, kubelet = self.containerd, self.kubelet
        runtime.network_config.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(runtime.network_config, json.dumps(network_config(runtime)))
        write_atomically(runtime.config, containerd_config(runtime))
        write_atomically(runtime.gvisor.config, gvisor.settings(runtime.gvisor))
        write_atomically(kubelet.config, yaml.safe_dump(kubelet_config(kubelet)))
        write_atomically(self.directory / "resolv.conf", "")
        if not kubelet.certificate.exists():
            made = self._serving_certificate()
            kubelet.key.touch(mode=0o600)
            kubelet.key.write_bytes(made.key)
            kubelet.certificate.write_bytes(made.certificate)

    def _serving_certificate(self) -> KeyPair:
        authority = KeyPair(Path(self.pki.certificate("ca")).read_bytes(), Path(self.pki.key("ca")).read_bytes())
        return issue(
            authority, f"system:node:{self.name}", datetime.now(UTC), organisations=["system:nodes"],
            hosts=(self.cable.address, self.name), is_server=True,
        )  # fmt: skip

    def _wait_for_runtime(self) -> None:
        deadline = time.monotonic() + RUNTIME_TIMEOUT_S
        while True:
            try:
                wires.run(ctr(self.containerd, "version"))
                return
            except Permanent as error:
                if time.monotonic() > deadline:
                    raise Retryable(f"containerd of {self.name} does not answer: {error}", reason="Timeout") from error
            time.sleep(_LOOK_S)


def hosts_of(
    layout: Layout, cables: Cables, profiles: Sequence[HostProfile], assets: Assets, plugins: Path
) -> tuple[Host, ...]:
    """One host per profile; its position among `CONTAINER_PROFILES` gives the addresses."""
    pki, control = Pki(layout.pki), Control(layout)

    def host(profile: HostProfile) -> Host:
        cable = cable_of(cables, profile.name)
        if profile.kind == "linux":
            return LinuxHost(profile, cable, control, pki, assets, plugins)
        return MacHost(profile, cable, control, pki.kubeconfig("bootstrap"))

    return tuple(host(profile) for profile in profiles)


def cable_of(cables: Cables, name: str) -> Cable:
    """The cable of the host of that name."""
    return Cable(cables, name, _POSITIONS[name])


def rates(cables: Cables, names: Iterable[str]) -> dict[str, int]:
    """The rates of those hosts whose cable has one."""
    found = {name: cable_of(cables, name).rate for name in names}
    return {name: rate for name, rate in found.items() if rate is not None}


def remove(layout: Layout, cables: Cables) -> None:
    """Everything of the cluster outside its directory, once its processes are gone; may be repeated."""
    sandboxes = [path for path in layout.nodes.glob("*/state/io.containerd.runtime.v2.task/*/*") if path.is_dir()]
    addresses = [(path / "address").read_text() for path in sandboxes if (path / "address").is_file()]
    for directory in layout.nodes.glob("linux-*"):
        log = layout.log(f"{directory.name}.containerd")
        said = log.read_text(errors="replace") if log.exists() else ""
        addresses += remains.shim_addresses(directory / "containerd.sock", said)
    remains.remove_cgroups(f"{cables.switch}-")
    remains.forget_containers((path.name for path in sandboxes), layout.root)
    remains.remove_shim_sockets(addresses)
    remains.remove_dead_socket(remains.KUBELET_SOCKET)
    remains.unmount_all(layout.root)
    wires.lay(wires.removal_commands(cables, wires.devices_now(), wires.namespaces_now()))
    if not wires.switches(wires.devices_now()):
        remains.restore_kernel_settings()


def unproxied(specs: Iterable[ProcessSpec]) -> tuple[ProcessSpec, ...]:
    """The same processes, not sent through a proxy of the user's for cable addresses."""
    return tuple(replace(spec, environment={**spec.environment, **UNPROXIED}) for spec in specs)
