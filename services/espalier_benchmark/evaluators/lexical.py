"""Measures of an answer by its words alone: cheap, the same on every machine, and proxies: they read no meaning. Pure.

Each formula is its source's; texts without enough words get None, an abstention.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from espalier_benchmark.evaluators.words import content_stems, sentences, syllables, words


def coherence(text: str) -> float | None:
    """Share of neighbouring sentences with a content stem in common (argument overlap, Graesser et al. 2004,
    Coh-Metrix, Behavior Research Methods 36): 0 to 1. None for fewer than two sentences.
    """
    found = [set(content_stems(sentence)) for sentence in sentences(text)]
    pairs = list(itertools.pairwise(found))
    return sum(bool(before & after) for before, after in pairs) / len(pairs) if pairs else None


def readability(text: str) -> float | None:
    """Reading ease, 206.835 - 1.015 words/sentence - 84.6 syllables/word (Flesch 1948, J. Applied Psychology 32);
    about 0 (hard) to 100 (easy). None without a word.
    """
    parts, found = sentences(text), words(text)
    if not parts or not found:
        return None
    return 206.835 - 1.015 * len(found) / len(parts) - 84.6 * sum(map(syllables, found)) / len(found)


def relevance(answer: str, wanted: str, *, rarity: Mapping[str, float]) -> float | None:
    """Cosine of the tf-idf vectors of answer and `wanted` (Salton and Buckley 1988, Information Processing and
    Management 24): 0 to 1. None where either has no content word.
    """
    one, other = _weighted(answer, rarity), _weighted(wanted, rarity)
    lengths = math.sqrt(sum(w * w for w in one.values())) * math.sqrt(sum(w * w for w in other.values()))
    if not lengths:
        return None
    return sum(weight * other.get(term, 0.0) for term, weight in one.items()) / lengths


def rarities(texts: Sequence[str]) -> Mapping[str, float]:
    """Smoothed inverse document frequency of each stem, ln((1 + n) / (1 + df)) + 1."""
    found = Counter(term for text in texts for term in set(content_stems(text)))
    return {term: math.log((1 + len(texts)) / (1 + count)) + 1 for term, count in found.items()}


def faithfulness(answer: str, context: str) -> float | None:
    """Extractive fragment coverage (Grusky, Naaman and Artzi 2018, Newsroom, NAACL): the share of the answer's words
    that stand in it in a run that the context has too. 0 to 1: a low value finds words from elsewhere, a high one does
    not prove that they are used truly. None without a word.
    """
    found, known = words(answer), words(context)
    if not found:
        return None
    places: dict[str, list[int]] = {}
    for position, word in enumerate(known):
        places.setdefault(word, []).append(position)
    covered, at = 0, 0
    while at < len(found):
        longest = max((_shared(found, known, at, place) for place in places.get(found[at], ())), default=0)
        covered += longest
        at += max(1, longest)
    return covered / len(found)


def _shared(found: Sequence[str], known: Sequence[str], at: int, place: int) -> int:
    length = 0
    while at + length < len(found) and place + length < len(known) and found[at + length] == known[place + length]:
        length += 1
    return length


def _weighted(text: str, rarity: Mapping[str, float]) -> dict[str, float]:
    counts = Counter(content_stems(text))
    rarest = max(rarity.values(), default=1.0)
    return {term: count * rarity.get(term, rarest) for term, count in counts.items()}
