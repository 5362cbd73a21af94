"""Text to tokens and back for one model: chat template, special tokens, end-of-answer tokens.

What people write is text, never control tokens: a submission that contains the template's own markers must not be able
to open a system message. Only then is the prompt encoded piece by piece; else in one go, as the model was trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from espalier_mlx.text import DecodeStep

Message = dict[str, str]
Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether to open the assistant's turn) → the prompt as text. May raise whatever the template raises."""

_MARK = "\ue0f0{}\ue0f1"
_MARKS = re.compile("\ue0f0([0-9]+)\ue0f1")
_SHORTEST_PREFIX = 16
"""Tokens below which sharing a prefix costs more than computing it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens of a conversation; the first `prefix_tokens` are its system message, the same for many requests."""

    tokens: tuple[int, ...]
    prefix_tokens: int
    prefix_key: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's tokens and where in the text each begins."""

    tokens: tuple[int, ...]
    offsets: tuple[int, ...]


class Codec:
    """Encodes conversations and decodes answers. Thread-safe: holds no state between calls."""

    def __init__(self, tokenizer: Tokenizer, render: Render, end_tokens: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._literal = Tokenizer.from_str(tokenizer.to_str())
        self._literal.encode_special_tokens = True
        self._render = render
        self._special = tuple(
            token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special and token.content
        )
        self.end_tokens = end_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself, for the grammar."""
        return self._tokenizer

    def encode(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a conversation, the assistant's turn opened. Raises whatever the model's template raises."""
        tokens = self._tokens(messages, opened=True)
        prefix = self._shared_prefix(messages, tokens)
        key = sha256(b"".join(t.to_bytes(4, "big") for t in tokens[:prefix])).hexdigest() if prefix else ""
        return Prompt(tokens, prefix, key)

    def encode_text(self, text: str) -> Encoded:
        """A text as it is, markers in it being text; with the tokens that the model wants before any text."""
        found = self._literal.encode(text, add_special_tokens=True)
        return Encoded(tuple(found.ids), tuple(start for start, _ in found.offsets))

    def token_text(self, token: int) -> str:
        """One token alone; a part of a character shows as �."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def decoder(self) -> DecodeStep:
        """A fresh decoder for one answer; special tokens give no text."""
        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token)

    def _shared_prefix(self, messages: Sequence[Message], tokens: tuple[int, ...]) -> int:
        if messages[0]["role"] != "system" or len(messages) < 2:
            return 0
        try:
            alone = self._tokens(messages[:1], opened=False)
        except Exception:  # some templates refuse a conversation without a user: then nothing is shared
            return 0
        same = next((i for i, (a, b) in enumerate(zip(alone, tokens, strict=False)) if a != b), len(alone))
        prefix = min(same, len(tokens) - 1)
        return prefix if prefix >= _SHORTEST_PREFIX else 0

    def _tokens(self, messages: Sequence[Message], *, opened: bool) -> tuple[int, ...]:
        if not any(special in message["content"] for message in messages for special in self._special):
            return tuple(self._tokenizer.encode(self._render(messages, opened), add_special_tokens=False).ids)
        marked = [{**message, "content": _MARK.format(i)} for i, message in enumerate(messages)]
        tokens: list[int] = []
        for i, piece in enumerate(_MARKS.split(self._render(marked, opened))):
            is_content = i % 2 == 1
            text = messages[int(piece)]["content"] if is_content else piece
            encoder = self._literal if is_content else self._tokenizer
            tokens.extend(encoder.encode(text, add_special_tokens=False).ids)
        return tuple(tokens)
