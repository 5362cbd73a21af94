"""OpenAI's chat completion: what a request may say, and the objects that answer it.

A field that we do not honour is refused unless its value changes nothing: ignoring `n: 2` or `tools` would be a lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from espalier_mlx.errors import ApiError, invalid
from espalier_mlx.work import Finished, Sampling

B = TypeVar("B", bound=BaseModel)
_HARMLESS: Final[Mapping[str, tuple[Any, ...] | None]] = {
    "user": None, "metadata": None, "safety_identifier": None, "prompt_cache_key": None,
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "store": (False,), "service_tier": ("auto", "default"), "modalities": (["text"],),
}
"""Fields we do not honour → values that change nothing (None: any value)."""
_ROLES: Final = {"developer": "system"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Part):
    """A piece of text content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Part):
    """One message; content in parts is joined."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...]

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, content: Any) -> Any:
        parts = content if isinstance(content, list) else [content]
        if not all(isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text") for part in parts):
            raise ValueError("must be text or a list of text parts; images, audio and files are not read")
        return content

    def plain(self) -> dict[str, str]:
        """Role and text, as templates want them."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": _ROLES.get(self.role, self.role), "content": text}


class SchemaFormat(_Part):
    """`json_schema` of a response format."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(_Part):
    """Free text."""

    type: Literal["text"]


class JsonFormat(_Part):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Part):
    """JSON that the schema allows."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


class StreamOptions(_Part):
    """Extras of a stream."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class ChatRequest(_Part):
    """A request we can honour in full."""

    model: str
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(default=None)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Annotated[TextFormat | JsonFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(stop, tuple) and len(stop) > 4:
            raise ValueError("at most 4 stop strings")
        return stop or None

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, none empty."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def sampling(self) -> Sampling:
        """With OpenAI's defaults: temperature 1, top_p 1."""
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(temperature, top_p, None if self.seed is None else self.seed % 2**64)

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, if the request says."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The JSON schema that binds the answer, if any."""
        if isinstance(self.response_format, JsonSchemaFormat):
            return self.response_format.json_schema.schema_
        return {"type": "object"} if isinstance(self.response_format, JsonFormat) else None

    @property
    def has_usage_chunk(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


def parse(body: bytes) -> ChatRequest:
    """Read a request body. Raises `ApiError` 400 with a sentence and the field's name."""
    return validated(ChatRequest, _without_harmless(json_object(body)))


def validated(cls: type[B], data: Mapping[str, Any]) -> B:
    """The request of that form. Raises `ApiError` 400."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise _sentence(error) from error


def json_object(body: bytes) -> dict[str, Any]:
    """Raises `ApiError` 400."""
    try:
        data = json.loads(body)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise invalid("The body holds a broken Unicode character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"The body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise invalid("The body must be a JSON object")
    return data


def _without_harmless(data: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in data.items():
        if name not in _HARMLESS:
            kept[name] = value
            continue
        allowed = _HARMLESS[name]
        if allowed is not None and value is not None and value not in allowed:
            message = f"'{name}' with this value is not supported by this server: remove it"
            raise invalid(message, param=name, code="unsupported_value")
    return kept


def _sentence(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return invalid(f"'{param}' is not supported by this server: remove it", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return invalid(f"'{param}' is missing", param=param, code="missing_required_parameter")
    return invalid(f"'{param}': {first['msg']}", param=param, code="invalid_value")


def usage(prompt_tokens: int, event: Finished) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "total_tokens": prompt_tokens + event.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": event.cached_tokens},
    }


def timings(event: Finished) -> dict[str, float]:
    """Our extension, see docs/reference/contracts.md."""
    return {
        "queue_s": round(event.timings.queue_s, 6),
        "prompt_eval_time_seconds": round(event.timings.prompt_s, 6),
        "generation_time_seconds": round(event.timings.generation_s, 6),
        "tokens_per_second": round(event.timings.tokens_per_second, 3),
        "cached_tokens": event.cached_tokens,
    }


class Replies:
    """Builds the objects of one completion: the same id, time, model and fingerprint in all of them."""

    def __init__(self, *, completion_id: str, created: int, model: str, fingerprint: str) -> None:
        self._base = {"id": completion_id, "created": created, "model": model, "system_fingerprint": fingerprint}

    def completion(self, text: str, prompt_tokens: int, event: Finished) -> dict[str, Any]:
        """The whole answer at once."""
        choice = {
            "index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None,
            "finish_reason": event.reason,
        }
        return {
            **self._base, "object": "chat.completion", "choices": [choice],
            "usage": usage(prompt_tokens, event), "timings": timings(event),
        }

    def chunk(self, delta: Mapping[str, Any], *, finished: Finished | None = None) -> dict[str, Any]:
        """One piece of a stream; the last one carries the finish reason and the timings."""
        reason = finished.reason if finished else None
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": reason}
        extra = {"timings": timings(finished)} if finished else {}
        return {**self._base, "object": "chat.completion.chunk", "choices": [choice], **extra}

    def usage_chunk(self, prompt_tokens: int, event: Finished) -> dict[str, Any]:
        """The extra chunk of `stream_options.include_usage`."""
        return {
            **self._base, "object": "chat.completion.chunk", "choices": [], "usage": usage(prompt_tokens, event),
            "timings": timings(event),
        }
