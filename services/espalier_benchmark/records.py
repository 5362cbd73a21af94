"""One request as it happened, and files of them: JSON lines, written while the run goes on, never changed after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TextIO

from espalier_kit.errors import Permanent

TokenSource = Literal["stream", "usage", "chunks", ""]
"""Where token counts come from: counted by the server in each chunk; by its final `usage`, spread evenly over the
chunks; or by nobody, so that a chunk counts as a token. Empty when no token came.
"""
CENSORED = frozenset({"timeout", "unfinished", "not-sent"})
"""Errors after which all that is known of the latency is that it was longer: percentiles count these as endless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All times are seconds since the run's start on the generator's monotonic clock.

    `intended_s` is when the request was due; in a closed loop, when its user became free. `held_s` is how long the
    run's own limit of requests in flight kept it back, which is not the client's fault.
    """

    index: int
    target: str
    intended_s: float
    sent_s: float
    ended_s: float
    held_s: float = 0.0
    headers_s: float | None = None
    first_s: float | None = None
    """First token of any channel, reasoning included."""
    first_content_s: float | None = None
    """First token of the answer itself."""
    chunks: tuple[tuple[float, float], ...] = ()
    """(when, tokens) of each chunk that carried text."""
    prompt_tokens: int = 0
    output_tokens: float = 0.0
    token_source: TokenSource = ""
    model: str = ""
    finish: str = ""
    error: str = ""
    detail: str = ""
    stage: int = 0
    generator: int = 0
    block: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether the answer came to its end."""
        return not self.error

    @property
    def ttft_s(self) -> float | None:
        """Service clock: from the send to the first token."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def response_ttft_s(self) -> float | None:
        """Response clock: from the moment it was due to the first token."""
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def service_s(self) -> float:
        """From the send to the end."""
        return self.ended_s - self.sent_s

    @property
    def response_s(self) -> float:
        """From the moment it was due to the end: what a user of a busy server waits."""
        return self.ended_s - self.intended_s

    @property
    def client_lag_s(self) -> float:
        """How late the generator itself was."""
        return max(0.0, self.sent_s - self.intended_s - self.held_s)

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first chunk's."""
        if len(self.chunks) < 2:
            return None
        tokens = sum(count for _, count in self.chunks[1:])
        return (self.chunks[-1][0] - self.chunks[0][0]) / tokens if tokens > 0 else None

    def gaps(self) -> Iterator[tuple[float, float]]:
        """(seconds per token, tokens) of each chunk after the first."""
        for (before, _), (at, tokens) in zip(self.chunks, self.chunks[1:], strict=False):
            if tokens > 0:
                yield (at - before) / tokens, tokens


def to_line(record: Record) -> str:
    """One line of JSON, times to the microsecond."""
    fields = {name: _rounded(getattr(record, name)) for name in _FIELDS}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def from_line(line: str) -> Record:
    """Raises `Permanent` (BadRecord) for a line that is no record."""
    try:
        fields = json.loads(line)
        fields["chunks"] = tuple((float(at), float(tokens)) for at, tokens in fields["chunks"])
        return Record(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise Permanent(f"no benchmark record: {line[:80]!r}", reason="BadRecord") from error


def read(lines: Iterable[str]) -> Iterator[Record]:
    """The records of a file. A last line cut short by a crash is left out; one in the middle is an error."""
    previous = ""
    for line in lines:
        if previous.strip():
            yield from_line(previous)
        previous = line
    if previous.endswith("\n") and previous.strip():
        yield from_line(previous)


class Writer:
    """Appends records to an open text file, each flushed, so that a kill loses at most the line being written."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, record: Record) -> None:
        self._file.write(to_line(record))
        self._file.flush()


_FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return value
