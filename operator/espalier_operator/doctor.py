"""The node doctor's active signal: `GET /ready` on each serving endpoint every 3 s; two failures withdraw it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import httpx

from espalier_kit.clock import Clock, wait_or_stop
from espalier_operator.plan.modelserver import PORT

log = logging.getLogger(__name__)

PERIOD_S = 3.0
ROUND_S = 1.0
"""Who does not answer (starting, or withdrawn) is asked each round, so that it serves as soon as it can."""
TIMEOUT_S = 2.5
FAILURES = 2
AGAIN_S = 0.5
"""The second question after a first failure comes soon: withdrawn at most 8.5 s after it fell silent."""


@dataclass(frozen=True, slots=True)
class Target:
    """One pod to be asked."""

    uid: str
    server: tuple[str, str]
    """Namespace and name of the ModelServer, for whoever is told."""
    ip: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one pod."""

    answers: bool
    tokens_per_second: float | None = None
    why: str = ""
    failures: int = 0


class Probe(Protocol):
    """One question to one endpoint; returns tokens per second. Raises `OSError` or `ValueError` with the reason."""

    async def __call__(self, target: Target) -> float | None: ...


class Doctor:
    """Asks all targets at once, each period. `on_change` gets the server whose pods changed their mind."""

    def __init__(
        self, probe: Probe, targets: Callable[[], Iterable[Target]], on_change: Callable[[tuple[str, str]], None],
        clock: Clock,
    ) -> None:
        self._probe, self._targets, self._on_change, self._clock = probe, targets, on_change, clock
        self._verdicts: dict[str, Verdict] = {}
        self._asked_at: dict[str, float] = {}

    def verdict(self, pod_uid: str) -> tuple[bool, float | None, str] | None:
        """(answers, tokens per second, why not), or None before the first probe."""
        known = self._verdicts.get(pod_uid)
        return None if known is None else (known.answers, known.tokens_per_second, known.why)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        while not await wait_or_stop(stop, ROUND_S):
            await self.visit()

    async def visit(self) -> None:
        """One round: everybody whose turn it is, at once."""
        targets = tuple(self._targets())
        alive = {target.uid for target in targets}
        self._verdicts = {uid: v for uid, v in self._verdicts.items() if uid in alive}
        self._asked_at = {uid: at for uid, at in self._asked_at.items() if uid in alive}
        now = self._clock.monotonic()
        due = [target for target in targets if self._is_due(target.uid, now)]
        self._asked_at |= {target.uid: now for target in due}
        await asyncio.gather(*(self._ask(target) for target in due))

    def _is_due(self, uid: str, now: float) -> bool:
        known = self._verdicts.get(uid)
        return known is None or not known.answers or now - self._asked_at[uid] >= PERIOD_S - ROUND_S / 2

    async def _ask(self, target: Target) -> None:
        before = self._verdicts.get(target.uid)
        after = judged(before, *await self._question(target))
        if after.failures == 1 and after.answers:
            await self._clock.sleep(AGAIN_S)
            after = judged(after, *await self._question(target))
        self._verdicts[target.uid] = after
        if before is None or (before.answers, before.tokens_per_second) != (after.answers, after.tokens_per_second):
            self._on_change(target.server)
        if before is not None and before.answers != after.answers:
            log.info("endpoint verdict", extra={"pod_ip": target.ip, "answers": after.answers, "why": after.why})

    async def _question(self, target: Target) -> tuple[float | None, str]:
        try:
            return await self._probe(target), ""
        except (OSError, ValueError) as failure:
            return None, str(failure) or type(failure).__name__


def judged(before: Verdict | None, rate: float | None, error: str) -> Verdict:
    """The next verdict: one success restores, the second failure in a row withdraws."""
    if not error:
        return Verdict(answers=True, tokens_per_second=rate)
    failures = (before.failures if before is not None else 0) + 1
    still = before is not None and before.answers and failures < FAILURES
    return Verdict(answers=still, tokens_per_second=before.tokens_per_second if still and before else None, why=error,
                   failures=failures)


class HttpProbe:
    """`GET /ready` over TLS, verifying the server's name under our authority, whatever address is dialled."""

    def __init__(self, ca_pem: str) -> None:
        context = ssl.create_default_context(cadata=ca_pem)
        self._http = httpx.AsyncClient(verify=context, timeout=TIMEOUT_S, trust_env=False)

    async def __call__(self, target: Target) -> float | None:
        host = f"[{target.ip}]" if ":" in target.ip else target.ip
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._http.get(
                    f"https://{host}:{PORT}/ready", extensions={"sni_hostname": target.server_name}
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise OSError(f"/ready: {type(error).__name__} {error}".strip()) from error
        if response.status_code != 200:
            raise ValueError(f"/ready answers {response.status_code}")
        rate = response.json().get("tokens_per_second")
        return float(rate) if isinstance(rate, int | float) else None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
