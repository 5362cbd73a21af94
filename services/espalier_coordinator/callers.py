"""Named callers without a cluster: API keys, of which only digests are kept, and client certificates by their name.

A YAML file lists them; it is read again when it changes. A key is 256 random bits, so a plain SHA-256 of it tells
nobody the key; passwords that people think up have no place here.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from espalier_coordinator.access import Identity, Unknown
from espalier_kit.clock import Clock
from espalier_kit.digest import sha256
from espalier_kit.errors import Conflict, Forbidden, Misconfigured
from espalier_rpc.server import UNAUTHENTICATED

log = logging.getLogger(__name__)

EVERY_NAMESPACE = "*"
LOOK_S = 1.0
"""How often the file may be looked at for changes."""

Role = Literal["admin", "submitter", "worker"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Entry(BaseModel):
    """One caller as the file has it: known by the digest of a key, or by a name in a client certificate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    role: Role
    namespaces: tuple[Text, ...] = ()
    pool: str = ""
    key: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    certificate: str = ""
    expires: AwareDatetime | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Entry:
        if bool(self.key) == bool(self.certificate):
            raise ValueError(f"caller {self.name!r}: give either key or certificate")
        if self.role != "admin" and not self.namespaces:
            raise ValueError(f"caller {self.name!r}: give namespaces, or ['*'] for every one")
        if self.pool and self.role != "worker":
            raise ValueError(f"caller {self.name!r}: only a worker has a pool, not the role {self.role}")
        return self

    def identity(self) -> Identity:
        """What it may."""
        own = tuple(n for n in self.namespaces if n != EVERY_NAMESPACE)
        is_everywhere = self.role == "admin" or EVERY_NAMESPACE in self.namespaces
        return Identity(
            self.name, None if is_everywhere else own[0], is_admin=self.role == "admin", namespaces=frozenset(own[1:]),
            may_submit=self.role == "submitter", may_work=self.role != "submitter", pool=self.pool,
        )


@dataclass(frozen=True, slots=True)
class Callers:
    """All of them, by digest and by certificate name."""

    entries: tuple[Entry, ...]

    def by_key(self, key: str) -> Entry | None:
        digest = f"sha256:{sha256(key.encode())}"
        return next((e for e in self.entries if e.key == digest), None)

    def by_certificate(self, names: Iterable[str]) -> Entry | None:
        known = frozenset(names)
        return next((e for e in self.entries if e.certificate and e.certificate in known), None)


def read_callers(path: Path) -> Callers:
    """Raises `Misconfigured` with a sentence."""
    try:
        told = yaml.safe_load(path.read_text())
        if not isinstance(told, dict) or set(told) != {"callers"} or not isinstance(told["callers"], list):
            raise ValueError("expected `callers:` with a list below")
        entries = tuple(Entry.model_validate(item) for item in told["callers"])
        names = [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two callers of the name {twice[0]!r}")
        shown = [entry.key or entry.certificate for entry in entries]
        if twice := sorted({entry.name for entry in entries if shown.count(entry.key or entry.certificate) > 1}):
            raise ValueError(f"callers {' and '.join(map(repr, twice))} have the same key or certificate: keep one")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = f"callers file {path}: {place} {first['msg']}"
        raise Misconfigured(said.replace(":  ", ": "), reason="BadCallers") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Misconfigured(f"callers file {path}: {error}", reason="BadCallers") from error
    return Callers(entries)


class NamedAccess:
    """`Access` by the callers file. A change that cannot be read leaves those of before in force."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._seen = _stamp(path)
        self._callers = read_callers(path)
        self._looked_at = clock.monotonic()

    async def identify(self, token: str) -> Identity:
        return self._allowed(self._now().by_key(token), "nobody has this API key")

    async def identify_certificate(self, names: frozenset[str]) -> Identity:
        said = f"no caller is known by the certificate of {', '.join(sorted(names))}"
        return self._allowed(self._now().by_certificate(names), said)

    def _allowed(self, entry: Entry | None, unknown: str) -> Identity:
        if entry is None:
            raise Unknown(f"{unknown}: ask for one, or look into the callers file", reason=UNAUTHENTICATED)
        if entry.expires is not None and entry.expires <= self._clock.now():
            raise Forbidden(f"the credentials of {entry.name} expired at {entry.expires.isoformat()}: make new ones",
                            reason=UNAUTHENTICATED)
        return entry.identity()

    def _now(self) -> Callers:
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            stamp = _stamp(self._path)
            if stamp != self._seen:
                self._seen = stamp
                self._read_again()
        return self._callers

    def _read_again(self) -> None:
        try:
            self._callers = read_callers(self._path)
            log.info("callers read again", extra={"callers": len(self._callers.entries)})
        except Misconfigured as error:
            log.error("callers unreadable, those of before count", extra={"error": str(error)})


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


# ---------------------------------------------------------------- making keys


def add_key(path: Path, *, name: str, role: Role, namespaces: Sequence[str]) -> str:
    """Add a caller to the file, which is made where it is missing; returns the key, which is written nowhere."""
    entries = list(read_callers(path).entries) if path.exists() else []
    if any(entry.name == name for entry in entries):
        raise Conflict(f"{path} has a caller {name!r} already: remove its entry first, or choose another name")
    key = f"esp_{secrets.token_hex(32)}"
    try:
        made = Entry(name=name, role=role, namespaces=tuple(namespaces), key=f"sha256:{sha256(key.encode())}")
    except ValidationError as error:
        raise Misconfigured(error.errors()[0]["msg"].removeprefix("Value error, "), reason="BadCallers") from error
    _write(path, [*entries, made])
    return key


def _write(path: Path, entries: Sequence[Entry]) -> None:
    told = {"callers": [e.model_dump(mode="json", exclude_defaults=True) for e in entries]}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    head = f"# API keys as digests; written {datetime.now(UTC).date()} by espalier-coordinator --new-key\n"
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(head + yaml.safe_dump(told, sort_keys=False))
    beside.replace(path)
