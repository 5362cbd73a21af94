"""Which address a pod has: pinned, or the next free one of the node's range."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from espalier_api import names
from espalier_kit.errors import Permanent, Retryable
from espalier_kube.cluster import Object
from espalier_node.environment import CONFIG_ERROR
from espalier_node.settings import NodeSettings

_FILE = "address"


def pinned(pod: Object) -> str | None:
    """The address in the pod's annotation; raises `Permanent` when it is none."""
    text = (pod["metadata"].get("annotations") or {}).get(names.POD_IP)
    if text is None:
        return None
    try:
        return str(IPv4Address(text))
    except AddressValueError as error:
        raise Permanent(f"annotation {names.POD_IP}: {text!r} is not an IPv4 address", reason=CONFIG_ERROR) from error


def choose(
    pod: Object, *, node: str, pod_range: IPv4Network | None, reserved: int, taken: Collection[str], after: str | None
) -> str:
    """The pod's address: its pinned one, else the first free after `after` (so that a new pod seldom meets the closing
    connections of an old one), else, without a range, the node's. Raises `Retryable` while none is free."""
    wished = pinned(pod)
    if wished is not None:
        if wished in taken:
            raise Retryable(f"address {wished} still belongs to another pod of this node", reason=CONFIG_ERROR)
        return wished
    if pod_range is None:
        return node
    first, last = int(pod_range.network_address) + 1 + reserved, int(pod_range.broadcast_address) - 1
    size = last - first + 1
    start = (int(IPv4Address(after)) - first + 1) % size if after and IPv4Address(after) in pod_range else 0
    for offset in range(size):
        candidate = str(IPv4Address(first + (start + offset) % size))
        if candidate not in taken and candidate != node:
            return candidate
    raise Retryable(f"all addresses of {pod_range} are in use", reason=CONFIG_ERROR)


class AddressBook:
    """Which pod holds which address; kept in each pod's directory, so that a new agent goes on with it."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._held: dict[str, str] = {}
        self._last: str | None = None
        for file in (settings.state_dir / "pods").glob(f"*/{_FILE}"):
            self._held[file.parent.name] = file.read_text().strip()

    def of(self, pod: Object) -> str:
        """The pod's address, chosen at the first call. Raises as `choose`."""
        uid = pod["metadata"]["uid"]
        if uid not in self._held:
            settings = self._settings
            chosen = choose(
                pod, node=str(settings.address), pod_range=settings.pod_range, reserved=settings.pod_range_reserved,
                taken=set(self._held.values()), after=self._last,
            )
            file = settings.state_dir / "pods" / uid / _FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(chosen)
            self._held[uid] = chosen
            if pinned(pod) is None:
                self._last = chosen
        return self._held[uid]

    def held(self, uid: str) -> str | None:
        """The address a pod already has."""
        return self._held.get(uid)

    def release(self, uid: str) -> None:
        """The pod's processes are gone: others may have its address."""
        self._held.pop(uid, None)
