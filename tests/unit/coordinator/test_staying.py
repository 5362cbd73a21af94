"""A stream ends soon after its caller's rights do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from espalier_coordinator.access import Identity, identity_of
from espalier_coordinator.staying import refusal, while_known
from espalier_kit.errors import EspalierError, Forbidden, Retryable

WORKER = identity_of("system:serviceaccount:team-a:job-worker", frozenset())
OTHER = identity_of("system:serviceaccount:team-b:job-worker", frozenset())
DEADLINE_S = 10.0
GONE = Forbidden("nobody knows this key", reason="Unauthenticated")


class Door:
    """Answers who it is from a list, the last for ever."""

    def __init__(self, *answers: Identity | EspalierError) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def who(self) -> Identity:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, EspalierError):
            raise answer
        return answer


async def endless() -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


async def test_a_caller_is_asked_for_again_until_it_is_refused() -> None:
    door = Door(WORKER, Retryable("the API server is away"), WORKER, GONE)
    assert await asyncio.wait_for(refusal(door.who, WORKER, every_s=0.001), DEADLINE_S) is GONE
    assert door.asked == 4


async def test_other_rights_are_a_reason_to_come_again() -> None:
    found = await asyncio.wait_for(refusal(Door(OTHER).who, WORKER, every_s=0.001), DEADLINE_S)
    assert isinstance(found, Retryable)


async def test_a_stream_that_waits_for_its_next_answer_ends_with_the_refusal() -> None:
    answers = while_known(endless(), Door(GONE).who, WORKER, every_s=0.01)
    assert await anext(answers) == 1
    with pytest.raises(Forbidden, match="nobody knows this key"):
        await asyncio.wait_for(anext(answers), DEADLINE_S)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_that_ends_by_itself_leaves_nothing() -> None:
    async def two() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [answer async for answer in while_known(two(), Door(WORKER).who, WORKER)] == [1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}
