"""TLS or loopback, and settings under their old names."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier_coordinator.compatibility import translated
from espalier_coordinator.entrance import tls_of
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.errors import Misconfigured
from espalier_kit.settings import load
from espalier_rpc.server import TlsFiles


def settings(**variables: str) -> CoordinatorSettings:
    return load(CoordinatorSettings, "coordinator", {
        f"ESPALIER_COORDINATOR_{name}": value for name, value in {"DATA": "/data", **variables}.items()
    })


@pytest.mark.parametrize(("variables", "expected"), [
    ({"TLS_DIR": "/t"}, TlsFiles(Path("/t/tls.crt"), Path("/t/tls.key"))),
    ({"TLS_DIR": "/t", "CLIENT_CA": "/ca"}, TlsFiles(Path("/t/tls.crt"), Path("/t/tls.key"), Path("/ca"))),
    ({"TLS_CERT": "/c.pem", "TLS_KEY": "/k.pem"}, TlsFiles(Path("/c.pem"), Path("/k.pem"))),
    ({"HOST": "127.0.0.1"}, None),
    ({"HOST": "127.3.4.5"}, None),
    ({"HOST": "::1"}, None),
    ({"HOST": "localhost"}, None),
    ({"INSECURE": "yes"}, None),
])
def test_what_is_served(variables: dict[str, str], expected: TlsFiles | None) -> None:
    assert tls_of(settings(**variables)) == expected


@pytest.mark.parametrize(("variables", "sentence"), [
    ({}, "HOST is 0.0.0.0: set ESPALIER_COORDINATOR_TLS_DIR"),
    ({"HOST": "10.0.0.7"}, "INSECURE=yes"),
    ({"HOST": "127.0.0.1", "CLIENT_CA": "/ca"}, "CLIENT_CA needs TLS"),
    ({"HOST": "127.0.0.1", "SCALING_PORT": "6443"}, "SCALING_PORT needs TLS"),
    ({"TLS_CERT": "/c"}, "both"),
])
def test_what_is_refused(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        tls_of(settings(**variables))


def test_the_test_benchs_names_are_understood() -> None:
    told = translated({
        "BIND_ADDRESS": "127.0.0.1:6000", "HEARTBEAT_INTERVAL": "2", "HEALTH_CHECK_TIMEOUT": "4",
        "UNHEALTHY_THRESHOLD": "9", "MAX_RETRIES": "5", "MAX_COMPLETED_JOBS": "7", "CERT_PATH": "/c", "KEY_PATH": "/k",
        "RUST_LOG": "warn", "ESPALIER_COORDINATOR_RETRIES": "1", "ESPALIER_COORDINATOR_DATA": "/data",
    })
    found = load(CoordinatorSettings, "coordinator", {"ESPALIER_COORDINATOR_DATA": "/data", **told})
    assert (found.host, found.grpc_port) == ("127.0.0.1", 6000)
    assert (found.heartbeat_s, found.health_timeout_s, found.lease_s, found.max_completed_jobs) == (2, 4, 9, 7)
    assert (found.tls_cert, found.tls_key, found.log_level) == (Path("/c"), Path("/k"), "WARNING")
    assert found.retries == 3, "our own name wins: the other is not even translated"


def test_without_the_sign_nothing_is_read() -> None:
    assert translated({"MAX_RETRIES": "9", "CERT_PATH": "/c"}) == {}
    with pytest.raises(Misconfigured, match="ADDRESS:PORT"):
        translated({"BIND_ADDRESS": "everywhere"})
