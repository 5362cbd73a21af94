"""Settings under the names that the distributed test bench gave them; see docs/reference/compatibility.md. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from espalier_kit.errors import Misconfigured

SIGN = "COORDINATOR_ADDRESS"
"""The others are so general that they only count beside this one."""

NAMES = {
    SIGN: "COORDINATOR", "WORKER_ID": "ID", "CAPACITY": "CAPACITY", "TAGS": "TAGS", "WORKER_API_KEY": "API_KEY",
    "HEARTBEAT_INTERVAL": "HEARTBEAT_S", "TASK_PULL_INTERVAL": "PULL_INTERVAL_S", "RUST_LOG": "LOG_LEVEL",
}
BIND = "BIND_ADDRESS"


def meanings() -> tuple[str, dict[str, str]]:
    """For `--help`: a title, and each name with ours."""
    ours = {theirs: f"ESPALIER_WORKER_{name}" for theirs, name in NAMES.items()}
    ours |= {BIND: "ESPALIER_WORKER_HOST and _PORT, as ADDRESS:PORT"}
    return f"names of the distributed test bench, understood where {SIGN} is set", ours


def translated(environ: Mapping[str, str]) -> dict[str, str]:
    """What those variables say, under our names; ours win where both are set. Raises `Misconfigured`."""
    if SIGN not in environ:
        return {}
    told = {ours: environ[theirs] for theirs, ours in NAMES.items() if environ.get(theirs)}
    if "PULL_INTERVAL_S" in told:
        told["TRANSPORT"] = "calls"  # a stream has nothing to pull
    if bound := environ.get(BIND):
        host, colon, port = bound.rpartition(":")
        if not colon or not port.isdigit():
            raise Misconfigured(f"{BIND}={bound!r}: expected ADDRESS:PORT such as 0.0.0.0:0",
                                reason="Misconfigured")
        told |= {"HOST": host.strip("[]"), "PORT": port}
    ours = {f"ESPALIER_WORKER_{name}": value for name, value in told.items()}
    return {name: value for name, value in ours.items() if name not in environ}
