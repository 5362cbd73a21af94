"""Questions one at a time, whole answers: for accuracy packs, evaluators and the admission's probe. Not timed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from espalier_benchmark.client import Style, request_body
from espalier_benchmark.items import Item
from espalier_benchmark.transport import CHAT, COMPLETIONS, Cut, HttpTransport, Reply, Unreachable
from espalier_kit.clock import Clock
from espalier_kit.errors import Permanent, Retryable
from espalier_kit.execution import ModelEndpoint

TRIES = 5
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ANSWER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """A whole answer. `fingerprint` is what the server calls its model's revision, if it tells."""

    text: str
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""
    model: str = ""
    fingerprint: str = ""


class Refused(Permanent):
    """The server understood and will not: asking again is of no use."""


class Away(Retryable):
    """No server of the target answered, however often it was asked."""


class Model(Protocol):
    """A model that can be asked."""

    async def chat(self, item: Item) -> Said:
        """Raises `Refused` or `Away`."""
        ...


class Asker:
    """Asks the servers of one target in turn; busy ones again later."""

    def __init__(self, endpoints: Sequence[ModelEndpoint], style: Style, *, clock: Clock, tries: int = TRIES) -> None:
        self._endpoints, self._style, self._clock, self._tries = tuple(endpoints), style, clock, tries
        self._chats = [HttpTransport(endpoint) for endpoint in self._endpoints]
        self._completions = [HttpTransport(endpoint, path=COMPLETIONS) for endpoint in self._endpoints]
        self._turn = count()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in (*self._chats, *self._completions):
            await transport.close()

    async def chat(self, item: Item) -> Said:
        return await self.send(request_body(item, self._model, self._style, is_stream=False))

    async def send(self, body: Mapping[str, Any]) -> Said:
        """A chat completion request of one's own making, for what an `Item` cannot say."""
        return said(await self._post(self._chats, body, path=CHAT))

    async def logprobs(self, text: str) -> list[float]:
        """The natural logarithm of each token's probability given those before it; the first token has none.

        Raises `Refused` (NoLogProbabilities) where the server gives none.
        """
        body = {"model": self._model, "prompt": text, "echo": True, "logprobs": 1, "temperature": 0}
        try:
            try:
                answer = await self._post(self._completions, {**body, "max_tokens": 0}, path=COMPLETIONS)
            except Refused:  # some servers want at least one token more than the text
                answer = await self._post(self._completions, {**body, "max_tokens": 1}, path=COMPLETIONS)
            return token_logprobs(answer)
        except Refused as error:
            raise Refused(
                f"the target gives no log-probabilities of a prompt, which perplexity needs ({error}): leave perplexity"
                " out, or serve the model by a server with /v1/completions, echo and logprobs",
                reason="NoLogProbabilities",
            ) from error

    @property
    def _model(self) -> str:
        return self._endpoints[0].model

    async def _post(
        self, transports: Sequence[HttpTransport], body: Mapping[str, Any], *, path: str
    ) -> Mapping[str, Any]:
        wait, problem = _FIRST_WAIT_S, "no server"
        for attempt in range(self._tries):
            if attempt:
                await self._clock.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT_S)
            try:
                async with transports[next(self._turn) % len(transports)].post(json.dumps(body).encode()) as reply:
                    content = await _whole(reply)
                    if reply.status == 200:
                        return _object(content)
                    problem = f"HTTP {reply.status}: {_message(content)}"
                    if reply.status not in _BUSY:
                        raise Refused(f"the server refused {path} with {problem}", reason="Refused")
            except (Unreachable, Cut) as error:
                problem = str(error)
        raise Away(f"the server did not answer {path} in {self._tries} tries: {problem}", reason="TargetUnreachable")


def said(answer: Mapping[str, Any]) -> Said:
    """A chat completion's first choice. Raises `Refused` (BadAnswer) where there is none."""
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        return Said(
            text=str(choice["message"].get("content") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            finish=str(choice.get("finish_reason") or ""),
            model=str(answer.get("model") or ""),
            fingerprint=str(answer.get("system_fingerprint") or ""),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            f"the server's answer is no chat completion: {type(error).__name__}", reason="BadAnswer"
        ) from error


def token_logprobs(answer: Mapping[str, Any]) -> list[float]:
    """`logprobs.token_logprobs` of an echoed prompt, its unknown first one left out, as is what was generated. Raises
    `Refused`.
    """
    try:
        count = (answer.get("usage") or {}).get("prompt_tokens")
        found = answer["choices"][0]["logprobs"]["token_logprobs"][:count]
        values = [float(value) for value in found if value is not None]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Refused("its answer has no logprobs.token_logprobs", reason="BadAnswer") from error
    if not values:
        raise Refused("its answer holds no token's probability", reason="BadAnswer")
    return values


async def _whole(reply: Reply) -> bytes:
    body = bytearray()
    async for data in reply.data():
        body += data
        if len(body) > _ANSWER_BYTES:
            raise Refused(f"the answer is larger than {_ANSWER_BYTES} bytes", reason="BadAnswer")
    return bytes(body)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise Refused("the server's answer is no JSON", reason="BadAnswer") from error
    if not isinstance(value, dict):
        raise Refused("the server's answer is no JSON object", reason="BadAnswer")
    return value


def _message(content: bytes) -> str:
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")[:300].strip()
