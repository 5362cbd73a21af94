"""What a list may be narrowed by."""

from __future__ import annotations

from collections.abc import Set

from espalier_kit.errors import Permanent


def check_status(wanted: str, statuses: Set[str], *, of: str) -> None:
    """`of` is what the list is of; an empty wish means every status. Raises `Permanent` with the statuses there are."""
    if wanted and wanted not in statuses:
        raise Permanent(f"there is no {of} status {wanted!r}: use one of {', '.join(sorted(statuses))}",
                        reason="InvalidFilter")
