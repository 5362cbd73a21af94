"""Accuracy item by item: what was asked, what came, how it was graded; one JSON line each, kept as soon as it is known.

A journal makes a second attempt go on where the first was killed. The same file, kept for longer, is a response cache:
its keys name the model and its revision, the parameters, the seed, the template and the messages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from espalier_benchmark.asking import Said
from espalier_benchmark.items import Item
from espalier_kit.digest import value_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom one asks, and how: equal identities give equal answers, as far as a server keeps its promises."""

    model: str
    revision: str
    temperature: float
    seed: int
    max_tokens: int
    template: str

    def key(self, item: Item) -> str:
        """Of one question."""
        asked = {**asdict(self), "messages": [list(message) for message in item.messages], "limit": item.max_tokens}
        return value_digest(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRecord:
    """One question's outcome. `score` is None where the evaluator abstained.

    `weight` is what the score counts: 1, or for perplexity the tokens of the text, whose `score` is then their mean
    negative log-probability. `verdicts` holds a judge's two verdicts, positions swapped.
    """

    id: str
    score: float | None
    why: str = ""
    weight: float = 1.0
    verdicts: tuple[str, ...] = ()
    text: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    is_cached: bool = False


class Journal:
    """Answers by key, appended to a file as they come; a last line cut short by a kill is forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = dict(_entries(path))
        # What a kill cut short is ended, so that the next line stands by itself.
        with path.open("ab") as file:
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write(b"\n")

    def get(self, key: str) -> Said | None:
        """What was answered to the question of that key."""
        return self._known.get(key)

    def put(self, key: str, answer: Said) -> None:
        """Written through to the disk before it counts."""
        self._known[key] = answer
        with self._path.open("ab") as file:
            file.write(json.dumps({"key": key, "said": asdict(answer)}, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """The answers are stored elsewhere: forget the file."""
        self._path.unlink(missing_ok=True)


def to_lines(records: Iterable[ItemRecord]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n" for record in records)


def from_lines(content: bytes) -> list[ItemRecord]:
    """The same read back."""
    rows: list[Mapping[str, object]] = [json.loads(line) for line in content.decode().splitlines() if line]
    return [ItemRecord(**{**row, "verdicts": tuple(row["verdicts"])}) for row in rows]  # type: ignore[arg-type]


def _entries(path: Path) -> Iterable[tuple[str, Said]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            yield entry["key"], Said(**entry["said"])
        except (ValueError, KeyError, TypeError):
            continue
