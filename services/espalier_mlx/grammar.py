"""JSON schema → token mask, by llguidance.

llguidance's own MLX kernel is Metal-only, so the mask is a numpy bit mask and one `mx.where`, on every platform. Blanks
between JSON tokens are not allowed: given the choice, a weak model writes blanks until its length limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tokenizers import Tokenizer

_OPTIONS = {"whitespace_flexible": False}
_MAX_SCHEMA_BYTES = 256 * 1024
_LIMITS = LLParserLimits(initial_lexer_fuel=1_000_000, max_grammar_size=100_000, verbose_errors=False)


class BadSchema(ValueError):
    """The schema cannot be turned into a grammar; the message says why."""


class Grammars:
    """Compiles schemas for one tokenizer. `vocabulary` is the number of logits of the model."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, end_tokens: frozenset[int]) -> None:
        plain = Tokenizer.from_str(tokenizer.to_str())
        plain.no_padding()
        plain.no_truncation()
        self._tokenizer = LLTokenizer(plain.to_str(), n_vocab=vocabulary, eos_token=sorted(end_tokens))
        self._vocabulary = vocabulary

    def compile(self, schema: Mapping[str, Any]) -> JsonConstraint:
        """A fresh constraint for one answer. Raises `BadSchema`."""
        text = json.dumps(schema)
        if len(text) > _MAX_SCHEMA_BYTES:
            raise BadSchema(f"the schema is {len(text)} bytes long; {_MAX_SCHEMA_BYTES} are allowed")
        try:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
        except ValueError as error:
            raise BadSchema(str(error)) from error
        problem = LLMatcher.validate_grammar(grammar, self._tokenizer, limits=_LIMITS)
        if problem and not problem.startswith("WARNING"):
            raise BadSchema(" ".join(problem.split())[:400])
        return JsonConstraint(LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS), self._vocabulary)


class JsonConstraint:
    """One answer's grammar as a logits processor of mlx-lm. Never raises: a fault is kept in `error`.

    mlx-lm computes one token ahead, so after the last token it still asks for a mask; that answer is thrown away.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._bits = allocate_token_bitmask(1, vocabulary)
        self._vocabulary = vocabulary
        self._has_begun = False

    @property
    def is_done(self) -> bool:
        """Whether the JSON value is complete."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why the grammar could not go on; empty while it can."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""

    def __call__(self, context: mx.array, logits: mx.array) -> mx.array:
        """Mask what the grammar does not allow next. `context` ends with the last token, at first the prompt's."""
        if self._has_begun and not self._matcher.is_stopped():
            self._matcher.consume_token(int(context[-1]))
        self._has_begun = True
        if self._matcher.is_stopped():
            return logits
        fill_next_token_bitmask(self._matcher, self._bits)
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=self._vocabulary)
        return mx.where(mx.array(allowed.astype(bool)), logits, -float("inf"))
