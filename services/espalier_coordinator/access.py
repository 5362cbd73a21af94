"""Who calls, and what they may: a service-account token decides."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from espalier_api.names import COORDINATOR_AUDIENCE as AUDIENCE
from espalier_kit.clock import Clock
from espalier_kit.digest import sha256
from espalier_kit.errors import Forbidden, Permanent
from espalier_kube.cluster import TOKEN_REVIEW, Cluster
from espalier_rpc.server import UNAUTHENTICATED

CACHE_S = 60.0
"""How long an answer of the API server is trusted; a deleted service account may act this much longer."""
CACHE_SIZE = 10_000
SUBMITTER = "espalier-submitter"
"""The service account of each job namespace that a person's tools act as."""
CANARY = "espalier-canary"
"""The service account of `helm test`: it submits and runs tasks of its own namespace."""

_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. Administrators may everything, anybody else only what its role says within its namespaces.

    `namespace` is its own one, where it acts unless it names another; None: every one. `namespaces` are further ones.
    """

    name: str
    namespace: str | None
    is_admin: bool = False
    namespaces: frozenset[str] = frozenset()
    may_submit: bool = False
    may_work: bool = True
    pool: str = ""
    """The shared worker pool that it works for."""

    @property
    def reach(self) -> str | None:
        """The namespace whose tasks it runs unless it names one; None is all of them."""
        return None if self.is_admin else self.namespace

    @property
    def reach_alone(self) -> str | None:
        """The one namespace it is confined to; None where there are several."""
        return None if self.namespaces else self.reach

    def may_see(self, namespace: str) -> bool:
        """Whether it may act in `namespace` at all."""
        return self.reach is None or namespace == self.namespace or namespace in self.namespaces

    def require_namespace(self, namespace: str) -> None:
        """Raise `Forbidden` unless it may act in `namespace`."""
        if not self.may_see(namespace):
            own = " and ".join(sorted({self.namespace or "", *self.namespaces} - {""}))
            raise Forbidden(f"{self.name} may only act in namespace {own!r}, not in {namespace!r}", reason="Forbidden")

    def require_submit(self, namespace: str) -> None:
        """Raise `Forbidden` unless it may submit and steer jobs of `namespace`."""
        self.require_namespace(namespace)
        if not (self.is_admin or self.may_submit):
            raise Forbidden(f"{self.name} may not submit or steer jobs: only the operator and submitters may",
                            reason="Forbidden")

    def require_work(self, namespace: str | None) -> None:
        """Raise `Forbidden` unless it may run tasks of `namespace`; None: of every one."""
        if namespace is None and self.reach is not None:
            raise Forbidden(f"{self.name} may only run tasks of namespace {self.namespace!r}", reason="Forbidden")
        if namespace is not None:
            self.require_namespace(namespace)
        if not (self.is_admin or self.may_work):
            raise Forbidden(f"{self.name} may not run tasks: its role is submitter, a worker needs another",
                            reason="Forbidden")

    def reach_for(self, pool: str) -> str | None:
        """`reach` of a worker that says it works for `pool`. Raises `Forbidden` unless its account belongs there."""
        if not self.is_admin and pool != self.pool:
            belongs = f"belongs to pool {self.pool!r}" if self.pool else "belongs to no pool"
            wanted = f"run tasks of pool {pool!r}" if pool else "run tasks outside it"
            raise Forbidden(f"{self.name} may not {wanted}: it {belongs}", reason="Forbidden")
        return None if pool else self.reach


def identity_of(user: str, admins: Iterable[str], pools: Mapping[str, str] | None = None) -> Identity:
    """What a user name says. Raises `Forbidden` for one that is neither an administrator nor a service account.

    An account of the name `espalier-submitter` submits and steers jobs of its namespace and runs none; one of the name
    `espalier-canary` does both.
    One that `pools` names works for that pool.
    """
    namespace, _, account = user.removeprefix(_SERVICE_ACCOUNT).partition(":")
    is_account = user.startswith(_SERVICE_ACCOUNT) and bool(namespace and account)
    if user in admins:
        return Identity(user, namespace if is_account else None, is_admin=True)
    if not is_account:
        raise Forbidden(f"{user} is neither a service account nor in ADMINS", reason="Forbidden")
    is_submitter = account == SUBMITTER
    pool = (pools or {}).get(user, "")
    may_submit = is_submitter or account == CANARY
    return Identity(user, namespace, may_submit=may_submit, may_work=not is_submitter, pool=pool)


class Unknown(Forbidden):
    """Nobody here knows what was shown; somebody else may."""


class Access(Protocol):
    """Tells who somebody is by what it shows."""

    async def identify(self, token: str) -> Identity:
        """Raises `Unknown` when nobody knows the token, `Forbidden` when who it is may not come in (both are
        Unauthenticated), `Retryable` when nobody can tell now.
        """
        ...

    async def identify_certificate(self, names: frozenset[str]) -> Identity:
        """The same by the names in a client certificate that our authority has signed."""
        ...


async def identify(access: Access, token: str, names: frozenset[str]) -> Identity:
    """By the token where there is one, else by the names of the client certificate."""
    if token:
        return await access.identify(token)
    if names:
        return await access.identify_certificate(names)
    raise Forbidden("send 'Authorization: Bearer TOKEN' with every call", reason=UNAUTHENTICATED)


class EitherAccess:
    """Asks one, and another where the first does not know: what the first refuses, the second never sees."""

    def __init__(self, first: Access, second: Access) -> None:
        self._first = first
        self._second = second

    async def identify(self, token: str) -> Identity:
        try:
            return await self._first.identify(token)
        except Unknown:
            return await self._second.identify(token)

    async def identify_certificate(self, names: frozenset[str]) -> Identity:
        try:
            return await self._first.identify_certificate(names)
        except Unknown:
            return await self._second.identify_certificate(names)


class ReviewedAccess:
    """Asks the API server (TokenReview), and remembers the answer for a minute by the token's digest.

    What has not the form of such a token is not shown to it: an API key with a typing error stays in this process.
    """

    def __init__(
        self, cluster: Cluster, admins: Iterable[str], clock: Clock, pools: Mapping[str, str] | None = None
    ) -> None:
        self._cluster = cluster
        self._pools = pools
        self._admins = frozenset(admins)
        self._clock = clock
        self._known: dict[str, tuple[float, Identity]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def identify(self, token: str) -> Identity:
        if not is_jwt(token):
            raise Unknown("this is neither the key of a known caller nor a service account's token: ask for a token "
                          f"with audience {AUDIENCE}, or look into the callers file", reason=UNAUTHENTICATED)
        digest = sha256(token.encode())
        try:
            async with self._asking.setdefault(digest, asyncio.Lock()):
                now = self._clock.monotonic()
                until, identity = self._known.get(digest, (0.0, None))
                if identity is None or until <= now:
                    identity = await self._review(token)
                    self._remember(digest, identity, now)
                return identity
        finally:
            self._asking.pop(digest, None)

    async def identify_certificate(self, names: frozenset[str]) -> Identity:
        raise _unknown("there is none, only a client certificate")

    def _remember(self, digest: str, identity: Identity, now: float) -> None:
        if len(self._known) >= CACHE_SIZE:
            self._known = {k: v for k, v in self._known.items() if v[0] > now}
        self._known[digest] = (now + CACHE_S, identity)

    async def _review(self, token: str) -> Identity:
        review = await self._cluster.create({
            "apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind,
            "spec": {"token": token, "audiences": [AUDIENCE]},
        })
        status = review.get("status") or {}
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            raise _unknown(status.get("error") or f"not valid for audience {AUDIENCE}")
        user = (status.get("user") or {}).get("username")
        if not isinstance(user, str):
            raise Permanent("the API server's TokenReview names no user", reason="InvalidReview")
        return identity_of(user, self._admins, self._pools)


def is_jwt(token: str) -> bool:
    """Whether it has the form of a service account's token (RFC 7519, signed: three parts, the first a JSON header)."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return False
    try:
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _unknown(why: str) -> Unknown:
    return Unknown(f"the API server does not accept this token: {why}; ask for one with audience {AUDIENCE}",
                   reason=UNAUTHENTICATED)
