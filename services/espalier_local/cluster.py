"""Up, down, status: a whole cluster by its name. Its kubeconfig is its own; the user's is never read nor written."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from espalier_kit.errors import EspalierError, Misconfigured, NotFound, Permanent
from espalier_kube.cluster import NODE
from espalier_local import api, bootstrap, containers, machine, pki, record
from espalier_local.addresses import API_PORT, Cables, Range, port_blocker
from espalier_local.assets import FAMILIES, LINUX_FAMILIES, Assets
from espalier_local.assets import ensure as ensure_assets
from espalier_local.control import Control, tail
from espalier_local.controlplane import COMPONENTS, specs
from espalier_local.hosts import PROFILES, Host, HostProfile, Kind
from espalier_local.layout import Layout
from espalier_local.locks import held, is_held
from espalier_local.places import Places, checked_name
from espalier_local.processes import ProcessHost
from espalier_local.progress import Progress
from espalier_local.readiness import is_ready
from espalier_local.supervised import Phase, ProcessState

CONTROL_PLANE_TIMEOUT_S = 90.0
"""Ready takes about 4 s on an idle machine; a busy one with two cores has needed more than 30."""
NODES_TIMEOUT_S = 120.0
SPACE_BYTES = 2**30
"""What etcd, logs and pods of a small cluster take, with room."""
_LOOK_S = 0.05
_HOPELESS_RESTARTS = 4
_FULL_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: how to reach it and what it is made of."""

    name: str
    address_range: Range
    kubeconfig: Path
    assets: Assets
    hosts: tuple[Host, ...]
    control: Control
    is_new: bool
    server_address: str
    cables: Cables | None = None
    """Of container nodes."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.server_address}:{API_PORT}"


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` found. `problem` is a sentence, empty when all is well."""

    name: str
    exists: bool
    is_ready: bool = False
    server: str = ""
    kubeconfig: Path | None = None
    processes: tuple[ProcessState, ...] = ()
    ready_nodes: frozenset[str] = frozenset()
    problem: str = ""
    rates: Mapping[str, int] = field(default_factory=dict)
    """Bits per second of the cables that `shape` has limited."""

    @property
    def node_names(self) -> tuple[str, ...]:
        """The processes that are nodes."""
        return tuple(process.name for process in self.processes if is_node(process.name))


def is_node(process: str) -> bool:
    """Whether that process is a node. A node's helpers have its name, a dot and their own."""
    return process not in (*COMPONENTS, *containers.ADDONS) and "." not in process


def up(
    name: str, places: Places, progress: Progress, *, profiles: Sequence[HostProfile] = PROFILES, kind: Kind = "process"
) -> Cluster:
    """Bring the cluster up, or find it up. What a failed call began is ended again: a new cluster is
    removed, an old one whose processes were gone keeps its data.

    Raises the errors of `espalier_kit.errors`, each with one sentence that says what to do.
    """
    layout = Layout(places.clusters / checked_name(name))
    families = FAMILIES if kind == "process" else (*FAMILIES, *LINUX_FAMILIES)
    with _full_disk_as_sentence(layout.root), _alone(layout, progress):
        _check_space(places.clusters)
        if kind == "container":
            machine.demand(machine.look())
        assets = ensure_assets(places, progress, families=families)
        is_new = record.read(layout) is None
        was_running = Control(layout).is_running()
        try:
            return _start(layout, record.claim(places.clusters, name, kind), assets, progress, profiles, is_new)
        except BaseException:
            if is_new:
                _remove(layout)
            elif not was_running:
                Control(layout).stop()
            raise


def down(name: str, places: Places, progress: Progress) -> bool:
    """Stop everything and remove the cluster's directory; returns whether there was anything."""
    layout = Layout(places.clusters / checked_name(name))
    with _alone(layout, progress):
        if not layout.root.exists():
            return False
        with progress.step(f"stopping cluster {name}"):
            _remove(layout)
        return True


def status(name: str, places: Places) -> Status:
    """Look, change nothing."""
    layout = Layout(places.clusters / checked_name(name))
    found = record.read(layout)
    if found is None:
        problem = f"there is no cluster {name}; espalier local up --name {name} starts it"
        return Status(name, exists=False, problem=problem)
    control = Control(layout)
    address = found.server
    ready = is_ready(address, API_PORT, pki.Pki(layout.pki).certificate("ca"))
    nodes = api.ready_nodes(api.list_all(layout.kubeconfig, NODE)) if ready else frozenset()
    states = control.states()
    return Status(
        name, exists=True, is_ready=ready, server=f"https://{address}:{API_PORT}", kubeconfig=layout.kubeconfig,
        processes=tuple(states.get(process, ProcessState(process)) for process in control.names()),
        ready_nodes=nodes, problem=_problem(name, control, ready, nodes),
        rates=containers.rates(found.cables, filter(is_node, control.names())) if found.cables else {},
    )  # fmt: skip


@contextmanager
def _alone(layout: Layout, progress: Progress) -> Iterator[None]:
    """One command at a time changes a cluster."""
    if is_held(layout.lock):
        with progress.step(f"waiting for another espalier local that works on {layout.root.name}"), held(layout.lock):
            pass
    with held(layout.lock):
        try:
            yield
        finally:
            if not layout.root.exists():
                layout.lock.unlink(missing_ok=True)


def cut(name: str, places: Places, node: str) -> None:
    """Take a host off the network; raises `NotFound`."""
    _plug(name, places, node).cut()


def mend(name: str, places: Places, node: str) -> None:
    """Put a host back on the network; raises `NotFound`."""
    _plug(name, places, node).mend()


def shape(name: str, places: Places, node: str, rate: int | None) -> None:
    """Let a host's cable carry so many bits per second each way, or what it can.

    Raises `NotFound`, and `Misconfigured` where hosts have no cables.
    """
    plug = _plug(name, places, node)
    if not isinstance(plug, containers.Cable):
        raise Misconfigured(f"cluster {name} has no cables to shape: they come with up --nodes container")
    plug.shape(rate)


def _plug(name: str, places: Places, node: str) -> Host | containers.Cable:
    layout = Layout(places.clusters / checked_name(name))
    found = record.read(layout)
    if found is None:
        raise NotFound(f"there is no cluster {name}; espalier local up --name {name} starts it")
    nodes = [process for process in Control(layout).names() if is_node(process)]
    if node not in nodes:
        raise NotFound(f"cluster {name} has no node {node}; it has {', '.join(nodes) or 'none'}")
    if found.cables:
        return containers.cable_of(found.cables, node)
    return next(host for host in hosts_of(layout, found.address_range, PROFILES) if host.name == node)


def hosts_of(layout: Layout, address_range: Range, profiles: Sequence[HostProfile]) -> tuple[Host, ...]:
    """One process host per profile."""
    bootstrap_kubeconfig = pki.Pki(layout.pki).kubeconfig("bootstrap")
    control = Control(layout)
    return tuple(
        ProcessHost(profile, k, address_range, control, bootstrap_kubeconfig)
        for k, profile in enumerate(profiles, start=1)
    )


def _start(
    layout: Layout,
    claimed: record.Record,
    assets: Assets,
    progress: Progress,
    profiles: Sequence[HostProfile],
    is_new: bool,
) -> Cluster:
    control = Control(layout)
    address_range = claimed.address_range
    if not control.living():
        _check_ports(address_range)
    cables = claimed.cables
    if cables:
        containers.lay_switch(cables)
    store = address_range.control_plane if cables else ""
    keys = pki.ensure(layout.pki, address=claimed.server, port=API_PORT, now=datetime.now(UTC), store=store)
    shutil.copyfile(keys.kubeconfig("admin"), layout.kubeconfig)
    layout.kubeconfig.chmod(0o600)
    with progress.step("control plane"):
        control.ensure()
        planned = specs(assets, keys, address_range, layout.etcd, cables=cables)
        control.put(containers.unproxied(planned) if cables else planned)
        _wait_until_ready(control, claimed.server, keys)
        api.apply(layout.kubeconfig, bootstrap.objects(*keys.bootstrap_token))
    if cables:
        containers.start_addons(control, keys, assets, cables)
    hosts = (
        containers.hosts_of(layout, cables, profiles, assets, machine.demand(machine.look()))
        if cables else hosts_of(layout, address_range, profiles)
    )  # fmt: skip
    if hosts:
        with progress.step(f"{len(hosts)} nodes") as advance:
            for host in hosts:
                host.start()
            names = [host.name for host in hosts]
            api.wait_for_nodes(
                layout.kubeconfig, names, timeout_s=NODES_TIMEOUT_S, on_change=lambda n: advance(n, len(names))
            )
    return Cluster(
        claimed.name, address_range, layout.kubeconfig, assets, hosts, control, is_new, claimed.server, cables
    )  # fmt: skip


def _wait_until_ready(control: Control, server: str, keys: pki.Pki) -> None:
    deadline = time.monotonic() + CONTROL_PLANE_TIMEOUT_S
    while not is_ready(server, API_PORT, keys.certificate("ca")):
        states = control.states()
        failed = [c for c in COMPONENTS[:2] if c in states and states[c].restarts >= _HOPELESS_RESTARTS]
        if failed:
            raise _failure(control, failed[0], f"does not stay up ({states[failed[0]].last_exit})")
        if not control.is_running():
            raise _failure(control, "supervisor", "died")
        if time.monotonic() > deadline:
            raise _failure(control, "kube-apiserver", f"is not ready after {CONTROL_PLANE_TIMEOUT_S:.0f} s")
        time.sleep(_LOOK_S)


def _failure(control: Control, process: str, what: str) -> EspalierError:
    if shutil.disk_usage(control.layout.root).free < _FULL_BYTES:
        return _full(control.layout.root)
    return Permanent(f"{process} {what}: {tail(control.layout.log(process))}", reason="ControlPlaneFailed")


def _check_ports(address_range: Range) -> None:
    if problem := port_blocker(address_range):
        raise Misconfigured(
            f"{problem.strerror} is in use by a program that is not this cluster's;"
            " stop it, or take the cluster down and up again for another range",
            reason="AddressInUse",
        )


def _check_space(clusters: Path) -> None:
    clusters.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(clusters).free
    if free < SPACE_BYTES:
        raise Misconfigured(
            f"{clusters} has {free // 2**20} MiB free and a cluster needs {SPACE_BYTES // 2**20}; make room, try again",
            reason="DiskFull",
        )


@contextmanager
def _full_disk_as_sentence(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(root) from error


def _full(root: Path) -> Misconfigured:
    return Misconfigured(f"the disk that holds {root} is full; make room and try again", reason="DiskFull")


def _remove(layout: Layout) -> None:
    Control(layout).stop()
    found = record.read(layout)
    if found and found.cables:
        containers.remove(layout, found.cables)
    shutil.rmtree(layout.root, ignore_errors=False)


def _problem(name: str, control: Control, is_ready: bool, nodes: frozenset[str]) -> str:
    if not control.is_running():
        return f"the supervisor is gone; espalier local up --name {name} starts it again and adopts what runs"
    if not is_ready:
        return f"the API server does not answer; see espalier local logs kube-apiserver --name {name}"
    states = control.states()
    for process, state in states.items():
        if _is_hopeless(state):
            return f"{process} does not stay up ({state.last_exit}); see espalier local logs {process} --name {name}"
    lost = [process for process in control.names() if is_node(process) and process not in nodes]
    return f"not Ready: {', '.join(lost)}" if lost else ""


def _is_hopeless(state: ProcessState) -> bool:
    return state.phase is Phase.WAITING and state.restarts >= _HOPELESS_RESTARTS
