"""Errors by meaning. Doors translate library exceptions into these, chained; nobody above a door sees the library's."""

from __future__ import annotations


class EspalierError(Exception):
    """Base. `reason` is CamelCase, for conditions and metrics; the message a sentence that says what to change."""

    def __init__(self, message: str, *, reason: str = "Error") -> None:
        super().__init__(message)
        self.reason = reason


class Retryable(EspalierError):
    """Trying again later may succeed: network, overload, a leader that moved. `after_s` is the server's own wish."""

    def __init__(self, message: str, *, reason: str = "Unavailable", after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s


class Permanent(EspalierError):
    """Trying again with the same input fails again: bad input, refused."""


class NotFound(Permanent):
    """What was named does not exist."""


class Conflict(Retryable):
    """Somebody else wrote first, or the name is taken: read again, decide again."""


class Forbidden(Permanent):
    """The caller is known and may not."""


class Gone(Retryable):
    """A watch position is too old: list again."""


class Misconfigured(Permanent):
    """A setting is missing or wrong; the message names it. Programs exit with `EXIT_MISCONFIGURED`."""


EXIT_STOPPED = 143
"""128 + SIGTERM: stopped from outside with work left. To a Job 0 would mean that this index is complete."""

EXIT_MISCONFIGURED = 78
"""sysexits EX_CONFIG: a Job's podFailurePolicy fails the whole Job on it, since no retry helps."""
