"""Approves nodes' serving certificates against the *administrator's* addresses: a node writes its own status."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from espalier_kube.cluster import Object
from espalier_kube.signing import OURS, SERVING_SIGNER, is_decided, parse
from espalier_operator.settings import Network

NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
ALLOWED_USAGES = frozenset({"digital signature", "key encipherment", "server auth"})
NEEDED_USAGES = frozenset({"digital signature", "server auth"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Approve or deny, and the sentence."""

    approve: bool
    message: str


def is_ours(csr: Object) -> bool:
    """Whether it waits for this approver. Serving certificates of the cluster's own kubelets are not ours to judge:
    a denial is final, and their approver may be another program or a person."""
    key, value = OURS
    is_our_agents = (csr["metadata"].get("labels") or {}).get(key) == value
    return is_our_agents and csr["spec"].get("signerName") == SERVING_SIGNER and not is_decided(csr)


def decide(csr: Object, networks: tuple[Network, ...]) -> Decision:
    """Judge one request for a kubelet's serving certificate."""
    spec = csr["spec"]
    requester = spec.get("username", "")
    if not requester.startswith(NODE_PREFIX) or NODES_GROUP not in (spec.get("groups") or ()):
        return Decision(False, f"{requester or 'an unknown user'} is no node")
    usages = frozenset(spec.get("usages") or ())
    if not NEEDED_USAGES <= usages <= ALLOWED_USAGES:
        return Decision(False, f"usages must be {', '.join(sorted(NEEDED_USAGES))}; asked: {', '.join(sorted(usages))}")
    try:
        request = parse(csr)
    except ValueError as error:
        return Decision(False, f"the request cannot be read: {error}")
    problem = _subject_problem(request, requester) or _names_problem(
        request, requester.removeprefix(NODE_PREFIX), networks
    )
    return Decision(False, problem) if problem else Decision(True, f"serving certificate of {requester}")


def _subject_problem(request: x509.CertificateSigningRequest, requester: str) -> str:
    names = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if names != [requester]:
        return f"the common name must be {requester}; it is {', '.join(names) or 'empty'}"
    if groups != [NODES_GROUP]:
        return f"the organisation must be {NODES_GROUP}; it is {', '.join(groups) or 'empty'}"
    return ""


def _names_problem(request: x509.CertificateSigningRequest, node: str, networks: tuple[Network, ...]) -> str:
    try:
        wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no host: a serving certificate needs the node's name or address"
    for name in wanted:
        if isinstance(name, x509.DNSName) and name.value == node:
            continue
        if isinstance(name, x509.IPAddress) and _is_within(name.value, networks):
            continue
        allowed = ", ".join(str(n) for n in networks) or "none"
        return f"{name.value} is neither the node's name nor within the administrator's addresses ({allowed})"
    return ""


def _is_within(address: object, networks: tuple[Network, ...]) -> bool:
    if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return False
    return any(address.version == network.version and address in network for network in networks)

