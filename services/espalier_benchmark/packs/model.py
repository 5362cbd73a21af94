"""What every pack is: a manifest, questions, grades. Frozen values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from espalier_benchmark.items import Item

RIGHT = 1.0
"""The score from which an answer counts as right; partial credit stays visible in the mean score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a pack is made of. `sha256` is of the data that was read, or of the generator's own name and version."""

    name: str
    version: str
    sha256: str
    licence: str
    source: str
    grader: str
    template: str
    left_out: int = 0
    """Items that cannot be checked offline, left out of the pack and said so."""

    @property
    def template_sha256(self) -> str:
        """Of the prompt's text: two runs compare only if both asked the same way."""
        return hashlib.sha256(self.template.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Question:
    """One item: its id within the pack and what is sent."""

    id: str
    item: Item


@dataclass(frozen=True, slots=True)
class Grade:
    """`score` from 0 to 1 and why it is not 1, in words."""

    id: str
    score: float
    why: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the answer is fully right."""
        return self.score >= RIGHT


class Pack(Protocol):
    """Questions whose answers a program checks."""

    @property
    def manifest(self) -> Manifest:
        """Where it comes from."""
        ...

    def questions(self) -> Sequence[Question]:
        """All of them, always in the same order."""
        ...

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        """(question id, the model's text) → grades in the same order. Raises `PlatformFault` if it cannot run."""
        ...


class Confined(Pack, Protocol):
    """A pack whose answers run, in a sandbox, which no Mac has."""

    def solution(self, name: str) -> str | None:
        """An answer that is right, as a model would give it; None where only the scorer knows one when it sees it."""
        ...


def ask(template: str, *, max_tokens: int, **fields: str) -> Item:
    """One user message from a template."""
    return Item((("user", template.format(**fields)),), max_tokens)


def first(questions: Sequence[Question], *, count: int | None) -> tuple[Question, ...]:
    """The first so many; None is all."""
    return tuple(questions) if count is None else tuple(questions[:count])
