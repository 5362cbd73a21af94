"""From tokens to text as it may be sent: whole characters only, nothing of a stop string, nothing after it."""

from __future__ import annotations

from collections.abc import Callable

DecodeStep = Callable[[int], str | None]
"""Takes the next token; returns text once whole characters are known, else None."""


class StopScanner:
    """Passes text on, holding back whatever may turn out to be the beginning of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """More text in, safe text out; after a stop string nothing comes out any more."""
        if self.is_stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return self._take(min(found))
        return self._take(len(self._held) - self._risky())

    def flush(self) -> str:
        """What was held back, at the end of an answer that met no stop string."""
        return "" if self.is_stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out

    def _risky(self) -> int:
        """Length of the longest tail that a stop string begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


class TextStream:
    """One answer's text, token by token."""

    def __init__(self, decode: DecodeStep, stops: tuple[str, ...]) -> None:
        self._decode = decode
        self._scanner = StopScanner(stops)

    def push(self, token: int) -> str:
        """Text that this token completed; may be empty."""
        return self._scanner.push(self._decode(token) or "")

    def flush(self) -> str:
        """The rest."""
        return self._scanner.flush()

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._scanner.is_stopped
