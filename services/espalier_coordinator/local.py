"""A folder with all a coordinator needs where there is no cluster: certificates, callers, data."""

from __future__ import annotations

import os
from pathlib import Path

from espalier_coordinator.callers import Role, add_key
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import Clock

NAME = "espalier-coordinator.local.svc"
"""A name in the certificate: clients may verify it whatever address they dial."""

KEYS: dict[str, Role] = {"admin": "admin", "submitter": "submitter", "worker": "worker"}
"""File name of each key, and the role of who has it; all but the admin act in namespace `default`."""
NAMESPACE = "default"


def prepare(folder: Path, clock: Clock, *, does_tls: bool = True) -> dict[str, str]:
    """Make what is missing in `folder`; returns the settings' variables that point into it.

    Afterwards it holds `callers.yaml` with digests of `admin.token`, `submitter.token` and `worker.token`, `data/` and,
    unless everything stays on this machine in the clear, `tls/` (tls.crt, tls.key, ca.crt).
    """
    tls, callers = folder / "tls", folder / "callers.yaml"
    for path in (folder, tls, folder / "data"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if does_tls and not (tls / "tls.crt").exists():
        authority = make_authority("espalier-local", clock.now())
        pair = issue(authority, NAME, clock.now(), hosts=[NAME, "localhost", "127.0.0.1"], is_server=True)
        _write(tls / "ca.crt", authority.certificate)
        _write(tls / "tls.key", pair.key)
        _write(tls / "tls.crt", pair.certificate)
    if not callers.exists():
        for name, role in KEYS.items():
            namespaces = () if role == "admin" else (NAMESPACE,)
            _write(folder / f"{name}.token", add_key(callers, name=name, role=role, namespaces=namespaces).encode())
    variables: dict[str, object] = {"DATA": folder / "data", "CALLERS": callers}
    variables |= {"TLS_DIR": tls} if does_tls else {"HOST": "127.0.0.1"}
    return {f"ESPALIER_COORDINATOR_{name}": str(value) for name, value in variables.items()}


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
