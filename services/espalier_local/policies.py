"""`python -m espalier_local.policies`: keeps the rules of one node as the cluster's NetworkPolicies say.

Runs in the node's network namespace, one per Linux host. Until the API server knows a new pod's address, about a
second, the pod is as open as without policies; connections that exist when a policy changes go on. The rules outlive
this program, and its successor replaces them only once it has seen everything.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from espalier_kit import logs
from espalier_kit.errors import Permanent
from espalier_kit.lifecycle import run_program
from espalier_kube.client import connect
from espalier_kube.cluster import NAMESPACE, NETWORK_POLICY, POD, Cluster, Kind, Object
from espalier_kube.netpol import parse
from espalier_kube.watch import Pulse, follow
from espalier_local.pki import POLICIES_USER
from espalier_local.policy_filter import ends, ruleset

log = logging.getLogger(__name__)
GATHER_S = 0.1
"""Changes come in bursts: one rule set for all of them."""
_WATCHED = (NAMESPACE, POD, NETWORK_POLICY)
_READS = (("", ("namespaces", "pods")), ("networking.k8s.io", ("networkpolicies",)))


def command(kubeconfig: Path, node: str) -> tuple[str, ...]:
    """What runs on a host whose address is `node`."""
    return (sys.executable, "-m", "espalier_local.policies", f"--kubeconfig={kubeconfig}", f"--node={node}")


def objects() -> list[Object]:
    """The right to read what the rules are made of."""
    group, meta = "rbac.authorization.k8s.io", {"name": POLICIES_USER}
    rules = [{"apiGroups": [g], "resources": list(kinds), "verbs": ["list", "watch"]} for g, kinds in _READS]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}
    subject = {"apiGroup": group, "kind": "User", "name": POLICIES_USER}
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": POLICIES_USER}
    binding = {"kind": "ClusterRoleBinding", "metadata": meta, "roleRef": reference, "subjects": [subject]}
    return [role, {"apiVersion": f"{group}/v1", **binding}]


def put(text: str) -> None:
    """Into the kernel; raises `Permanent` with nft's words."""
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise Permanent(f"nft refuses the rules: {' '.join(done.stderr.split())[-600:]}", reason="HostFailed")


class Rules:
    """What is known of the cluster, and the rules made of it; `put` puts them in place."""

    def __init__(self, node: str, put: Callable[[str], None] = put) -> None:
        self._node, self._installed, self._put = node, "", put
        self._known: dict[str, dict[str, Object]] = {kind.kind: {} for kind in _WATCHED}
        self._pulses = {kind.kind: Pulse() for kind in _WATCHED}
        self.changed = asyncio.Event()

    @property
    def is_whole(self) -> bool:
        """Whether everything has been listed once: rules of a part would open what the whole closes."""
        return all(pulse.lists for pulse in self._pulses.values())

    async def watch(self, cluster: Cluster, kind: Kind) -> None:
        """Follow one kind for ever."""
        objects = self._known[kind.kind]
        async for event in follow(cluster, kind, pulse=self._pulses[kind.kind]):
            uid = event.object["metadata"]["uid"]
            if event.type == "DELETED":
                objects.pop(uid, None)
            else:
                objects[uid] = event.object
            self.changed.set()

    def text(self) -> str:
        """The rule set, now."""
        pods, namespaces, policies = (self._known[kind.kind].values() for kind in (POD, NAMESPACE, NETWORK_POLICY))
        return ruleset(self._node, ends(pods, namespaces), [parse(policy) for policy in policies])

    async def install(self) -> None:
        """Put it in place unless it is there; raises `Permanent`. Only nft is waited for elsewhere: what is known
        changes in the event loop, and is read there."""
        text = self.text()
        if text == self._installed:
            return
        began = time.monotonic()
        await asyncio.to_thread(self._put, text)
        self._installed = text
        took_ms = round((time.monotonic() - began) * 1000, 1)
        log.info("rules in place", extra={"chains": text.count(" chain ") - 1, "took_ms": took_ms})


async def run(kubeconfig: Path, node: str, stop: asyncio.Event) -> None:
    """Keep the rules until `stop`; they stay when this ends, as the pods do."""
    cluster, rules = await connect(kubeconfig), Rules(node)
    watching = [asyncio.create_task(rules.watch(cluster, kind)) for kind in _WATCHED]
    keeping = asyncio.create_task(keep(rules))
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*watching, keeping, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*watching, keeping, stopping):
            task.cancel()
        await asyncio.gather(*watching, keeping, stopping, return_exceptions=True)
        await cluster.close()


async def keep(rules: Rules) -> None:
    """Install what changes, for ever."""
    while True:
        await rules.changed.wait()
        await asyncio.sleep(GATHER_S)
        if rules.is_whole:
            rules.changed.clear()
            await rules.install()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m espalier_local.policies", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="who reads pods, namespaces and policies")
    parser.add_argument("--node", required=True, help="the node's address: rules are for its pods")
    options = parser.parse_args(argv)
    logs.configure()
    return run_program(lambda stop: run(options.kubeconfig, options.node, stop))


if __name__ == "__main__":
    sys.exit(main())
