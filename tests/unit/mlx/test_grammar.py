"""The token mask of a JSON schema."""

import json

import mlx.core as mx
import numpy as np
import pytest

from espalier_mlx import tiny
from espalier_mlx.grammar import BadSchema, Grammars

TOKENIZER = tiny.tokenizer()
VOCABULARY = TOKENIZER.get_vocab_size()
END = TOKENIZER.token_to_id(tiny.END)
GRAMMARS = Grammars(TOKENIZER, vocabulary=VOCABULARY, end_tokens=frozenset({END}))
VERDICT = {
    "type": "object", "additionalProperties": False, "required": ["points", "comment"],
    "properties": {
        "points": {"type": "integer", "minimum": 0, "maximum": 9}, "comment": {"type": "string", "maxLength": 12},
    },
}


def draw(schema, seed, limit=200):
    """What a model without any knowledge says under the grammar."""
    constraint, rng, tokens = GRAMMARS.compile(schema), np.random.default_rng(seed), [0]
    while len(tokens) < limit:
        logits = np.array(constraint(mx.array(tokens), mx.zeros((1, VOCABULARY))))[0]
        if constraint.is_done:
            break
        tokens.append(int(rng.choice(np.flatnonzero(logits == 0))))
    assert not constraint.error
    return TOKENIZER.decode(tokens[1:])


@pytest.mark.parametrize("seed", range(5))
def test_random_draws_are_valid_json(seed):
    value = json.loads(draw(VERDICT, seed))
    assert set(value) == {"points", "comment"}
    assert 0 <= value["points"] <= 9
    assert len(value["comment"]) <= 12


def test_the_first_mask_allows_only_what_begins_the_value():
    logits = np.array(GRAMMARS.compile(VERDICT)(mx.array([0]), mx.zeros((1, VOCABULARY))))[0]
    allowed = {TOKENIZER.decode([int(i)]) for i in np.flatnonzero(logits == 0)}
    assert allowed
    assert all('{"points":'.startswith(text) for text in allowed), "no blanks, no text before the object"


def test_after_the_end_nothing_is_masked_and_nothing_raises():
    constraint = GRAMMARS.compile({"enum": [True]})
    tokens = [0, *TOKENIZER.encode("true", add_special_tokens=False).ids, END]
    for count in range(1, len(tokens) + 1):
        logits = constraint(mx.array(tokens[:count]), mx.zeros((1, VOCABULARY)))
    assert constraint.is_done
    assert np.isfinite(np.array(logits)).all()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"not": {}}, "not"),
        ({"$ref": "http://x/y"}, "http://x/y"),
        ({"type": "string", "pattern": "(?=x)"}, "look-around"),
        ({"type": "string", "description": "x" * 300_000}, "262144 are allowed"),
    ],
    ids=["type", "keyword", "remote reference", "pattern", "size"],
)
def test_bad_schemas_are_refused_with_the_reason(schema, says):
    with pytest.raises(BadSchema, match=says):
        GRAMMARS.compile(schema)
