"""What all executors share: payloads, endpoints of a target, faults by meaning, artifacts side by side."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError

from espalier_api.benchmarktasks import AskSettings
from espalier_api.meta import Model
from espalier_benchmark.asking import Asker, Away, Refused
from espalier_benchmark.client import Style
from espalier_kit.artifacts import ArtifactStore
from espalier_kit.clock import SystemClock
from espalier_kit.errors import Misconfigured, NotFound
from espalier_kit.execution import Context, EvaluatorFault, ModelEndpoint, PlatformFault

M = TypeVar("M", bound=Model)
CLOCK = SystemClock()


def payload(cls: type[M], given: Mapping[str, object]) -> M:
    """Raises `PlatformFault`: the operator wrote what it should not."""
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        raise PlatformFault(
            f"the task's payload is not a {cls.__name__}: {error}"[:500], reason="BadPayload"
        ) from error


def servers(context: Context, ask: AskSettings) -> list[ModelEndpoint]:
    """The target's ready endpoints, under the model that the job names. Raises `PlatformFault` if there is none."""
    found = of_role(context, ask)
    ready = [endpoint for endpoint in found if endpoint.ready]
    if not ready:
        raise PlatformFault(f"no server of {ask.name} is ready ({len(found)} known)", reason="TargetUnreachable")
    return ready


def of_role(context: Context, ask: AskSettings) -> list[ModelEndpoint]:
    """The target's endpoints, ready or not."""
    found = [endpoint for endpoint in context.endpoints() if endpoint.role == ask.role]
    return [_with_model(endpoint, ask.model) for endpoint in found]


def style(ask: AskSettings, *, takes_ignore_eos: bool = False) -> Style:
    """How this target is asked."""
    return Style(
        temperature=ask.temperature, seed=ask.seed, max_tokens=ask.max_tokens, takes_ignore_eos=takes_ignore_eos
    )


def asker(context: Context, ask: AskSettings) -> Asker:
    """To ask the target's ready servers."""
    return Asker(servers(context, ask), style(ask), clock=CLOCK)


async def source(store: ArtifactStore, sha256: str, what: str) -> bytes:
    """What the job refers to. Raises `EvaluatorFault` (SourceNotFound)."""
    try:
        return await store.get(sha256)
    except NotFound as error:
        raise EvaluatorFault(
            f"spec.{what}: no artifact {sha256} in this namespace; run `espalier push`", reason="SourceNotFound"
        ) from error


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """The library's errors as faults: what the job asked for is the evaluator's, a server that is away is ours."""
    try:
        yield
    except (Misconfigured, Refused) as error:
        raise EvaluatorFault(str(error), reason=error.reason) from error
    except Away as error:
        raise PlatformFault(str(error), reason=error.reason) from error


def _with_model(endpoint: ModelEndpoint, model: str | None) -> ModelEndpoint:
    return dataclasses.replace(endpoint, model=model) if model else endpoint
