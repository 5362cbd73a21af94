"""X.509 for our own authority: make a CA, issue a serving or client certificate, read what is near its end.

EC P-256 everywhere (Kubernetes accepts it for all but service-account signing).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 365
MAX_COMMON_NAME = 64
"""X.520's bound. Servers are known by their alternative names, which have no such bound."""
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(…)"


def new_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A fresh P-256 key and its PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _pem(key)


def make_authority(name: str, now: datetime) -> KeyPair:
    """A self-signed CA, valid ten years."""
    key, pem = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), pem)


def issue(
    authority: KeyPair,
    common_name: str,
    now: datetime,
    *,
    organisations: Iterable[str] = (),
    hosts: Iterable[str] = (),
    is_server: bool = False,
    is_client: bool = False,
) -> KeyPair:
    """A leaf signed by `authority`; `hosts` are DNS names and addresses for the subject alternative names."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key, pem = new_key()
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organisations]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_COMMON_NAME])])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * is_server + [ExtendedKeyUsageOID.CLIENT_AUTH] * is_client
    builder = (
        _builder(subject, issuer.subject, key.public_key(), now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    alternatives = [_general_name(host) for host in hosts]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), pem)


def expires_at(certificate: bytes) -> datetime:
    """When a PEM certificate ends, aware UTC."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def needs_renewal(certificate: bytes, now: datetime) -> bool:
    """Whether less than a fifth of its life is left."""
    parsed = x509.load_pem_x509_certificate(certificate)
    life = parsed.not_valid_after_utc - parsed.not_valid_before_utc
    return now > parsed.not_valid_after_utc - life / 5


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
