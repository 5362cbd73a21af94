"""Kubernetes quantities of bytes."""

from __future__ import annotations

import re

_FACTORS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60, "m": 10**-3,
}


def parse_bytes(quantity: str) -> int:
    """`512Mi` → 536870912, rounded down. Raises `ValueError` on anything the CRD's pattern refuses."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", quantity)
    if found is None or found[2] not in _FACTORS:
        raise ValueError(f"{quantity!r} is no quantity")
    return int(float(found[1]) * _FACTORS[found[2]])
