"""Settings under the names that the distributed test bench gave them; see docs/reference/compatibility.md. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from espalier_kit.errors import Misconfigured

SIGN = "BIND_ADDRESS"
"""The others are so general that they only count beside this one."""

NAMES = {
    "HEARTBEAT_INTERVAL": "HEARTBEAT_S", "HEALTH_CHECK_TIMEOUT": "HEALTH_TIMEOUT_S", "UNHEALTHY_THRESHOLD": "LEASE_S",
    "MAX_RETRIES": "RETRIES", "MAX_COMPLETED_JOBS": "MAX_COMPLETED_JOBS", "CERT_PATH": "TLS_CERT",
    "KEY_PATH": "TLS_KEY", "RUST_LOG": "LOG_LEVEL",
}


def meanings() -> tuple[str, dict[str, str]]:
    """For `--help`: a title, and each name with ours."""
    ours = {SIGN: "ESPALIER_COORDINATOR_HOST and _GRPC_PORT, as ADDRESS:PORT"}
    ours |= {theirs: f"ESPALIER_COORDINATOR_{name}" for theirs, name in NAMES.items()}
    return f"names of the distributed test bench, understood where {SIGN} is set", ours


def translated(environ: Mapping[str, str], program: str = "COORDINATOR") -> dict[str, str]:
    """What those variables say, under our names; ours win where both are set. Raises `Misconfigured`."""
    if SIGN not in environ:
        return {}
    host, colon, port = environ[SIGN].rpartition(":")
    if not colon or not port.isdigit():
        raise Misconfigured(f"{SIGN}={environ[SIGN]!r}: expected ADDRESS:PORT such as 0.0.0.0:50051",
                            reason="Misconfigured")
    told = {"HOST": host.strip("[]"), "GRPC_PORT": port}
    told |= {ours: environ[theirs] for theirs, ours in NAMES.items() if theirs in environ}
    ours = {f"ESPALIER_{program}_{name}": value for name, value in told.items()}
    return {name: value for name, value in ours.items() if name not in environ}
