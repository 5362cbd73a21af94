"""What is asked: synthetic prompts made from a seed, or a file's. Pure; item N is the same on every generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_benchmark.schedule import Arrival
from espalier_kit.errors import Misconfigured

_WORDS = (
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "juniper",
    "kelp",
    "lagoon",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question: chat messages and the longest answer wanted. `ignore_eos` asks servers that can for exactly it."""

    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    ignore_eos: bool = False


Items = Callable[[Arrival], Item]


def synthetic(*, seed: int, prompt_tokens: int, output_tokens: int) -> Items:
    """Prompts of about `prompt_tokens` words, all different from the first word on, so that no prefix cache helps."""

    def item(arrival: Arrival) -> Item:
        chance = random.Random(f"{seed}/{arrival.index}")
        length = arrival.prompt_tokens or prompt_tokens
        text = " ".join([str(chance.getrandbits(32)), *chance.choices(_WORDS, k=max(0, length - 1))])
        return Item((("user", text),), arrival.output_tokens or output_tokens, ignore_eos=True)

    return item


def in_turn(found: Sequence[Item]) -> Items:
    """The items round and round."""
    return lambda arrival: found[arrival.index % len(found)]


def from_lines(text: str, *, max_tokens: int) -> Items:
    """Items of a JSON-lines file, round and round: `prompt`, or `messages`. Raises `Misconfigured` naming the line."""
    found = [_read(number, line, max_tokens) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise Misconfigured("the dataset is empty", reason="BadDataset")
    return in_turn(found)


def _read(number: int, line: str, max_tokens: int) -> Item:
    try:
        row: dict[str, Any] = json.loads(line)
        if "messages" in row:
            messages = tuple((str(m["role"]), str(m["content"])) for m in row["messages"])
        else:
            messages = (("user", str(row["prompt"])),)
        return Item(messages, int(row.get("max_tokens", max_tokens)))
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"line {number} of the dataset: {type(error).__name__} {error}", reason="BadDataset"
        ) from error
