"""Waiting between tries: exponential back-off with full jitter, seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay of try n (from 1) is drawn from [cap/2, cap] with cap = min(first · 2^(n-1), longest), in seconds."""

    first_s: float = 1.0
    longest_s: float = 60.0

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        cap = min(self.first_s * 2 ** min(attempt - 1, 30), self.longest_s)
        return rng.uniform(cap / 2, cap)
