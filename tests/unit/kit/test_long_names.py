"""Certificates of servers whose DNS name is longer than a common name may be."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509

from espalier_kit.certificates import issue, make_authority

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_a_long_dns_name_is_kept_whole_where_clients_look() -> None:
    host = f"{'m' * 59}.{'n' * 63}.svc"
    pair = issue(make_authority("test", NOW), host, NOW, hosts=[host], is_server=True)
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host]
