"""OpenAI's older completion, for one purpose: a text echoed with the probabilities of its own tokens.

Perplexity needs nothing else; whoever wants text asks for a chat completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from espalier_mlx.chat import json_object, validated
from espalier_mlx.codec import Codec, Encoded
from espalier_mlx.errors import invalid
from espalier_mlx.work import TokenScore

_HARMLESS: Final = ("user", "temperature", "top_p", "seed", "n", "best_of", "stream")
"""Fields that change nothing where nothing is generated, with any value but True for a stream."""


class EchoRequest(BaseModel):
    """A request we can honour in full."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    prompt: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=1)]
    echo: Literal[True]
    max_tokens: Literal[0]
    logprobs: Annotated[int, Field(ge=0, le=1)]

    @property
    def text(self) -> str:
        """The one text."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


def parse(body: bytes) -> EchoRequest:
    """Raises `ApiError` 400 with a sentence."""
    data = json_object(body)
    if data.get("echo") is not True or data.get("max_tokens") != 0 or data.get("stream"):
        raise invalid(
            "This server generates text at /v1/chat/completions; here it only echoes: send echo true, max_tokens 0 and "
            "logprobs 0 or 1", param="echo", code="unsupported_value",
        )
    return validated(EchoRequest, {name: value for name, value in data.items() if name not in _HARMLESS})


def reply(
    request: EchoRequest, encoded: Encoded, scores: Sequence[TokenScore], codec: Codec, *, base: Mapping[str, Any]
) -> dict[str, Any]:
    """The completion; the first token has no probability, since nothing stands before it."""
    ends = (*encoded.offsets[1:], len(request.text))
    alternatives: list[dict[str, float] | None] = [None]
    alternatives += [{codec.token_text(each.best_token): each.best_logprob} for each in scores]
    logprobs = {
        "tokens": [request.text[start:end] for start, end in zip(encoded.offsets, ends, strict=True)],
        "token_logprobs": [None, *(each.logprob for each in scores)],
        "top_logprobs": alternatives if request.logprobs else None,
        "text_offset": list(encoded.offsets),
    }
    choice = {"index": 0, "text": request.text, "logprobs": logprobs, "finish_reason": "length"}
    count = len(encoded.tokens)
    usage = {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}
    return {**base, "object": "text_completion", "choices": [choice], "usage": usage}
