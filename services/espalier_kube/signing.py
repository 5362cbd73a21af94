"""CertificateSigningRequests: make one, wait for its certificate, approve or deny it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from espalier_api.names import MANAGED_BY
from espalier_kit.certificates import KeyPair, new_key
from espalier_kit.clock import Clock, SystemClock
from espalier_kit.errors import Forbidden, NotFound, Retryable
from espalier_kube.cluster import CSR, Cluster, Object
from espalier_kube.objects import condition, encode, has_condition, metadata, timestamp, typed

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
CLIENT_USAGES = ("digital signature", "client auth")
SERVING_USAGES = ("digital signature", "server auth")
OURS = (MANAGED_BY, "espalier")
"""Label of our agents' requests: those of other kubelets have another approver."""
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is for; `hosts` are DNS names and addresses."""

    common_name: str
    organisations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def make_request(subject: Subject) -> tuple[bytes, bytes]:
    """A PKCS #10 request and its new private key, both PEM."""
    key, key_pem = new_key()
    return sign_request(subject, key), key_pem


def sign_request(subject: Subject, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS #10 request, PEM."""
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in subject.organisations]
    name = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if subject.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(_hosts(subject.hosts))), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request_object(name: str, request: bytes, *, signer: str, usages: Iterable[str]) -> Object:
    """The CertificateSigningRequest that carries a PKCS #10 request, with the label by which our approver knows it."""
    spec = {"request": encode(request), "signerName": signer, "usages": list(usages)}
    return typed(CSR, metadata(name, None, labels=dict([OURS])), spec=spec)


async def obtain(
    cluster: Cluster, name: str, subject: Subject, *, signer: str, usages: Iterable[str], timeout_s: float = 60.0,
    clock: Clock | None = None,
) -> KeyPair:
    """Ask for a certificate and wait for it. Raises `Forbidden` when denied, `Retryable` when nobody signs in time."""
    request, key = make_request(subject)
    await cluster.create(request_object(name, request, signer=signer, usages=usages))
    certificate = await wait_for_certificate(cluster, name, timeout_s=timeout_s, clock=clock)
    return KeyPair(certificate, key)


async def wait_for_certificate(
    cluster: Cluster, name: str, *, timeout_s: float, clock: Clock | None = None
) -> bytes:
    """The issued certificate, PEM. Raises as `obtain`."""
    ticks = clock or SystemClock()
    deadline = ticks.monotonic() + timeout_s
    while ticks.monotonic() < deadline:
        try:
            csr = await cluster.get(CSR, name)
        except NotFound as error:
            raise Retryable(f"certificate request {name} vanished before it was signed") from error
        denied = condition(csr, "Denied") or condition(csr, "Failed")
        if denied is not None:
            raise Forbidden(f"certificate request {name}: {denied.get('message', '')}", reason="CertificateDenied")
        issued = (csr.get("status") or {}).get("certificate")
        if issued:
            return base64.b64decode(issued)
        await ticks.sleep(_POLL_S)
    raise Retryable(f"certificate request {name} was not signed within {timeout_s:.0f} s", reason="NotSigned")


def is_decided(csr: Object) -> bool:
    """Whether somebody approved or denied it already."""
    return has_condition(csr, "Approved") or has_condition(csr, "Denied")


def decided(csr: Object, *, approve: bool, reason: str, message: str, now: datetime) -> Object:
    """`csr` with an approval or a denial, for `replace(…, subresource="approval")`."""
    verdict = {
        "type": "Approved" if approve else "Denied", "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": timestamp(now),
    }
    status = csr.get("status") or {}
    return {**csr, "status": {**status, "conditions": [*(status.get("conditions") or ()), verdict]}}


def parse(csr: Object) -> x509.CertificateSigningRequest:
    """The PKCS #10 request inside. Raises `ValueError` when it is none."""
    return x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))


def _hosts(hosts: Iterable[str]) -> Iterable[x509.GeneralName]:
    for host in hosts:
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            yield x509.DNSName(host)
