"""Sentences, words and stems of English text, as simply as the measures' definitions allow. Pure."""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n{2,}")
_WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?|\d+(?:[.,]\d+)*")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ied", "edly", "ed", "es", "ly", "s")
_STOP = (
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its may might more most my no nor not of on or our she should so some such than that the their them then there "
    "these they this those to too very was we were what when where which who will with would you your"
)
STOP = frozenset(_STOP.split())
"""Words that tie sentences together in every text and so say nothing of this one."""


def sentences(text: str) -> list[str]:
    """Split after . ! ? before a capital, and at empty lines."""
    return [part.strip() for part in _SENTENCE.split(text) if part and _WORD.search(part)]


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return [found.lower() for found in _WORD.findall(text)]


def stem(word: str) -> str:
    """Common endings removed, so that "benches" meets "bench": enough for overlap, no linguistics."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word.removesuffix("e") if len(word) > 4 else word


def content_stems(text: str) -> list[str]:
    """Stems of the words that are not in `STOP`."""
    return [stem(word) for word in words(text) if word not in STOP]


def syllables(word: str) -> int:
    """Groups of vowels, a silent e at the end not counted; at least one."""
    found = len(re.findall(r"[aeiouy]+", word))
    return max(1, found - (word.endswith("e") and not word.endswith(("le", "ee")) and found > 1))
