"""What one streamed answer says, event by event, with the time each arrived. Pure: bytes and times in, facts out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from espalier_benchmark.records import TokenSource

DONE = "[DONE]"
_TEXT_CHANNELS = ("content", "reasoning_content", "reasoning", "refusal")
"""Keys of a delta that carry generated text; servers disagree on what reasoning is called."""


@dataclass(slots=True)
class Answer:
    """Collects a stream. `feed` bytes as they arrive; read the fields at the end."""

    first_s: float | None = None
    first_content_s: float | None = None
    model: str = ""
    finish: str = ""
    problem: str = ""
    """What the server said went wrong, inside the stream."""
    is_done: bool = False
    prompt_tokens: int = 0
    _completion_tokens: int | None = None
    _arrived: list[float] = field(default_factory=list)
    _totals: list[int | None] = field(default_factory=list)
    _rest: bytes = b""

    def feed(self, data: bytes, at_s: float) -> None:
        """Bytes that arrived at `at_s`. Raises ValueError for an event that is no JSON object."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip().decode("utf-8"), at_s)

    def chunks(self) -> tuple[tuple[float, float], ...]:
        """(when, tokens) of each chunk with text."""
        return tuple(zip(self._arrived, self._tokens(), strict=True))

    @property
    def token_source(self) -> TokenSource:
        """How the tokens were counted."""
        if not self._arrived:
            return ""
        if all(total is not None for total in self._totals):
            return "stream"
        return "chunks" if self._completion_tokens is None else "usage"

    def _tokens(self) -> Iterator[float]:
        if self.token_source == "stream":
            before = 0
            for total in self._totals:
                yield float(max(0, (total or 0) - before))
                before = total or 0
            return
        each = 1.0 if self._completion_tokens is None else self._completion_tokens / max(1, len(self._arrived))
        yield from (each for _ in self._arrived)

    def _event(self, text: str, at_s: float) -> None:
        if text == DONE:
            self.is_done = True
            return
        event = json.loads(text)
        if not isinstance(event, dict):
            raise ValueError("an event of the stream is no object")
        if error := event.get("error"):
            self.problem = str(error.get("message", error) if isinstance(error, dict) else error)[:300]
        self.model = self.model or str(event.get("model") or "")
        total = self._usage(event.get("usage"))
        for choice in event.get("choices") or ():
            self._choice(choice, at_s, total)

    def _choice(self, choice: dict[str, Any], at_s: float, total: int | None) -> None:
        self.finish = str(choice.get("finish_reason") or self.finish)
        delta = choice.get("delta") or {}
        if not (any(delta.get(name) for name in _TEXT_CHANNELS) or delta.get("tool_calls")):
            return
        self._arrived.append(at_s)
        self._totals.append(total)
        if self.first_s is None:
            self.first_s = at_s
        if self.first_content_s is None and (delta.get("content") or delta.get("tool_calls")):
            self.first_content_s = at_s

    def _usage(self, usage: Any) -> int | None:
        if not isinstance(usage, dict):
            return None
        self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        self._completion_tokens = int(usage.get("completion_tokens") or 0)
        return self._completion_tokens
