"""Evaluators give the numbers that their formulas give by hand, and abstain where there is nothing to measure."""

from __future__ import annotations

import math

import pytest

from espalier_benchmark.evaluators import intervals, judge, lexical, words
from espalier_benchmark.evaluators.texts import read_texts
from espalier_benchmark.figures import accuracy_figures
from espalier_benchmark.questions import ItemRecord
from espalier_kit.errors import Misconfigured
from tests.support.benchmarks import price, texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Cats sleep. A cat purrs. Dogs bark.", 0.5),
        ("Cats sleep. Cats purr.", 1.0),
        ("One sentence only.", None),
        ("", None),
    ],
)
def test_coherence_is_the_share_of_neighbours_with_a_word_in_common(text: str, value: float | None) -> None:
    assert lexical.coherence(text) == value


def test_readability_is_flesch_s_formula() -> None:
    assert lexical.readability("The cat sat on the mat.") == pytest.approx(206.835 - 1.015 * 6 - 84.6 * 1)
    assert lexical.readability("...") is None


def test_relevance_is_a_cosine_between_0_and_1() -> None:
    rarity = lexical.rarities(["red apples", "green pears"])
    assert lexical.relevance("red apples", "apples, red", rarity=rarity) == pytest.approx(1)
    assert lexical.relevance("red apples", "green pears", rarity=rarity) == 0
    assert 0 < (lexical.relevance("red pears", "red apples", rarity=rarity) or 0) < 1
    assert lexical.relevance("the of and", "red", rarity=rarity) is None


@pytest.mark.parametrize(
    ("answer", "value"),
    [("Rome is old", 1.0), ("Rome is new", 2 / 3), ("Paris fell", 0.0), ("old Rome is", 1.0), ("!", None)],
)
def test_faithfulness_is_the_share_of_words_in_runs_of_the_context(answer: str, value: float | None) -> None:
    assert lexical.faithfulness(answer, "They say Rome is old.") == value


def test_sentences_and_syllables() -> None:
    found = words.sentences("Really? No, e.g. this. Then 3.5 points.\n\nEnd")
    assert found == ["Really?", "No, e.g. this.", "Then 3.5 points.", "End"]
    assert [words.syllables(w) for w in ("cat", "make", "table", "readability", "tree")] == [1, 1, 2, 5, 1]


@pytest.mark.parametrize(
    ("straight", "swapped", "score"),
    [
        ("[[1]]", "[[2]]", 0.0),
        ("[[2]]", "so: [[1]]", 1.0),
        ("[[1]]", "[[1]]", 0.5),
        ("[[tie]]", "[[TIE]]", 0.5),
        ("[[tie]]", "[[1]]", 0.5),
        ("no idea", "[[1]]", None),
    ],
    ids=["baseline", "candidate", "position bias", "tie", "undecided", "abstains"],
)
def test_a_verdict_counts_only_if_it_survives_the_swap(straight: str, swapped: str, score: float | None) -> None:
    assert judge.score(*judge.unswapped(judge.verdict(straight), judge.verdict(swapped))) == score


def test_the_judge_sees_both_orders() -> None:
    one, other = judge.questions("Why?", "because", "therefore", reference="so")
    assert one.messages[0][1].index("because") < one.messages[0][1].index("therefore")
    assert other.messages[0][1].index("therefore") < other.messages[0][1].index("because")
    assert "<reference>\nso\n" in one.messages[0][1]


def test_kappa_is_cohen_s() -> None:
    pairs: list[tuple[judge.Side, judge.Side]] = [
        *[("first", "first")] * 20,
        *[("first", "second")] * 5,
        *[("second", "first")] * 10,
        *[("second", "second")] * 15,
    ]
    assert judge.kappa(pairs) == pytest.approx(0.4)
    assert judge.kappa([("first", "first")] * 3) is None
    assert judge.kappa([("", "first")]) is None


def test_intervals() -> None:
    assert intervals.share(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert intervals.share(0, 0) == (0.0, 1.0)
    value, low, high = intervals.mean([1.0, 2.0, 3.0]) or (0, 0, 0)
    assert (value, low, high) == pytest.approx((2, 2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert intervals.mean([]) is None


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    value, low, high = intervals.perplexity([(math.log(2), 30), (math.log(8), 10), (math.log(2), 20)]) or (0, 0, 0)
    assert value == pytest.approx(math.exp((50 * math.log(2) + 10 * math.log(8)) / 60))
    assert low < value < high
    assert intervals.perplexity([]) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no json", "line 1 of the file of pack accuracy.texts: it is no JSON"),
        (texts({"text": "a"}), "no line with prompt, which evaluator coherence reads"),
        (b'{"prompt": 3}', "line 1 of accuracy.texts: prompt is no text"),
    ],
)
def test_a_wrong_file_of_texts_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        read_texts(content, "coherence", targets=1)


def test_abstentions_are_counted_and_never_averaged_in() -> None:
    records = [
        ItemRecord(id="1", score=1.0, prompt_tokens=10, output_tokens=5),
        ItemRecord(id="2", score=None, why="too few words"),
        ItemRecord(id="3", score=0.0, prompt_tokens=10, output_tokens=5, is_cached=True),
    ]
    (figure,) = accuracy_figures("t", "humaneval", records, price=price())
    assert (figure.items, figure.abstained, figure.value, figure.metric) == (2, 1, 0.5, "share")
    assert figure.cost == pytest.approx((10 + 2 * 5) / 1e6)
