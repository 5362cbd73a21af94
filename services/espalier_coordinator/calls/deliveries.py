"""Which answers to a pull have arrived, so that one that was lost strands nothing. No I/O.

Each answer carries a receipt, and a heartbeat says the last one that its worker has seen, made in the same moment as
its list of what is in flight. Without a receipt nothing is compared: a client that lists nothing keeps what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from espalier_coordinator.messages import Lease

_NUMBER = re.compile(r"[0-9]{1,18}")


class Deliveries:
    """Of one registration: a receipt of another one says nothing. Times are monotonic seconds."""

    def __init__(self, registration: str, *, patience_s: float) -> None:
        """An answer that a worker has not seen `patience_s` after it was given is lost: longer than an answer and a
        heartbeat after it are under way."""
        self._registration = registration
        self._patience_s = patience_s
        self._number = 0
        self._given: dict[Lease, tuple[int, float]] = {}

    @property
    def receipt(self) -> str:
        """Of the last answer, or of the registration itself."""
        return f"{self._registration}/{self._number}"

    def gave(self, leases: Iterable[Lease], now: float) -> None:
        """An answer with these leases goes out."""
        self._number += 1
        self._given.update(dict.fromkeys(leases, (self._number, now)))

    def lost(
        self, receipt: str, in_flight: Collection[Lease], held: Collection[Lease], now: float
    ) -> tuple[Lease, ...]:
        """What was given of `held` and never arrived, or was dropped there, as a heartbeat with `receipt` shows."""
        self._given = {lease: given for lease, given in self._given.items() if lease in held}
        seen = self._seen(receipt)
        if seen is None:
            return ()
        return tuple(
            lease for lease, (number, at) in self._given.items()
            if lease not in in_flight and (number <= seen or now - at >= self._patience_s)
        )

    def _seen(self, receipt: str) -> int | None:
        registration, _, number = receipt.rpartition("/")
        return int(number) if registration == self._registration and _NUMBER.fullmatch(number) else None
