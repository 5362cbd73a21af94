"""A folder with all a coordinator needs where there is no cluster: certificates, tokens, data."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import Clock
from espalier_kit.errors import Misconfigured

NAME = "espalier-coordinator.local.svc"
"""The name in the certificate: clients verify it whatever address they dial."""

USERS = {"admin": "admin", "worker": "system:serviceaccount:default:worker"}
"""File name of each token and the user that it stands for."""


def prepare(folder: Path, clock: Clock) -> dict[str, str]:
    """Make what is missing in `folder`; returns the settings' variables that point into it.

    Afterwards it holds `tls/` (tls.crt, tls.key, ca.crt), `admin.token`, `worker.token`, `tokens.json` and `data/`.
    """
    tls, tokens = folder / "tls", folder / "tokens.json"
    for path in (folder, tls, folder / "data"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (tls / "tls.crt").exists():
        authority = make_authority("espalier-local", clock.now())
        pair = issue(authority, NAME, clock.now(), hosts=[NAME, "localhost", "127.0.0.1"], is_server=True)
        _write(tls / "ca.crt", authority.certificate)
        _write(tls / "tls.key", pair.key)
        _write(tls / "tls.crt", pair.certificate)
    if not tokens.exists():
        made = {name: secrets.token_hex(16) for name in USERS}
        for name, token in made.items():
            _write(folder / f"{name}.token", token.encode())
        _write(tokens, json.dumps({made[name]: user for name, user in USERS.items()}).encode())
    return {
        "ESPALIER_COORDINATOR_DATA": str(folder / "data"), "ESPALIER_COORDINATOR_TLS_DIR": str(tls),
        "ESPALIER_COORDINATOR_ADMINS": "admin",
    }


def read_tokens(path: Path) -> Mapping[str, str]:
    """A JSON object of token to user name. Raises `Misconfigured`."""
    try:
        tokens = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"tokens file {path}: {error}", reason="Misconfigured") from error
    if not isinstance(tokens, dict) or not all(isinstance(user, str) for user in tokens.values()):
        raise Misconfigured(f"tokens file {path}: expected a JSON object of token to user name", reason="Misconfigured")
    return tokens


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
