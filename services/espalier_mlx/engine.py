"""One model's running batch: mlx-lm's `BatchGenerator` behind four calls. Used by the generation thread only."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import apply_top_p, greedy_sampler

from espalier_mlx.loading import LoadedModel
from espalier_mlx.prefixes import PrefixCache
from espalier_mlx.work import Sampling, TokenScore, Work

Sampler = Callable[[mx.array], mx.array]
_PREFILL_TOGETHER = 2
"""Prompts computed at once. A running answer pauses for this many prefill steps at most when prompts arrive."""
_GREEDY_BELOW = 1e-4
_CPU_CACHE_BYTES = 64 * 2**20
"""Freed buffers that MLX may keep on a machine without Metal; its default there is most of the memory."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A chunk of a prompt was computed."""

    id: str
    is_prefix_done: bool
    is_prompt_done: bool


@dataclass(frozen=True, slots=True)
class Generated:
    """One token; `is_end` is an end-of-answer token, `is_last` that mlx-lm has taken the sequence out of the batch."""

    id: str
    token: int
    is_end: bool
    is_last: bool


class Engine:
    """The batch of one model and its prefix cache."""

    def __init__(self, model: LoadedModel, *, max_concurrency: int, prefill_step: int, prompt_cache_bytes: int) -> None:
        self.model = model
        self.prefixes: PrefixCache[list[Any]] = PrefixCache(prompt_cache_bytes)
        self._max_concurrency = max_concurrency
        self._prefill_step = prefill_step
        self._works: dict[int, Work] = {}
        self._uids: dict[str, int] = {}
        self._saving: set[int] = set()
        self._generator = self._new_generator()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._works

    def start(self, work: Work) -> int:
        """Put a request into the batch; returns how many of its prompt's tokens the prefix cache already had."""
        cached = self.prefixes.get(work.prefix_key) if work.prefix_key else None
        head, tail = list(work.tokens[: work.prefix_tokens]), list(work.tokens[work.prefix_tokens:])
        (uid,) = self._generator.insert_segments(
            [[tail]] if cached is not None else [[head, tail]],
            max_tokens=[work.max_tokens],
            caches=[copy.deepcopy(cached)] if cached is not None else None,
            all_tokens=[head] if cached is not None else None,
            samplers=[_sampler(work.sampling)],
            logits_processors=[[work.constraint]] if work.constraint is not None else None,
        )
        self._works[uid], self._uids[work.id] = work, uid
        if work.prefix_key and cached is None:
            self._saving.add(uid)
        return work.prefix_tokens if cached is not None else 0

    def remove(self, work_id: str) -> None:
        """Take a request out, wherever it is; unknown ids are fine."""
        uid = self._uids.get(work_id)
        if uid is not None:
            self._generator.remove([uid])
            self._forget(uid)

    def step(self) -> Iterator[Prefilled | Generated]:
        """One decode step of the whole batch and at most one prefill chunk. Raises what MLX raises."""
        prompts, tokens = self._generator.next()
        for prompt in prompts:
            yield self._prefilled(prompt)
        for answer in tokens:
            work = self._works[answer.uid]
            is_end = answer.token in self.model.codec.end_tokens
            is_last = answer.finish_reason is not None
            if is_last:
                self._forget(answer.uid)
            yield Generated(work.id, answer.token, is_end, is_last)

    def scores(self, tokens: tuple[int, ...]) -> Iterator[tuple[TokenScore, ...]]:
        """The probabilities of a text's own tokens, one prefill chunk at a time. Raises what MLX raises."""
        cache = make_prompt_cache(self.model.network)
        last = len(tokens) - 1
        for start in range(0, last, self._prefill_step):
            end = min(start + self._prefill_step, last)
            logits = self.model.network(mx.array([tokens[start:end]]), cache=cache)[0].astype(mx.float32)
            logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            own = mx.take_along_axis(logs, mx.array(tokens[start + 1 : end + 1])[:, None], axis=-1)[:, 0]
            values, bests = cast(list[float], own.tolist()), cast(list[float], mx.max(logs, axis=-1).tolist())
            likeliest = cast(list[int], mx.argmax(logs, axis=-1).tolist())
            yield tuple(TokenScore(*each) for each in zip(values, likeliest, bests, strict=True))

    def reset(self) -> tuple[str, ...]:
        """Start over with an empty batch after a fault; returns the ids that were lost."""
        lost = tuple(self._uids)
        self._generator.close()
        self._works, self._uids, self._saving = {}, {}, set()
        self._generator = self._new_generator()
        return lost

    def _prefilled(self, prompt: Any) -> Prefilled:
        work = self._works[prompt.uid]
        is_prefix_done = prompt.uid in self._saving and prompt.end_of_segment
        if is_prefix_done:
            self._saving.discard(prompt.uid)
            self._save_prefix(prompt.uid, work)
        return Prefilled(work.id, is_prefix_done, prompt.end_of_prompt)

    def _save_prefix(self, uid: int, work: Work) -> None:
        found = self._generator.extract_cache([uid]).get(uid)
        if found is None:
            return
        layers, tokens = found
        if len(tokens) == work.prefix_tokens:
            mx.eval([layer.state for layer in layers])
            self.prefixes.put(work.prefix_key, layers, sum(layer.nbytes for layer in layers))

    def _forget(self, uid: int) -> None:
        self._saving.discard(uid)
        work = self._works.pop(uid, None)
        if work is not None:
            self._uids.pop(work.id, None)

    def _new_generator(self) -> BatchGenerator:
        return BatchGenerator(
            self.model.network,
            stop_tokens=[[token] for token in sorted(self.model.codec.end_tokens)],
            completion_batch_size=self._max_concurrency,
            prefill_batch_size=min(self._max_concurrency, _PREFILL_TOGETHER),
            prefill_step_size=self._prefill_step,
        )


def bound_memory() -> None:
    """Keep MLX from hoarding freed buffers where there is no Metal (with Metal its own limit is sound)."""
    if not mx.metal.is_available():
        mx.set_cache_limit(_CPU_CACHE_BYTES)


def _sampler(sampling: Sampling) -> Sampler:
    """Greedy requests share one sampler, so mlx-lm draws for all of them in one call; others have a generator each."""
    if sampling.temperature < _GREEDY_BELOW:
        return greedy_sampler  # type: ignore[no-any-return]
    key = mx.random.key(secrets.randbits(63) if sampling.seed is None else sampling.seed)

    def draw(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        scaled = logprobs.astype(mx.float32) / sampling.temperature
        scaled = scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)
        kept = apply_top_p(scaled, sampling.top_p) if sampling.top_p < 1.0 else scaled
        return mx.random.categorical(kept, key=now)

    return draw

