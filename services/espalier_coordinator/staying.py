"""Conversations that last: whoever began one is asked for again, as for every call, or a key that was taken away would
go on for as long as its stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from espalier_coordinator.access import CACHE_S, Identity
from espalier_kit.errors import EspalierError, Retryable

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Who = Callable[[], Awaitable[Identity]]
"""Tells whom the stream's credentials name now; raises as `Access.identify`."""


async def refusal(who: Who, known: Identity, *, every_s: float = CACHE_S) -> EspalierError:
    """Returns once the caller is refused, or may do something else than before. While nobody can tell, nothing
    changes.
    """
    while True:
        await asyncio.sleep(every_s)
        try:
            now = await who()
        except Retryable as error:
            log.warning("cannot ask again who a caller is", extra={"error": str(error)})
        except EspalierError as error:
            return error
        else:
            if now != known:
                return Retryable("what this caller may do has changed: connect again", reason="SessionClosed")


async def while_known(
    answers: AsyncIterator[Answer], who: Who, known: Identity, *, every_s: float = CACHE_S
) -> AsyncIterator[Answer]:
    """The answers, until `refusal`, which is raised."""
    refused = asyncio.create_task(refusal(who, known, every_s=every_s))
    coming: asyncio.Future[Answer] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(answers))
            await asyncio.wait({coming, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                raise refused.result()
            try:
                answer = coming.result()
            except StopAsyncIteration:
                return
            yield answer
    finally:
        left = [task for task in (refused, coming) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
