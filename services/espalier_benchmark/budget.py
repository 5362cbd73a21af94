"""What a run may spend, in tokens and money; where it stops, it says so."""

from __future__ import annotations

from dataclasses import dataclass

from espalier_api.benchmarkload import Limits, Price


@dataclass(slots=True)
class Budget:
    """Counts what was asked and answered. None is no limit."""

    max_cost: float | None = None
    max_output_tokens: float | None = None
    cost: float = 0.0
    output_tokens: float = 0.0

    def spend(self, price: Price | None, *, prompt_tokens: float, output_tokens: float) -> None:
        """One answer."""
        self.output_tokens += output_tokens
        self.cost += cost_of(price, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    @property
    def stopped(self) -> str:
        """Which limit is reached, in words; empty while none is."""
        if self.max_cost is not None and self.cost >= self.max_cost:
            return f"limits.maxCost: {self.cost:.4f} of {self.max_cost:.4f} is spent"
        if self.max_output_tokens is not None and self.output_tokens >= self.max_output_tokens:
            return f"limits.maxOutputTokens: {self.output_tokens:.0f} of {self.max_output_tokens:.0f} came"
        return ""


def cost_of(price: Price | None, *, prompt_tokens: float, output_tokens: float) -> float:
    """In the currency of the price; 0 without one."""
    if price is None:
        return 0.0
    return (prompt_tokens * price.input_per_million + output_tokens * price.output_per_million) / 1e6


def share_of(limits: Limits | None, share: float, *, spent_cost: float = 0.0, spent_tokens: float = 0.0) -> Budget:
    """A part of what is left."""
    if limits is None:
        return Budget()

    def left(limit: float | None, spent: float) -> float | None:
        return None if limit is None else max(0.0, limit - spent) * share

    tokens = None if limits.max_output_tokens is None else float(limits.max_output_tokens)
    return Budget(left(limits.max_cost, spent_cost), left(tokens, spent_tokens))
