"""Recorded traffic as arrivals: Azure's LLM inference traces (CSV) and Mooncake's (JSON lines). Pure."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

from espalier_benchmark.schedule import Arrival
from espalier_kit.errors import Misconfigured


def azure(text: str) -> tuple[Arrival, ...]:
    """Columns TIMESTAMP, ContextTokens, GeneratedTokens. Raises `Misconfigured` naming the line."""
    rows = csv.DictReader(io.StringIO(text))
    missing = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} - set(rows.fieldnames or ())
    if missing:
        raise Misconfigured(f"the trace has no column {', '.join(sorted(missing))}", reason="BadTrace")
    found = []
    for line, row in enumerate(rows, 2):
        try:
            # Their fractions have seven digits; Python reads six.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            found.append((at, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
        except (ValueError, TypeError) as error:
            raise Misconfigured(f"line {line} of the trace: {error}", reason="BadTrace") from error
    return _arrivals(found)


def mooncake(text: str) -> tuple[Arrival, ...]:
    """One object a line: timestamp (ms), input_length, output_length. Raises `Misconfigured` naming the line."""
    found = []
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(content)
            found.append((float(row["timestamp"]) / 1000, int(row["input_length"]), int(row["output_length"])))
        except (ValueError, KeyError, TypeError) as error:
            raise Misconfigured(
                f"line {line} of the trace: {type(error).__name__} {error}", reason="BadTrace"
            ) from error
    return _arrivals(found)


def _arrivals(found: list[tuple[float, int, int]]) -> tuple[Arrival, ...]:
    if not found:
        raise Misconfigured("the trace is empty", reason="BadTrace")
    found.sort(key=lambda row: row[0])
    start = found[0][0]
    return tuple(
        Arrival(index, at - start, prompt_tokens=prompt, output_tokens=output)
        for index, (at, prompt, output) in enumerate(found)
    )
